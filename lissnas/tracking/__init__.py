"""Log results to MLflow: runs, models, and a queue for results while the server is unreachable."""

from __future__ import annotations

from lissnas.tracking.lookup import find
from lissnas.tracking.mlflow import Logged, log_stage

__all__ = ["Logged", "find", "log_stage"]
