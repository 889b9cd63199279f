"""The record of a predictor's model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.artifacts.recorder import Recorder


def predictor_model(record: Recorder, file: Path, tau: float | None) -> dict[str, Any]:
    """Record the other files of a predictor, and return the record of its trees.

    They are tagged with their weight in the stack and its tau on networks that it was not fitted to.
    """
    about = file.with_suffix(".json")
    for part in (about, file.with_name(f"{file.stem}_kernel.npz")):
        record.artifact(part)
    tags = {"stack_weight": artifacts.read_json(about)["members"]["trees"]["weight"], "tau": tau}
    return {"name": "predictor", "flavor": "xgboost", "file": file, "tags": tags}
