"""Loader of XGBoost models in official files, tested first in a separate process that a damaged one can crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lissnas.benchmarks.official import published_model_check
from lissnas.core.errors import UserError, short
from lissnas.core.memory_limit import max_memory
from lissnas.predictors.boosting import xgb

TIMEOUT = 120.0
"""Seconds for the test of a model."""


def load_model(data: bytes) -> xgb.Booster:
    """Return a model from UBJSON or JSON; raises UserError with the reason if XGBoost can't load it.

    XGBoost 3.2 reads beyond the end of truncated UBJSON and of trees with invalid node indices, which can cause a
    segmentation fault. This process loads only the bytes that XGBoost wrote again after the test.
    """
    command = [sys.executable, "-P", str(Path(published_model_check.__file__)), str(max_memory(len(data)))]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads use memory
    try:
        tested = subprocess.run(command, input=data, capture_output=True, timeout=TIMEOUT, env=env)
    except subprocess.TimeoutExpired:
        raise UserError(f"it takes more than {TIMEOUT:g} s to load") from None
    if tested.returncode < 0:
        raise UserError("it is damaged: loading it crashes the process")
    if tested.returncode:
        lines = tested.stderr.decode(errors="replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("xgboost.core.XGBoostError")] or lines[-1:] or ["no reason"]
        raise UserError(short(errors[0], 300))
    booster = xgb.Booster()
    booster.load_model(bytearray(tested.stdout))
    return booster
