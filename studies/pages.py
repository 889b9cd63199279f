"""Where studies work, and how they leave their results."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.core import process

PARAMS = (Path("params.yaml"), Path("params.study.yaml"))
WORK = Path("data/study")
RESULTS = Path("studies/results")


def made_by(name: str) -> str:
    """Return how and when a result was made, the first line of its page."""
    today = datetime.now(UTC).date()
    return f"Made by `make study NAME={name}` on {platform.machine()}, Python {platform.python_version()}, {today}."


def leave(name: str, rows: Sequence[Mapping[str, Any]], page: str) -> None:
    """Write a study's rows and page to `RESULTS`."""
    artifacts.write(RESULTS / f"{name}.csv", artifacts.to_csv(rows))
    artifacts.write(RESULTS / f"{name}.md", page.encode())
    process.out.print(f"{RESULTS / name}.md, {RESULTS / name}.csv")
