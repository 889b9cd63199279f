"""A Prefect server and an MLflow database of one test module's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def served(home: Path) -> Iterator[None]:
    """Go to a folder, with servers of its own; environment and folder are as before afterwards."""
    saved, before = dict(os.environ), Path.cwd()
    os.environ["PREFECT_HOME"] = str(home / "prefect")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    os.chdir(home)
    from prefect.testing.utilities import prefect_test_harness

    try:
        with prefect_test_harness(server_startup_timeout=120):
            yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(saved)
