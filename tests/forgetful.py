"""A plugin of pytest's: nothing that lissnas keeps outlives a test, so that each test runs all lines it depends on.

tests/robustness/mutants.py asks which tests run a line; otherwise it would be the first alone that needs what is kept.
"""

from __future__ import annotations

import gc
from functools import cache, cached_property

import pytest

CACHE = type(cache(lambda: None))


def kept_by(kind: type) -> set[str]:
    """Return the names of what instances of a class keep once it is asked for."""
    return {name for base in kind.__mro__ for name, what in vars(base).items() if type(what) is cached_property}


def ours(what: object) -> bool:
    """Return whether lissnas has made a function or a class."""
    return str(getattr(what, "__module__", "")).startswith("lissnas.")


def forget() -> None:
    """Let all objects and functions of lissnas forget what they keep."""
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is CACHE and ours(thing):
            thing.cache_clear()
        elif ours(kind):
            for name in kept_by(kind):
                vars(thing).pop(name, None)


def pytest_collection_finish() -> None:
    """Forget what files of tests asked for when they were imported."""
    forget()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Forget what a test has left, once for all of its cases."""
    if getattr(item, "function", item) is not getattr(nextitem, "function", nextitem):
        forget()
