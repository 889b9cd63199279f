"""One writer for a folder at a time."""

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

from lissnas.artifacts.atomic import WRITING, naming
from lissnas.artifacts.checkpoint import checkpoint_of
from lissnas.core.errors import UserError


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Hold `folder` for writing; raises UserError that names who still holds it after `wait` seconds.

    The operating system releases the lock when its holder ends, however it ends.
    """
    path = folder.parent / f".{folder.name}.lock"
    holder = path.with_suffix(".holder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=wait)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder} is being written by {_said_in(holder)}; wait for it or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(f"can't write to {folder.parent}: {error.strerror or error}") from None
    try:
        _sweep(folder)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with naming(path):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        yield
    finally:
        with suppress(FileNotFoundError):
            holder.unlink()
        lock.release()


def _said_in(holder: Path) -> str:
    """Return who says to hold a lock; who has just taken it has a second to say so."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            if who := holder.read_text().strip():
                return who
        time.sleep(0.02)
    return "another process"


def _sweep(folder: Path) -> None:
    """Delete what writers that were killed left of the folder and of its checkpoint; the caller holds the lock."""
    name, above = glob.escape(folder.name), folder.parent
    for place, left in (
        (above, f".{name}{WRITING}*"),
        (folder, f".*{WRITING}*"),
        (checkpoint_of(folder), f".*{WRITING}*"),
    ):
        for path in place.glob(left):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
