"""A pytest plugin that clears all caches of lissnas after each test, so that each test runs all lines it depends on.

tests/robustness/mutants.py records which tests run a line; with caches, only the first test would run a cached one.
"""

from __future__ import annotations

import gc
from functools import cache, cached_property

import pytest

CACHE = type(cache(lambda: None))


def cached_names(kind: type) -> set[str]:
    """Return the names of the cached properties of a class."""
    return {name for base in kind.__mro__ for name, what in vars(base).items() if type(what) is cached_property}


def is_ours(what: object) -> bool:
    """Return whether a function or class is defined in lissnas."""
    return str(getattr(what, "__module__", "")).startswith("lissnas.")


def clear_caches() -> None:
    """Clear the caches of all functions and objects of lissnas."""
    for thing in gc.get_objects():
        kind = type(thing)
        if kind is CACHE and is_ours(thing):
            thing.cache_clear()
        elif is_ours(kind):
            for name in cached_names(kind):
                vars(thing).pop(name, None)


def pytest_collection_finish() -> None:
    """Clear what the import of test files has cached."""
    clear_caches()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Clear caches after a test, once for all of its cases."""
    if getattr(item, "function", item) is not getattr(nextitem, "function", nextitem):
        clear_caches()
