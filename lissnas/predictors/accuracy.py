"""A predictor of accuracy, XGBoost's: scores to rank by, and values in the metric's unit."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator
from scipy.special import ndtr, ndtri

from lissnas import artifacts
from lissnas.config import PredictorConfig
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.predictors.boosting import xgb
from lissnas.predictors.kernel import KernelModel
from lissnas.predictors.ranks import average_ranks, kendall
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.base import Features

CHUNK = 32_768
"""Rows encoded and predicted at once."""
SMALL = 4_096
"""Fits and batches of fewer rows use one thread: more cost as much as they gain, and wait for each other on a busy
machine."""
FOLDS = 5
FEW = 120
"""With fewer labels than this a kernel regression has half of the say: trees need many labels to be smooth."""


class Scorer(Protocol):
    """What ranks architectures: a fitted predictor, or a surrogate that is queried directly."""

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores to rank by, higher is better."""
        ...

    def value(self, scores: FloatArray) -> FloatArray:
        """Return scores in the metric's unit."""
        ...


@dataclass(frozen=True)
class Predictor:
    """A fitted model, bound to its space.

    It is fitted to the normal scores of the labels' average-tie ranks, so a *score* is a normal
    quantile; `value` maps scores back to the metric's unit by the labels' quantile function.
    """

    space: Space
    booster: xgb.Booster
    quantiles: FloatArray
    """The labels, ascending: their quantile function."""
    labelled: Archs | None = None
    """What `kernel` was fitted to."""
    kernel: KernelModel | None = None
    """Where labels are few: scores are the mean of its and the trees'."""

    @classmethod
    def fit(
        cls,
        space: Space,
        archs: Archs,
        values: FloatArray,
        settings: PredictorConfig,
        seed: int,
        threads: int = 0,
    ) -> Predictor:
        """Fit to `(n,)` labels; the result does not depend on `threads` (0: all cores).

        Raises UserError for labels that are not finite or all equal.
        """
        bad = ~np.isfinite(values)
        if bad.any():
            raise UserError(f"label in row {int(np.argmax(bad))} is {values[np.argmax(bad)]}, not a number")
        if len(values) < 2 or values.min() == values.max():
            raise UserError(f"{len(values)} labels without two different values: nothing can be learnt from them")
        threads = threads_for(len(values), threads)
        target = ndtri((average_ranks(values) - 0.5) / len(values))
        parameters = {
            "tree_method": "hist",
            "max_depth": settings.depth,
            "eta": settings.eta,
            "subsample": settings.subsample,
            "colsample_bytree": settings.colsample,
            "min_child_weight": settings.min_child_weight,
            "seed": seed,
            "nthread": threads,
        }
        features = space.encode(archs)
        booster = xgb.train(parameters, xgb.DMatrix(features, target, nthread=threads), settings.trees)
        if len(values) >= FEW:
            return cls(space, booster, np.sort(values))
        return cls(space, booster, np.sort(values), archs, KernelModel.fit(features, target))

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores to rank by, in normal quantiles."""
        threads = threads_for(len(archs), threads)
        starts = range(0, len(archs), CHUNK)
        out = np.empty(len(archs), np.float64)

        def score_chunk(lo: int) -> None:
            features = self.space.encode(archs[lo : lo + CHUNK])
            found = predicted(self.booster, features)
            out[lo : lo + CHUNK] = found if self.kernel is None else (found + self.kernel.predict(features)) / 2

        # Encoding takes as long as predicting: with several chunks a thread does both for one of them.
        together = min(threads, len(starts))
        self.booster.set_param({"nthread": max(1, threads // max(1, together)), **placed()})
        if together < 2:
            for lo in starts:
                score_chunk(lo)
        else:
            with ThreadPoolExecutor(together) as pool:
                list(pool.map(score_chunk, starts))
        return out

    def value(self, scores: FloatArray) -> FloatArray:
        """Return scores in the metric's unit, by the quantile function of the labels."""
        n = len(self.quantiles)
        return np.asarray(np.interp(ndtr(scores), (np.arange(n) + 0.5) / n, self.quantiles))

    def dump(self) -> tuple[bytes, dict[str, Any]]:
        """Return the model as UBJSON and the sidecar that binds it to its space and encoding."""
        model = bytes(self.booster.save_raw("ubj"))
        kernel: dict[str, Any] = {}
        if self.kernel is not None and self.labelled is not None:
            weights = self.kernel.weights.tolist()
            about = {"labelled": self.labelled.tolist(), "weights": weights, "length": self.kernel.length}
            kernel = {"kernel": about}
        return model, kernel | {
            "space": self.space.name,
            "n_features": self.space.n_features,
            "encoding_sha256": encoding_digest(self.space),
            "model_sha256": hashlib.sha256(model).hexdigest(),
            "target": "normal score of the average-tie rank",
            "quantiles": self.quantiles.tolist(),
        }

    @classmethod
    def load(cls, space: Space, model: bytes, about: Mapping[str, Any]) -> Predictor:
        """Read what `dump` gave; raises UserError for a model of another space or encoding."""
        if about["space"] != space.name:
            raise UserError(f"the model was made for space {about['space']!r}, not for {space.name!r}")
        if about["encoding_sha256"] != encoding_digest(space):
            raise UserError(f"the model reads another encoding of {space.name}: fit it again with this version")
        found = hashlib.sha256(model).hexdigest()
        if about["model_sha256"] != found:
            raise UserError(
                f"the model file is not the one of its sidecar: expected sha256 {about['model_sha256']}, "
                f"found {found}; fit it again"
            )
        booster = xgb.Booster()
        booster.load_model(bytearray(model))
        quantiles = np.array(about["quantiles"])
        if "kernel" not in about:
            return cls(space, booster, quantiles)
        own = about["kernel"]
        labelled = np.array(own["labelled"], np.int8)
        kernel = KernelModel.at(space.encode(labelled), np.array(own["weights"]), own["length"])
        return cls(space, booster, quantiles, labelled, kernel)


