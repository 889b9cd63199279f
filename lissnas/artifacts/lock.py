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

from lissnas.artifacts.atomic import IS_INCOMPLETE, WRITING, filename_in_errors
from lissnas.artifacts.checkpoint import checkpoint_of
from lissnas.core.errors import UserError


def file_lock(path: Path, wait: float) -> filelock.BaseFileLock:
    """Return a lock on a file that all who may write to its folder may open; `acquire` waits for `wait` seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = (path.parent.stat().st_mode & 0o222) | 0o644
    # A lock may be released by another thread than the one that acquired it.
    return filelock.FileLock(path, timeout=wait, mode=mode, thread_local=False)


@contextmanager
def locked(folder: Path, wait: float = 0.0) -> Iterator[None]:
    """Lock `folder` for writing; raises UserError with the holder's process id and host after `wait` seconds.

    The operating system releases the lock when the process that holds it exits or is killed.
    """
    path = folder.parent / f".{folder.name}.lock"
    holder = path.with_suffix(".holder")
    try:
        lock = file_lock(path, wait)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder} is being written by {_recorded_holder(holder)}. Wait for it or choose another folder."
        ) from None
    except OSError as error:
        raise UserError(f"can't write to {_obstacle(path)}: {error.strerror or error}") from None
    try:
        _sweep(folder)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with filename_in_errors(path), suppress(PermissionError):  # left by another user; it is only information
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        yield
    finally:
        with suppress(FileNotFoundError, PermissionError):
            holder.unlink()
        lock.release()


def _obstacle(path: Path) -> str:
    """Return the folder of a lock, or the lock if it exists and can't be opened, with its owner."""
    if not path.exists() or os.access(path, os.W_OK):
        return str(path.parent)
    try:
        owner = path.owner()
    except (KeyError, OSError):  # no account has this number
        owner = f"user {path.stat().st_uid}"
    return f"{path}, a lock that belongs to {owner} (delete it if no run of {owner} is active)"


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
        for path in filter(lambda found: IS_INCOMPLETE(found.name), location.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
