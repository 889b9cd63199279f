"""Atomic writes: a reader sees the old content or the new, even after a crash."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

WRITING = ".writing-"
"""Marks an incomplete file or folder; it follows the final name."""
IS_INCOMPLETE = re.compile(rf"\..*{re.escape(WRITING)}[a-z0-9_]{{8}}", re.DOTALL).fullmatch
"""Matches the names that `tempfile` gives to incomplete files and folders."""


@contextmanager
def filename_in_errors(path: Path | str) -> Iterator[None]:
    """Add the file's name to an OSError without one, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably: a reader sees the old content or the new, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{WRITING}")
    try:
        with filename_in_errors(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
