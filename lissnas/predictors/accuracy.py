"""Accuracy predictor, a stack of XGBoost and kernel regression: scores for ranking, values in the metric's unit."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from scipy.special import ndtri

from lissnas import artifacts
from lissnas.config import PredictorConfig
from lissnas.core.blas import one_blas_thread
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.predictors.boosting import booster_scores, device_parameters, fit_trees, xgb
from lissnas.predictors.kernel import KernelModel, subset
from lissnas.predictors.ranks import from_normal, kendall, normal_scores
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import Features

CHUNK = 8_192
"""Rows encoded and predicted per batch."""
MIN_PARALLEL_ROWS = 4_096
"""Fewer rows are fitted or predicted in one thread: more cost as much as they gain, and contend on a busy machine."""
FOLDS = 5
PRIOR_LABELS = 50
"""Labels that the prior of the weights counts as: with few labels, fitted weights are noisy."""
PRIOR_WEIGHTS = (0.5, 0.5)
MIN_WEIGHT = 0.05
"""A member of less weight is left out of scoring."""
DECIMALS = 5
"""Decimals of scores, in normal quantiles: rounding removes what depends on the order of summation."""
KERNEL_FIELDS = ("weights", "length", "share", "penalty")
"""Fields of a kernel model that are saved; the others follow from the labelled architectures."""


class Scorer(Protocol):
    """Ranks architectures: a fitted predictor, or a surrogate that is queried directly."""

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores for ranking; higher is better."""
        ...

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert `(n,)` scores to the metric's unit."""
        ...


@dataclass(frozen=True)
class Member:
    """A member of the stack: its weight, and its cross-validated tau (None in models of earlier versions)."""

    weight: float
    tau: float | None = None


