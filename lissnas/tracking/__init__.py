"""MLflow: runs, models, and records kept while a server is unreachable."""

from __future__ import annotations

from lissnas.tracking.mlflow import Logged, find, log_stage
from lissnas.tracking.system_metrics import Sample, sampled

__all__ = ["Logged", "Sample", "find", "log_stage", "sampled"]
