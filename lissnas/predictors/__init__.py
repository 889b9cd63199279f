"""Cheap scores of architectures: fitted models, kernels, surrogates, XGBoost models of a user."""

from __future__ import annotations

from lissnas.predictors.accuracy import Predictor, Scorer, assess, out_of_fold, placed, predicted, tau_interval
from lissnas.predictors.surrogate import SurrogateScorer, model_scorer, scorer_values

__all__ = [
    "Predictor",
    "Scorer",
    "SurrogateScorer",
    "assess",
    "model_scorer",
    "out_of_fold",
    "placed",
    "predicted",
    "scorer_values",
    "tau_interval",
]
