"""Append-only journals: a JSON record a line with its checksum, on disk before `append` returns.

The first line holds a digest of the parameters that all records depend on.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from lissnas.artifacts import atomic, formats
from lissnas.artifacts.lock import locked
from lissnas.core.errors import DamagedFile, UserError

T = TypeVar("T")
LOG = "labels.jsonl"
"""The journal of labels in a result's folder."""
TASKS = "tasks.jsonl"
"""The journal of what finished tasks returned, kept until the whole result is published."""


class Journal:
    """Records that are a function of the same parameters, in the order in which they were appended.

    The system may end a process, or the machine, within a write: what is left of that line is cut off when the
    journal is opened again.
    """

    def __init__(self, file: FileIO, records: list[dict[str, Any]]) -> None:
        self._file = file
        self.records = records

    @classmethod
    @contextmanager
    def opened(cls, path: Path, parameters: Any, restart: bool = False, wait: float = 0.0) -> Iterator[Journal]:
        """Open the journal of `parameters` for this process alone; create it if there is none.

        A journal of other parameters is replaced with `restart`. Raises UserError for one without, for a folder, and
        if another process holds the journal for longer than `wait` seconds; DamagedFile for a line that is not what
        was written.
        """
        if path.is_dir():
            raise UserError(f"{path} is a folder, where a file of records belongs; move it away")
        with locked(path, wait):
            records = _recovered(path, formats.digest(parameters), restart)
            with FileIO(path, "a") as file:
                yield cls(file, records)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on disk when this returns."""
        line, end = _line(record), os.fstat(self._file.fileno()).st_size
        try:
            with atomic.naming(str(self._file.name)):
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
        except BaseException:
            self._file.truncate(end)  # or the next line would begin within this one
            raise
        self.records.append(dict(record))

    def once(self, task: Sequence[Any], run: Callable[[], T]) -> T:
        """Return what `run` returns, which JSON can hold; a task that the journal has is not run again."""
        for record in self.records:
            if record["task"] == list(task):
                known: T = record["result"]
                return known
        result = run()
        self.append({"task": list(task), "result": result})
        return result


def damages(path: Path) -> Iterator[DamagedFile]:
    """Yield what is wrong with each line of a journal; the rest of a line that was being written is not wrong."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            _record(path, number, line)
        except DamagedFile as damage:
            yield damage


def _recovered(path: Path, parameters: str, restart: bool) -> list[dict[str, Any]]:
    """Return the records of all whole lines, with a torn one cut off the end; start a new journal with its header."""
    data = path.read_bytes() if path.exists() else b""
    whole = data.rfind(b"\n") + 1
    header, *records = [_record(path, i, line) for i, line in enumerate(data[:whole].split(b"\n")[:-1], 1)] or [{}]
    known = header.get("parameters")
    if whole and known != parameters and not restart:
        raise UserError(f"{path} holds records of other parameters; choose another folder, or delete this one")
    if known != parameters:
        atomic.write(path, _line({"parameters": parameters}))
        return []
    if whole < len(data):
        os.truncate(path, whole)
    return records


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record)
    return f"{formats.sha256(text.encode())[:16]} {text}\n".encode()


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    digest, _, text = line.partition(b" ")
    expected, found = digest[:16].decode("latin-1"), formats.sha256(text)[:16]
    if expected != found:
        remedy = "Delete that line, and its entry is made again" if number > 1 else f"Delete {path} to start again"
        raise DamagedFile(f"line {number} of {path}", expected, found, f"{remedy}.")
    record: dict[str, Any] = json.loads(text)
    return record