@dataclass(frozen=True)
class Predictor:
    """A stack of boosted trees and a kernel model, fitted to labels of one space.

    The target is the normal score of the labels' average-tie ranks, so a *score* is a normal quantile;
    `value` maps scores back to the metric's unit with the labels' quantile function. Weights are fitted by
    non-negative least squares on out-of-fold predictions (stacked regressions: Breiman, 1996).
    """

    space: Space
    booster: xgb.Booster
    quantiles: FloatArray
    """The labels, ascending, as their quantile function."""
    labelled: Archs | None = None
    """Architectures to which `kernel` was fitted: those labelled, or a subset of them."""
    kernel: KernelModel | None = None
    """None in models of earlier versions that consist of trees only."""
    trees_member: Member = Member(1.0)
    kernel_member: Member = Member(0.0)
    out_of_fold: FloatArray | None = None
    """`(n,)` cross-validated scores of the labelled architectures in the order of the fit; None after loading."""

    @classmethod
    def fit(
        cls,
        space: Space,
        archs: Archs,
        values: FloatArray,
        settings: PredictorConfig,
        seed: int,
        threads: int = 0,
        like: Predictor | None = None,
    ) -> Predictor:
        """Fit to `(n,)` labels; the result does not depend on `threads` (0: all cores).

        Weights and kernel settings are those of `like`, a predictor of fewer labels, if it is given: without
        cross-validation a fit takes a fifth of the time. Raises UserError if labels are not finite or all equal.
        """
        bad = ~np.isfinite(values)
        if bad.any():
            raise UserError(f"label in row {int(np.argmax(bad))} is {values[np.argmax(bad)]}; expected a finite number")
        if len(values) < 2 or values.min() == values.max():
            raise UserError(f"{len(values)} labels without two different values: a predictor can't be fitted")
        n = len(values)
        target = normal_scores(values)
        features, chosen = space.encode(archs), subset(n)
        quantiles = np.sort(values)
        if like is not None and like.kernel is not None:
            kernel = like.kernel.refit_to(features[chosen], target[chosen])
            booster = fit_trees(features, target, settings, seed, threads_for(n, threads))
            return cls(space, booster, quantiles, archs[chosen], kernel, like.trees_member, like.kernel_member)
        kernel = KernelModel.fit(features[chosen], target[chosen])
        fold = stream(seed, "folds", n).permutation(n) % FOLDS
        boosters = _boosters(features, target, fold, settings, seed, threads)
        found = np.empty((n, 2))
        for f, booster in enumerate(boosters[1:]):
            test, train = fold == f, np.flatnonzero(fold[chosen] != f)
            found[test, 0] = booster_scores(booster, features[test])
            found[test, 1] = kernel.refit(train, target[chosen][train]).predict(features[test])
        weights = stack_weights(found, target)
        scores = np.round(found @ weights, DECIMALS)
        trees, smooth = (Member(float(w), tau(found[:, i], values)) for i, w in enumerate(weights))
        return cls(space, boosters[0], quantiles, archs[chosen], kernel, trees, smooth, scores)

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores for ranking, in normal quantiles."""
        threads = threads_for(len(archs), threads)
        starts = range(0, len(archs), CHUNK)
        out = np.zeros(len(archs), np.float64)
        trees, smooth = self.trees_member.weight, self.kernel_member.weight
        least = min(MIN_WEIGHT, max(trees, smooth))

        def score_chunk(lo: int) -> None:
            features, scores = self.space.encode(archs[lo : lo + CHUNK]), out[lo : lo + CHUNK]
            if trees >= least:
                scores += trees * booster_scores(self.booster, features)
            if self.kernel is not None and smooth >= least:
                scores += smooth * self.kernel.predict(features)

        # Encoding takes as long as predicting: with several chunks, each thread does both for one chunk.
        parallel = min(threads, len(starts))
        self.booster.set_param({"nthread": max(1, threads // max(1, parallel)), **device_parameters()})
        if parallel < 2:
            for lo in starts:
                score_chunk(lo)
        else:
            with one_blas_thread(), ThreadPoolExecutor(parallel) as pool:
                list(pool.map(score_chunk, starts))
        return np.round(out, DECIMALS)

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert scores to the metric's unit with the labels' quantile function."""
        return from_normal(scores, self.quantiles)

    def dump(self) -> tuple[bytes, bytes, dict[str, Any]]:
        """Return the trees as UBJSON, the kernel model as npz, and a JSON sidecar with weights, space and encoding."""
        model, kernel = bytes(self.booster.save_raw("ubj")), b""
        if self.kernel is not None and self.labelled is not None:
            arrays = {name: getattr(self.kernel, name) for name in KERNEL_FIELDS}
            sink = BytesIO()
            np.savez_compressed(sink, labelled=self.labelled, **arrays)
            kernel = sink.getvalue()
        return (
            model,
            kernel,
            {
                "space": self.space.name,
                "n_features": self.space.n_features,
                "encoding_sha256": encoding_digest(self.space),
                "model_sha256": hashlib.sha256(model).hexdigest(),
                "kernel_sha256": hashlib.sha256(kernel).hexdigest(),
                "members": {"trees": asdict(self.trees_member), "kernel": asdict(self.kernel_member)},
                "target": "normal score of the average-tie rank",
                "quantiles": self.quantiles.tolist(),
            },
        )

    def files(self, stem: str) -> dict[str, bytes]:
        """Return the output of `dump` as files by name."""
        model, kernel, about = self.dump()
        return {f"{stem}.ubj": model, f"{stem}_kernel.npz": kernel, f"{stem}.json": artifacts.to_json(about)}

    def sha256(self) -> str:
        """Return the digest of the whole model."""
        return hashlib.sha256(b"".join(self.files("").values())).hexdigest()

    def member_metrics(self) -> dict[str, float]:
        """Return weight and cross-validated tau of each member, if they are known."""
        members = {"trees": self.trees_member, "kernel": self.kernel_member}
        return {
            f"{name}_{what}": value
            for name, member in members.items()
            for what, value in asdict(member).items()
            if member.tau is not None
        }

    @classmethod
    def load(cls, space: Space, model: bytes, kernel: bytes, about: Mapping[str, Any]) -> Predictor:
        """Load the output of `dump`; raises UserError for a model of another space or encoding.

        Of an earlier version, `kernel` is empty, and the sidecar may hold a kernel without a linear part.
        """
        if about["space"] != space.name:
            raise UserError(f"the model was made for space {about['space']!r}, not for {space.name!r}")
        if about["encoding_sha256"] != encoding_digest(space):
            raise UserError(f"the model uses another encoding of {space.name}; fit it again with this version")
        for data, name in ((model, "model_sha256"), (kernel, "kernel_sha256")):
            found = hashlib.sha256(data).hexdigest()
            if name in about and about[name] != found:
                raise UserError(
                    f"the model file does not match its sidecar: expected sha256 {about[name]}, found {found}; "
                    "fit it again"
                )
        booster = xgb.Booster()
        booster.load_model(bytearray(model))
        quantiles = np.array(about["quantiles"])
        if kernel:
            with np.load(BytesIO(kernel), allow_pickle=False) as file:
                labelled, parts = file["labelled"], {name: file[name] for name in KERNEL_FIELDS}
            trees, smooth = (Member(**about["members"][name]) for name in ("trees", "kernel"))
        elif "kernel" in about:
            labelled, old = np.array(about["kernel"]["labelled"], np.int8), about["kernel"]
            parts = {"weights": np.array(old["weights"]), "length": old["length"], "share": 1.0, "penalty": 0.0}
            trees = smooth = Member(0.5)
        else:
            return cls(space, booster, quantiles)
        settings = {name: float(value) for name, value in parts.items() if name != "weights"}
        restored = KernelModel.restore(space.encode(labelled), parts["weights"], **settings)
        return cls(space, booster, quantiles, labelled, restored, trees, smooth)


