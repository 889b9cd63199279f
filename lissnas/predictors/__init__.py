"""Cheap scores for architectures: fitted predictors, surrogates, user-supplied XGBoost models."""

from __future__ import annotations

from lissnas.predictors.accuracy import Predictor, Scorer
from lissnas.predictors.surrogate import SurrogateScorer, model_scorer

__all__ = ["Predictor", "Scorer", "SurrogateScorer", "model_scorer"]
