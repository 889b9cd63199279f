"""Folder locks: one writer at a time."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from lissnas.artifacts.atomic import WRITING, filename_in_errors
from lissnas.artifacts.checkpoint import checkpoint_of
from lissnas.core.errors import UserError


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock `folder` for writing; raises UserError with the holder's process id and host after `wait` seconds.

    The operating system releases the lock when the process that holds it exits or is killed.
    """
    path = folder.parent / f".{folder.name}.lock"
    holder = path.with_suffix(".holder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=wait)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder} is being written by {_recorded_holder(holder)}. Wait for it or choose another folder."
        ) from None
    except OSError as error:
        raise UserError(f"can't write to {folder.parent}: {error.strerror or error}") from None
    try:
        _sweep(folder)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with filename_in_errors(path):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        yield
    finally:
        with suppress(FileNotFoundError):
            holder.unlink()
        lock.release()


def _recorded_holder(holder: Path) -> str:
    """Return the process recorded as the holder of a lock; a new holder has a second to record itself."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            if process := holder.read_text().strip():
                return process
        time.sleep(0.02)
    return "another process"


def _sweep(folder: Path) -> None:
    """Delete the incomplete files of killed writers in the folder and its checkpoint; the caller holds the lock."""
    name, above = glob.escape(folder.name), folder.parent
    for location, pattern in (
        (above, f".{name}{WRITING}*"),
        (folder, f".*{WRITING}*"),
        (checkpoint_of(folder), f".*{WRITING}*"),
    ):
        for path in location.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
