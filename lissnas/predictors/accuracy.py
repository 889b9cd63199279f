"""Accuracy predictor based on XGBoost: scores for ranking, and values in the metric's unit."""

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
"""Rows encoded and predicted per batch."""
MIN_PARALLEL_ROWS = 4_096
"""Fewer rows are fitted or predicted in one thread: more cost as much as they gain, and contend on a busy machine."""
FOLDS = 5
MIN_TREE_LABELS = 120
"""With fewer labels, scores are averaged with a kernel regression: trees need many labels to be smooth."""


class Scorer(Protocol):
    """Ranks architectures: a fitted predictor, or a surrogate that is queried directly."""

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores for ranking; higher is better."""
        ...

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert `(n,)` scores to the metric's unit."""
        ...


@dataclass(frozen=True)
class Predictor:
    """A model fitted to labels of one space.

    The target is the normal score of the labels' average-tie ranks, so a *score* is a normal quantile;
    `value` maps scores back to the metric's unit with the labels' quantile function.
    """

    space: Space
    booster: xgb.Booster
    quantiles: FloatArray
    """The labels, ascending, as their quantile function."""
    labelled: Archs | None = None
    """Architectures to which `kernel` was fitted."""
    kernel: KernelModel | None = None
    """Fitted if labels are few; scores are then the mean of kernel and trees."""

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

        Raises UserError if labels are not finite or all equal.
        """
        bad = ~np.isfinite(values)
        if bad.any():
            raise UserError(f"label in row {int(np.argmax(bad))} is {values[np.argmax(bad)]}; expected a finite number")
        if len(values) < 2 or values.min() == values.max():
            raise UserError(f"{len(values)} labels without two different values: a predictor can't be fitted")
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
        if len(values) >= MIN_TREE_LABELS:
            return cls(space, booster, np.sort(values))
        return cls(space, booster, np.sort(values), archs, KernelModel.fit(features, target))

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores for ranking, in normal quantiles."""
        threads = threads_for(len(archs), threads)
        starts = range(0, len(archs), CHUNK)
        out = np.empty(len(archs), np.float64)

        def score_chunk(lo: int) -> None:
            features = self.space.encode(archs[lo : lo + CHUNK])
            found = booster_scores(self.booster, features)
            out[lo : lo + CHUNK] = found if self.kernel is None else (found + self.kernel.predict(features)) / 2

        # Encoding takes as long as predicting: with several chunks, each thread does both for one chunk.
        parallel = min(threads, len(starts))
        self.booster.set_param({"nthread": max(1, threads // max(1, parallel)), **device_parameters()})
        if parallel < 2:
            for lo in starts:
                score_chunk(lo)
        else:
            with ThreadPoolExecutor(parallel) as pool:
                list(pool.map(score_chunk, starts))
        return out

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert scores to the metric's unit with the labels' quantile function."""
        n = len(self.quantiles)
        return np.asarray(np.interp(ndtr(scores), (np.arange(n) + 0.5) / n, self.quantiles))

    def dump(self) -> tuple[bytes, dict[str, Any]]:
        """Return the model as UBJSON, and a JSON sidecar with its space, encoding and kernel."""
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
        """Load the output of `dump`; raises UserError for a model of another space or encoding."""
        if about["space"] != space.name:
            raise UserError(f"the model was made for space {about['space']!r}, not for {space.name!r}")
        if about["encoding_sha256"] != encoding_digest(space):
            raise UserError(f"the model uses another encoding of {space.name}; fit it again with this version")
        found = hashlib.sha256(model).hexdigest()
        if about["model_sha256"] != found:
            raise UserError(
                f"the model file does not match its sidecar: expected sha256 {about['model_sha256']}, "
                f"found {found}; fit it again"
            )
        booster = xgb.Booster()
        booster.load_model(bytearray(model))
        quantiles = np.array(about["quantiles"])
        if "kernel" not in about:
            return cls(space, booster, quantiles)
        saved = about["kernel"]
        labelled = np.array(saved["labelled"], np.int8)
        kernel = KernelModel.restore(space.encode(labelled), np.array(saved["weights"]), saved["length"])
        return cls(space, booster, quantiles, labelled, kernel)


def threads_for(n_rows: int, threads: int) -> int:
    """Return the number of threads for `n_rows` rows if at most `threads` (0: all cores) are allowed."""
    return 1 if n_rows < MIN_PARALLEL_ROWS else threads or os.cpu_count() or 1


@cache
def on_gpu() -> bool:
    """Return whether XGBoost is a CUDA build, which predicts on the GPU and falls back to the CPU without one."""
    return bool(xgb.build_info().get("USE_CUDA"))


def device_parameters() -> dict[str, str]:
    """Return the XGBoost parameter that selects the GPU; empty if it predicts on the CPU."""
    return {"device": "cuda"} if on_gpu() else {}


def booster_scores(booster: xgb.Booster, features: Features) -> FloatArray:
    """Return `(n,)` predictions of an XGBoost model."""
    if on_gpu():
        # Features are in host memory: in-place prediction would warn of that on every call.
        return np.asarray(booster.predict(xgb.DMatrix(features)))
    return np.asarray(booster.inplace_predict(features))


def encoding_digest(space: Space) -> str:
    """Return the SHA-256 of the encodings of 16 fixed architectures of the space."""
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
    """Return `(n,)` out-of-fold scores of labelled architectures, by 5-fold cross-validation."""
    fold = rng.permutation(len(values)) % FOLDS
    scores = np.empty(len(values))
    for f in range(FOLDS):
        test = fold == f
        if np.ptp(values[~test]) == 0:
            scores[test] = 0
            continue
        model = Predictor.fit(space, archs[~test], values[~test], settings, seed, threads)
        scores[test] = model.score(archs[test], threads)
    return scores


def tau_interval(scores: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    """Return Kendall's tau and its 95 % interval by Fisher's transform with variance .437 / (n - 4) (Fieller, 1957)."""
    tau = _defined(kendall(scores, values))
    error = float(ndtri(0.975)) * math.sqrt(0.437 / max(1, len(values) - 4))
    z = math.atanh(min(max(tau, -0.999999), 0.999999))
    return tau, math.tanh(z - error), math.tanh(z + error)


def assess(predictor: Predictor, archs: Archs, values: FloatArray, threads: int = 0) -> dict[str, float]:
    """Return tau, Spearman, R2, and tau on the better half, for held-out architectures."""
    from scipy.stats import kendalltau, spearmanr  # takes longer to import than a small shrink

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
    """Return the correlation, or 0 if it is undefined because an input is constant."""
    return 0.0 if math.isnan(statistic) else float(statistic)


def predictor_in(folder: Path, space: Space) -> Predictor:
    """Return the verified predictor in the folder of a shrink; raises UserError, DamagedFile."""
    manifest = artifacts.verify(folder)
    if "predictor.ubj" not in manifest:
        raise UserError(f"{folder} contains no predictor; give the folder of a finished shrink")
    model, sidecar = (artifacts.read_verified(folder, f"predictor.{end}", manifest) for end in ("ubj", "json"))
    return Predictor.load(space, model, json.loads(sidecar))
