"""Boosted trees: fast import of XGBoost (import it from here), fits and predictions.

XGBoost imports scikit-learn, pandas and scipy.stats for classes that lissnas does not use, which takes a second or
two. scikit-learn is hidden only while XGBoost is imported.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, cast

import numpy as np

from lissnas.config import PredictorConfig
from lissnas.spaces import FloatArray
from lissnas.spaces.base import Features


def _without_sklearn() -> Any:
    """Return XGBoost, imported as if scikit-learn were missing unless it is already loaded."""
    hidden = "sklearn" not in sys.modules and "xgboost" not in sys.modules
    if hidden:
        sys.modules["sklearn"] = cast(Any, None)  # importing it raises ImportError
    try:
        import xgboost
    finally:
        if hidden:
            del sys.modules["sklearn"]
    return xgboost


xgb: Any = _without_sklearn()


def fit_trees(
    features: Features, target: FloatArray, settings: PredictorConfig, seed: int, threads: int = 1
) -> xgb.Booster:
    """Fit boosted trees to `(n,)` targets; the result does not depend on `threads`."""
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
    return xgb.train(parameters, xgb.DMatrix(features, target, nthread=threads), settings.trees)


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