def stack_weights(predictions: FloatArray, target: FloatArray) -> FloatArray:
    """Return the weight of each column of `(n, members)` out-of-fold predictions of `(n,)` targets.

    Non-negative least squares, pulled to equal weights if labels are few.
    """
    from scipy.optimize import nnls  # takes longer to import than a fit of few labels

    n = len(target)
    weights: FloatArray = (n * nnls(predictions, target)[0] + PRIOR_LABELS * np.array(PRIOR_WEIGHTS)) / (
        n + PRIOR_LABELS
    )
    return np.round(weights, DECIMALS)


def _boosters(
    features: Features, target: FloatArray, fold: IntArray, settings: PredictorConfig, seed: int, threads: int
) -> list[xgb.Booster]:
    """Return trees fitted to all rows, then those fitted without each fold."""
    parts = [np.ones(len(target), bool), *(fold != f for f in range(FOLDS))]
    threads = threads or os.cpu_count() or 1
    # Few rows: a thread for each fit. Many rows: all threads for each fit.
    within = threads_for(len(target), threads)
    with ThreadPoolExecutor(1 if within > 1 else threads) as pool:
        return list(pool.map(lambda part: fit_trees(features[part], target[part], settings, seed, within), parts))


def threads_for(n_rows: int, threads: int) -> int:
    """Return the number of threads for `n_rows` rows if at most `threads` (0: all cores) are allowed."""
    return 1 if n_rows < MIN_PARALLEL_ROWS else threads or os.cpu_count() or 1


def encoding_digest(space: Space) -> str:
    """Return the SHA-256 of the encodings of 16 fixed architectures of the space."""
    probe = space.encode(space.sample(16, stream(0, "encoding", space.name)))
    return hashlib.sha256(np.ascontiguousarray(probe).tobytes()).hexdigest()


def tau(scores: FloatArray, values: FloatArray) -> float:
    """Return Kendall's tau, 0 if either is constant."""
    return _defined(kendall(scores, values))


def tau_interval(scores: FloatArray, values: FloatArray) -> tuple[float, float, float]:
    """Return Kendall's tau and its 95 % interval by Fisher's transform with variance .437 / (n - 4) (Fieller, 1957)."""
    found = tau(scores, values)
    error = float(ndtri(0.975)) * math.sqrt(0.437 / max(1, len(values) - 4))
    z = math.atanh(min(max(found, -0.999999), 0.999999))
    return found, math.tanh(z - error), math.tanh(z + error)


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
    names = ("predictor.ubj", "predictor_kernel.npz", "predictor.json")
    model, kernel, about = (
        artifacts.read_verified(folder, name, manifest) if name in manifest else b"" for name in names
    )
    return Predictor.load(space, model, kernel, json.loads(about))
