"""Memory limits for reading untrusted files, in which a few bytes can request any amount of memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BASE_BYTES = 1 << 30
BYTES_PER_FILE_BYTE = 64
"""Memory allowed for reading a file: `BASE_BYTES` and this many bytes per byte of the file."""
_LOCK = threading.RLock()


def max_memory(size: int) -> int:
    """Return the maximum memory, in bytes, that reading a valid file of `size` bytes takes."""
    return BASE_BYTES + BYTES_PER_FILE_BYTE * size


@contextmanager
def limit_memory(size: int) -> Iterator[None]:
    """Limit memory to `max_memory(size)` while a file of `size` bytes is read; exceeding it raises MemoryError.

    The limit applies to the whole process, and libraries that start threads can abort it when an allocation fails:
    use only plain Python, or Arrow with one thread, inside. Enforced on Linux only.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with _LOCK:
        before = resource.getrlimit(resource.RLIMIT_DATA)
        used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        limit = used + max_memory(size)
        if before[0] != resource.RLIM_INFINITY:
            limit = min(limit, before[0])
        resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, before)
