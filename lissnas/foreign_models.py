"""XGBoost models of others: tried in a process of their own first, since a damaged one can end it."""

from __future__ import annotations

import subprocess
import sys

import xgboost as xgb

from lissnas.bounds import memory_for
from lissnas.errors import UserError, first_line, short

TRY = "import sys, xgboost; xgboost.Booster().load_model(bytearray(sys.stdin.buffer.read()))"
SECONDS = 120.0


def load_model(data: bytes) -> xgb.Booster:
    """Return a model from UBJSON or JSON; raises UserError, whose text is the reason, where XGBoost can't load it.

    XGBoost 3.2 reads beyond the end of UBJSON that is cut off, which can be a segmentation fault.
    """
    try:
        with memory_for(len(data)):
            tried = subprocess.run([sys.executable, "-c", TRY], input=data, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise UserError(f"it takes more than {SECONDS:g} s to load") from None
    if tried.returncode < 0:
        raise UserError("it is damaged: reading it ends the process")
    booster = xgb.Booster()
    try:
        if tried.returncode:
            lines = tried.stderr.decode(errors="replace").strip().splitlines()
            raise UserError(
                short(
                    next((line for line in lines if "XGBoostError" in line), lines[-1] if lines else "no reason"), 300
                )
            )
        booster.load_model(bytearray(data))
    except xgb.core.XGBoostError as error:
        raise UserError(first_line(str(error).strip())) from None
    return booster
