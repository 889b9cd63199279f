"""What a study has found so far, a line of JSON each, so that it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def rows_in(journal: Path) -> list[dict[str, Any]]:
    """Return the rows of a journal, none where it is not begun."""
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def add_to(journal: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a journal."""
    with journal.open("a") as file:
        file.write(json.dumps(row) + "\n")
