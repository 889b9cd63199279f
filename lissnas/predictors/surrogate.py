"""Scorers that need no fit: a surrogate that is queried directly, an XGBoost model of the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xgboost as xgb

from lissnas.core.errors import LissnasError, UserError, first_line, short
from lissnas.core.rng import stream
from lissnas.predictors.accuracy import Scorer, placed, predicted
from lissnas.spaces import Archs, FloatArray, Space

Values: TypeAlias = Callable[[Archs], FloatArray]
"""Gives `(n,)` values for `(n, genome_len)` architectures; an oracle is one."""

CHUNK = 32_768
"""Architectures whose features are in memory at once."""


@dataclass(frozen=True)
class SurrogateScorer:
    """A surrogate that is asked directly: its value is the score."""

    surrogate: Values

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return the surrogate's values; raises LissnasError unless they are one number each."""
        values = np.asarray(self.surrogate(archs), np.float64)
        if values.shape != (len(archs),):
            raise LissnasError(f"the surrogate gave values of shape {values.shape} for {len(archs)} architectures")
        return values

    def value(self, scores: FloatArray) -> FloatArray:
        """Return the scores, which are values."""
        return scores


def scorer_values(scorer: Scorer) -> Values:
    """Return a scorer's values, in the metric's unit, as an oracle."""
    return lambda archs: scorer.value(scorer.score(archs))


def model_scorer(path: Path, space: Space) -> SurrogateScorer:
    """Return an XGBoost model of a user's, `.ubj` or `.json`, that reads the space's features, as a scorer.

    Raises UserError for a file that XGBoost can't read, or a model of another number of features.
    """
    if path.suffix not in (".ubj", ".json") or not path.is_file():
        raise UserError(f"{path}: expected an XGBoost model in a file that ends in .ubj or .json")
    try:
        booster = _booster(path.read_bytes())
    except (ValueError, xgb.core.XGBoostError) as error:
        raise UserError(f"{path} is no XGBoost model: {short(first_line(error), 200)}") from None
    if booster.num_features() != space.n_features:
        raise UserError(f"{path} reads {booster.num_features()} features, {space.name} has {space.n_features}")

    booster.set_param(placed())

    def values(archs: Archs) -> FloatArray:
        parts = [archs[lo : lo + CHUNK] for lo in range(0, max(1, len(archs)), CHUNK)]
        return np.concatenate([predicted(booster, space.encode(part)).astype(np.float64) for part in parts])

    if (shape := values(space.sample(2, stream(0, "probe", space.name))).shape) != (2,):
        raise UserError(f"{path} gives values of shape {shape} for two architectures: one number each is expected")
    return SurrogateScorer(values)


def _booster(data: bytes) -> xgb.Booster:
    """Return a model from UBJSON or JSON; raises ValueError, XGBoostError."""
    if data[:1] != b"{" or data.rstrip()[-1:] != b"}":  # XGBoost 3.2 reads beyond the end of UBJSON that is cut off
        raise ValueError("it is cut off, or neither UBJSON nor JSON")
    booster = xgb.Booster()
    booster.load_model(bytearray(data))
    return booster
