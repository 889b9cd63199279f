"""Scorers without a fit: surrogates that are queried directly, user-supplied XGBoost models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xgboost as xgb

from lissnas.core.errors import LissnasError, UserError, first_line, short
from lissnas.core.rng import stream
from lissnas.predictors.accuracy import Scorer
from lissnas.predictors.boosting import booster_scores, device_parameters
from lissnas.spaces import Archs, FloatArray, Space

Values: TypeAlias = Callable[[Archs], FloatArray]
"""Returns `(n,)` values for `(n, genome_len)` architectures, as an oracle does."""

CHUNK = 32_768
"""Architectures encoded per batch."""


@dataclass(frozen=True)
class SurrogateScorer:
    """A surrogate that is queried directly: its value is the score."""

    surrogate: Values

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return the surrogate's values; raises LissnasError unless it returns one per architecture."""
        values = np.asarray(self.surrogate(archs), np.float64)
        if values.shape != (len(archs),):
            raise LissnasError(f"the surrogate returned values of shape {values.shape}; expected ({len(archs)},)")
        return values

    def value(self, scores: FloatArray) -> FloatArray:
        """Return the scores unchanged."""
        return scores


def scorer_values(scorer: Scorer) -> Values:
    """Return an oracle that returns a scorer's values, in the metric's unit."""
    return lambda archs: scorer.value(scorer.score(archs))


def model_scorer(path: Path, space: Space) -> SurrogateScorer:
    """Load an XGBoost model of the space's features, `.ubj` or `.json`, as a scorer.

    Raises UserError for a file that XGBoost can't read, or a model with another number of features.
    """
    if path.suffix not in (".ubj", ".json") or not path.is_file():
        raise UserError(f"{path}: expected an XGBoost model in a file that ends in .ubj or .json")
    try:
        booster = _booster(path.read_bytes())
    except (ValueError, xgb.core.XGBoostError) as error:
        raise UserError(f"{path} is not an XGBoost model: {short(first_line(error), 200)}") from None
    if booster.num_features() != space.n_features:
        raise UserError(f"{path} reads {booster.num_features()} features, {space.name} has {space.n_features}")

    booster.set_param(device_parameters())

    def values(archs: Archs) -> FloatArray:
        parts = [archs[lo : lo + CHUNK] for lo in range(0, max(1, len(archs)), CHUNK)]
        return np.concatenate([booster_scores(booster, space.encode(part)).astype(np.float64) for part in parts])

    if (shape := values(space.sample(2, stream(0, "probe", space.name))).shape) != (2,):
        raise UserError(f"{path} returns values of shape {shape} for two architectures; expected (2,)")
    return SurrogateScorer(values)


def _booster(data: bytes) -> xgb.Booster:
    """Load a model from UBJSON or JSON; raises ValueError, XGBoostError."""
    if data[:1] != b"{" or data.rstrip()[-1:] != b"}":  # XGBoost 3.2 reads beyond the end of truncated UBJSON
        raise ValueError("truncated, or neither UBJSON nor JSON")
    booster = xgb.Booster()
    booster.load_model(bytearray(data))
    return booster
