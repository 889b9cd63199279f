"""Append-only journals: one JSON record with its checksum per line, on disk before `append` returns.

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
from typing import Any, Literal, TypeVar

from lissnas.artifacts import atomic, formats
from lissnas.artifacts.lock import locked
from lissnas.artifacts.ownership import is_journal
from lissnas.core.errors import DamagedFile, UserError

T = TypeVar("T")
Others = Literal["refuse", "replace", "keep"]
"""What happens to the records of other parameters in a journal that is opened."""
LOG = "labels.jsonl"
"""The journal of labels in a result folder."""
TASKS = "tasks.jsonl"
"""The journal of the results of finished tasks, stored until the whole result is published."""


class Journal:
    """Records that depend on the same parameters, in the order in which they were appended.

    A crash during a write leaves an incomplete last line, which is removed when the journal is opened again.
    """

    def __init__(self, file: FileIO, header: dict[str, Any], records: list[dict[str, Any]]) -> None:
        self._file = file
        self.header = header
        self.records = records

    @classmethod
    @contextmanager
    def opened(cls, path: Path, parameters: Any, others: Others = "refuse", wait: float = 0.0) -> Iterator[Journal]:
        """Open the journal of `parameters` exclusively, and create it if it does not exist.

        `others` is what happens to a journal of other parameters: it is refused, replaced, or kept and continued by a
        caller that tells its records from its own. Raises UserError for a refused journal, for a folder, and if
        another process holds the lock for longer than `wait` seconds; DamagedFile for a line with a wrong checksum.
        """
        if path.is_dir():
            raise UserError(f"{path} is a folder; expected a file of records. Move it away.")
        with locked(path, wait):
            header, *records = _recovered(path, parameters, others)
            with FileIO(path, "a") as file:
                yield cls(file, header, records)

    def append(self, *records: Mapping[str, Any]) -> None:
        """Append records; they are on disk when this returns."""
        line, end = b"".join(map(_line, records)), os.fstat(self._file.fileno()).st_size
        try:
            with atomic.filename_in_errors(str(self._file.name)):
                if self._file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(self._file.fileno())
        except BaseException:
            self._file.truncate(end)  # or the next record would continue this line
            raise
        self.records += map(dict, records)

    def once(self, task: Sequence[Any], run: Callable[[], T]) -> T:
        """Run a task and record its JSON-serializable result, or return the recorded result of an earlier run."""
        for record in self.records:
            if record["task"] == list(task):
                recorded: T = record["result"]
                return recorded
        result = run()
        self.append({"task": list(task), "result": result})
        return result


def damages(path: Path) -> Iterator[DamagedFile]:
    """Yield an error for each damaged line of a journal; an incomplete last line is no damage."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            _record(path, number, line)
        except DamagedFile as damage:
            yield damage


def _recovered(path: Path, parameters: Any, others: Others) -> list[dict[str, Any]]:
    """Return the header and all complete records after removing an incomplete last line; start a new journal."""
    data = path.read_bytes() if path.exists() else b""
    if not is_journal(data):
        raise UserError(f"{path} is not a file of lissnas. Choose another folder, or move it away.")
    whole = data.rfind(b"\n") + 1
    found = [_record(path, i, line) for i, line in enumerate(data[:whole].split(b"\n")[:-1], 1)]
    mine = formats.digest(parameters)
    is_other = bool(found) and found[0].get("parameters") != mine
    if is_other and others == "refuse":
        raise UserError(f"{path} holds records of other parameters. Choose another folder, or delete this one.")
    if not found or (is_other and others == "replace"):
        header = {"parameters": mine, **({"about": parameters} if others == "keep" else {})}
        atomic.write(path, _line(header))
        return [header]
    if whole < len(data):
        os.truncate(path, whole)
    return found


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record)
    return f"{formats.sha256(text.encode())[:16]} {text}\n".encode()


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    digest, _, text = line.partition(b" ")
    expected, found = digest[:16].decode("latin-1"), formats.sha256(text)[:16]
    if expected != found:
        fix = "Delete that line; its entry is made again" if number > 1 else f"Delete {path} to start from scratch"
        raise DamagedFile(f"line {number} of {path}", expected, found, f"{fix}.")
    record: dict[str, Any] = json.loads(text)
    return record
