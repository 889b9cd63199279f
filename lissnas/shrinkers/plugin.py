"""Shrinkers of the user, named `package.module:function`: import, check on a small space, checks of each result."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.random import Generator

from lissnas import artifacts, spaces
from lissnas.core.errors import LissnasError, UserError, closest, first_line
from lissnas.core.rng import stream
from lissnas.oracles.base import CountedOracle
from lissnas.oracles.synthetic import SyntheticOracle
from lissnas.spaces import Archs, Space
from lissnas.spaces.subspace import Subspace

CHECKED_ON = "nas_bench_macro"
"""Space of the check: small, with networks of equal function, and with costs."""
TARGET_SHARE = 1 / 9
BUDGET_SHARE = 1 / 4
MIN_GAIN = 1 / 4
"""Minimum rise of the mean of the check's members over the space's, in standard deviations."""


@dataclass(frozen=True)
class Plugin:
    """A shrinker of the user; it passed the check, and each of its results is checked."""

    name: str
    function: Callable[[Space, CountedOracle, int, Generator], Subspace]
    sha256: str
    """Of the file that defines it. Modules that the file imports are not included."""

    def __call__(self, space: Space, oracle: CountedOracle, target: int, rng: Generator) -> Subspace:
        """Return the function's result; raises UserError if it is not a valid subspace of `space`."""
        part = self.function(space, oracle, target, rng)
        if problem := _problem_of(part, space):
            raise UserError(f"{self.name} returned no valid subspace of {space.name}: {problem}")
        return part


def is_plugin(name: str) -> bool:
    """Return whether a method's name is `package.module:function`."""
    return ":" in name


def identity(name: str) -> str:
    """Return what a method's results depend on: its name and, for a plugin, a digest of its file."""
    return f"{name} {load(name).sha256[:16]}" if is_plugin(name) else name


@cache
def load(name: str) -> Plugin:
    """Return the shrinker named `package.module:function` after checking it on a small space; raises UserError.

    Modules are found in the working folder too, after installed ones.
    """
    module_name, _, function_name = name.partition(":")
    if module_name.endswith(".py"):
        raise UserError(f"--method {name}: name the module, not the file: {module_name[:-3]}:{function_name}")
    if not all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        raise UserError(f"--method {name!r}: expected package.module:function, e.g. mine:hill_climb")
    module = _imported(name, module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = closest(function_name, known or ["none"])
        raise UserError(f"--method {name}: {module.__file__} has no function {function_name!r}. {hint}")
    file = Path(module.__file__ or "")
    found = Plugin(name, function, artifacts.sha256(file.read_bytes() if file.is_file() else b""))
    check(found)
    return found


def _imported(name: str, module_name: str) -> ModuleType:
    """Import a module; raises UserError with the place of the error in its file."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    top = module_name.partition(".")[0]
    if find_spec(top) is None:
        raise UserError(
            f"--method {name}: no module {top!r} in this folder or among the installed packages; run the command in "
            "the folder of its file, or set PYTHONPATH"
        )
    try:
        return importlib.import_module(module_name)
    except Exception as error:
        raise UserError(f"--method {name}: importing {module_name} failed: {_described(error)}") from error


def check(plugin: Plugin) -> None:
    """Check the essential requirements of `lissnas.testing.ShrinkerSuite` on a small space; raises UserError.

    The result is a valid, smaller subspace within the query budget, the same for the same random generator, and better
    than the space if scores were queried.
    """
    space = spaces.get(CHECKED_ON)
    target, budget = int(TARGET_SHARE * space.size()), int(BUDGET_SHARE * space.size())
    parts, queries = [], 0
    for _ in range(2):
        oracle = CountedOracle(SyntheticOracle(space), space, budget)
        try:
            parts.append(plugin(space, oracle, target, stream(0, "check", CHECKED_ON)).members)
        except Exception as error:
            raise _failed(plugin.name, _described(error)) from error
        queries = oracle.queries
    if len(parts[0]) >= space.size():
        raise _failed(plugin.name, "it returned the whole space")
    if parts[0].shape != parts[1].shape or (parts[0] != parts[1]).any():
        raise _failed(plugin.name, "two runs with the same random generator differ; draw from `rng` only")
    truth = SyntheticOracle(space)
    full, found = truth(space.enumerate()), truth(parts[0])
    if queries and found.mean() < full.mean() + MIN_GAIN * full.std():
        gain = (found.mean() - full.mean()) / full.std()
        raise _failed(
            plugin.name,
            f"the mean score of its members is {gain:+.2f} standard deviations from the space's, at least "
            f"+{MIN_GAIN} is needed; higher scores are better",
        )


def _failed(name: str, what: str) -> UserError:
    return UserError(
        f"--method {name} failed the check on {CHECKED_ON}: {what}. lissnas.testing.ShrinkerSuite has all tests"
    )


def _problem_of(part: Any, space: Space) -> str:
    """Return what is wrong with the result of a shrinker on `space`; empty if it is valid."""
    if not isinstance(part, Subspace):
        return f"expected a lissnas.Subspace, found {type(part).__name__}"
    if part.space is not space:
        return f"it is a subspace of another space object, {part.space!r}; pass on the `space` of the call"
    if part.listed is not None:
        return _problem_of_rows(part.listed, space)
    if part.allowed is not None and part.allowed.shape != space.possible().shape:
        return f"`allowed` has the shape {part.allowed.shape}, expected {space.possible().shape}"
    return "" if part.size() else "it is empty"


def _problem_of_rows(rows: Archs, space: Space) -> str:
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.dtype != np.int8:
        return f"`listed` has to be a matrix of int8, (n, {space.genome_len})"
    if not len(rows):
        return "it is empty"
    keys = space.key(rows)  # raises for a row that is not an architecture
    if len(np.unique(keys)) < len(keys):
        return "`listed` has an architecture twice"
    other = (space.canonicalize(rows) != rows).any(axis=1)
    return f"row {int(np.argmax(other))} of `listed` is not in its canonical form" if other.any() else ""


def _described(error: Exception) -> str:
    """Return an error in one line, with the place in the user's file unless it is one of lissnas."""
    if isinstance(error, LissnasError):
        return first_line(error)
    files = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    place = f" ({files[-1].filename}:{files[-1].lineno})" if files[-1].filename != __file__ else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
