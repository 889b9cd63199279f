"""Memory that reading a file of others may take: a few bytes can ask for any amount of it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPARE, PER_BYTE = 1 << 30, 64
"""Bytes that may be taken in any case, and for each byte of the file."""
_ALONE = threading.RLock()


def most_for(size: int) -> int:
    """Return how many bytes of memory a sound file of `size` bytes takes at most."""
    return SPARE + PER_BYTE * size


@contextmanager
def memory_for(size: int) -> Iterator[None]:
    """Let a file of `size` bytes be read in as much memory as a sound one needs; beyond it is a MemoryError.

    It is the whole process that is bound, and libraries that start threads can end it where they get no memory: what
    is done inside is plain Python, or Arrow on one thread. Only Linux enforces it.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with _ALONE:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        taken = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        most = taken + most_for(size)
        if before[0] != resource.RLIM_INFINITY:
            most = min(most, before[0])
        resource.setrlimit(resource.RLIMIT_DATA, (most, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
