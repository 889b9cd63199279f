"""Append-only logs, one JSON record a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lissnas.artifacts import formats
from lissnas.core.errors import DamagedFile


def rows_in(journal: Path) -> list[dict[str, Any]]:
    """Return the rows of a journal, none where it is not begun."""
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def add_to(journal: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a journal."""
    with journal.open("a") as file:
        file.write(json.dumps(row) + "\n")


LOG = "labels.jsonl"
"""The log of labels in a result's folder."""


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, sort_keys=True, allow_nan=False)
    return f"{formats.sha256(text.encode())[:16]} {text}\n".encode()


def damages(path: Path) -> Iterator[DamagedFile]:
    """Yield what is wrong with each line of a log; the rest of a line that was being written is not wrong."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            _record(path, number, line)
        except DamagedFile as damage:
            yield damage


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    digest, _, text = line.partition(b" ")
    expected, found = digest[:16].decode("latin-1"), formats.sha256(text)[:16]
    if expected != found:
        remedy = "Delete that line, and its network is trained again" if number > 1 else f"Delete {path} to begin anew"
        raise DamagedFile(f"line {number} of {path}", expected, found, f"{remedy}.")
    record: dict[str, Any] = json.loads(text)
    return record
