"""Record runs in MLflow while they happen: journals, models, and what waits for an unreachable server."""

from __future__ import annotations

from lissnas.tracking.lookup import find
from lissnas.tracking.mlflow import Logged
from lissnas.tracking.recorder import Run

__all__ = ["Logged", "Run", "find"]
