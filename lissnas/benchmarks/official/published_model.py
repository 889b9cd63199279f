"""XGBoost models in official files: tried in a process of their own first, since a damaged one can end it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from lissnas.benchmarks.official import published_model_check
from lissnas.core.errors import UserError, short
from lissnas.core.memory_limit import max_memory
from lissnas.predictors.boosting import xgb

SECONDS = 120.0


def load_model(data: bytes) -> xgb.Booster:
    """Return a model from UBJSON or JSON; raises UserError, whose text is the reason, where XGBoost can't load it.

    XGBoost 3.2 reads beyond the end of UBJSON that is cut off, and of trees whose nodes lead elsewhere, which can be
    a segmentation fault. What is loaded here is what XGBoost itself wrote after its trial.
    """
    trial = [sys.executable, "-P", str(Path(published_model_check.__file__)), str(max_memory(len(data)))]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads take memory
    try:
        tried = subprocess.run(trial, input=data, capture_output=True, timeout=SECONDS, env=alone)
    except subprocess.TimeoutExpired:
        raise UserError(f"it takes more than {SECONDS:g} s to load") from None
    if tried.returncode < 0:
        raise UserError("it is damaged: reading it ends the process")
    if tried.returncode:
        lines = tried.stderr.decode(errors="replace").strip().splitlines()
        told = [line for line in lines if line.startswith("xgboost.core.XGBoostError")] or lines[-1:] or ["no reason"]
        raise UserError(short(told[0], 300))
    booster = xgb.Booster()
    booster.load_model(bytearray(tried.stdout))
    return booster
