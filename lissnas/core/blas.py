"""Matrix products whose last digits do not depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = Lock()
_users: list[Any] = []


@cache
def _controller() -> ThreadpoolController:
    """Return the controller of the loaded libraries, which takes 10 ms to find them."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread until the last of all concurrent users is done."""
    with _lock:  # the limit holds for the whole process, so only the first user sets it and the last lifts it
        _users.append(_users[0] if _users else _controller().limit(limits=1))
    try:
        yield
    finally:
        with _lock:
            limit = _users.pop()
            if not _users:
                limit.restore_original_limits()