def threads_for(n_rows: int, threads: int) -> int:
    """Return how many threads work on so many rows, if `threads` (0: all cores) are allowed."""
    return 1 if n_rows < SMALL else threads or os.cpu_count() or 1


@cache
def on_gpu() -> bool:
    """Return whether XGBoost predicts on the GPU: with its CUDA build, which falls back to the CPU where none is."""
    return bool(xgb.build_info().get("USE_CUDA"))


def placed() -> dict[str, str]:
    """Return the parameter that puts a model where it predicts; none for the CPU, where it is already."""
    return {"device": "cuda"} if on_gpu() else {}


def predicted(booster: xgb.Booster, features: Features) -> FloatArray:
    """Return `(n,)` predictions of a model."""
    if on_gpu():
        # Features are in the host's memory: predicting in place would warn of that each time.
        return np.asarray(booster.predict(xgb.DMatrix(features)))
    return np.asarray(booster.inplace_predict(features))


def encoding_digest(space: Space) -> str:
    """Return a digest of what the space's encoding makes of a few fixed architectures."""
    probe = space.encode(space.sample(16, stream(0, "encoding", space.name)))
    return hashlib.sha256(np.ascontiguousarray(probe).tobytes()).hexdigest()


def out_of_fold(
    space: Space,
    archs: Archs,
    values: FloatArray,
    settings: PredictorConfig,
    seed: int,
    rng: Generator,
    threads: int,
) -> FloatArray:
    """Return `(n,)` scores of labelled architectures, each by a predictor fitted to the other four fifths."""
    fold = rng.permutation(len(values)) % FOLDS
    scores = np.empty(len(values))
    for f in range(FOLDS):
        out = fold == f
        if np.ptp(values[~out]) == 0:
            scores[out] = 0
            continue
        model = Predictor.fit(space, archs[~out], values[~out], settings, seed, threads)
        scores[out] = model.score(archs[out], threads)
    return scores


def tau_interval(scores: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    """Return Kendall's tau and its 95 % interval: Fisher's transform, variance .437 / (n - 4) (Fieller, 1957)."""
    tau = _defined(kendall(scores, values))
    error = float(ndtri(0.975)) * math.sqrt(0.437 / max(1, len(values) - 4))
    z = math.atanh(min(max(tau, -0.999999), 0.999999))
    return tau, math.tanh(z - error), math.tanh(z + error)


def assess(predictor: Predictor, archs: Archs, values: FloatArray, threads: int = 0) -> dict[str, float]:
    """Return tau, Spearman, R2, and tau on the better half, on architectures held out from the fit."""
    from scipy.stats import kendalltau, spearmanr  # takes longer to import than a small shrink, which needs neither

    scores = predictor.score(archs, threads)
    better = values >= np.median(values)
    error = np.mean((predictor.value(scores) - values) ** 2)
    return {
        "tau": _defined(kendalltau(scores, values).statistic),
        "spearman": _defined(spearmanr(scores, values).statistic),
        "r2": 1 - float(error / values.var()) if values.var() > 0 else 0.0,
        "tau_better_half": _defined(kendalltau(scores[better], values[better]).statistic),
    }


def _defined(statistic: float) -> float:
    """A correlation with a constant is undefined; it says nothing, which is what 0 means here."""
    return 0.0 if math.isnan(statistic) else float(statistic)


def predictor_in(folder: Path, space: Space) -> Predictor:
    """Return the predictor that a shrink left in its folder, once verified; raises UserError, DamagedFile."""
    manifest = artifacts.verify(folder)
    if "predictor.ubj" not in manifest:
        raise UserError(f"{folder} holds no predictor; give the folder of a finished shrink")
    model, sidecar = (artifacts.read_verified(folder, f"predictor.{end}", manifest) for end in ("ubj", "json"))
    return Predictor.load(space, model, json.loads(sidecar))
