"""A plugin of pytest's: nothing that lissnas keeps outlives a test, so that each test runs all lines it depends on.

flows/study_mutants.py asks which tests run a line; otherwise it would be the first alone that needs what is kept.
"""

from __future__ import annotations

import gc
from functools import cache, cached_property

import pytest

CACHE = type(cache(lambda: None))


def kept_by(kind: type) -> set[str]:
    """Return the names of what instances of a class keep once it is asked for."""
    return {name for base in kind.__mro__ for name, what in vars(base).items() if type(what) is cached_property}


def forget() -> None:
    """Let all objects and functions of lissnas forget what they keep."""
    for thing in gc.get_objects():
        owner = thing if type(thing) is CACHE else type(thing)
        if not str(getattr(owner, "__module__", "")).startswith("lissnas."):
            continue
        if isinstance(thing, CACHE):
            thing.cache_clear()
        else:
            for name in kept_by(type(thing)):
                vars(thing).pop(name, None)


class Forgetful:
    """Forgets before each test, once for all of its cases."""

    last: object = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Forget what the test before has left."""
        if (test := getattr(item, "function", item)) is not self.last:
            self.last = test
            forget()


def pytest_configure(config: pytest.Config) -> None:
    """Take part in a run."""
    config.pluginmanager.register(Forgetful())
