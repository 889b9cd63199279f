"""Shrink problems for tests: a space with an oracle, labels or a scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lissnas.oracles import Labels, Oracle
from lissnas.predictors.surrogate import SurrogateScorer
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import Problem, Source
from lissnas.spaces import Archs, FloatArray, Space


def labels_of(archs: Archs, values: FloatArray) -> Labels:
    """Return labels of distinct architectures, measured once each."""
    return Labels(archs, values, np.ones(len(values), np.int64), "value", {})


def problem_of(
    space: Space,
    target: int | None,
    oracle: Oracle | None = None,
    labels: tuple[Archs, FloatArray] | None = None,
    scorer: Callable[[Archs], FloatArray] | None = None,
    seed: int = 0,
    **overrides: Any,
) -> Problem:
    """Return the problem of shrinking a space to `target`; `shrink__labels` overrides the parameter shrink.labels."""
    dotted = {name.replace("__", "."): value for name, value in overrides.items()}
    params = description.load_params(None, {"shrink.target_size": target, **dotted})
    given = None if labels is None else labels_of(*labels)
    surrogate = None if scorer is None else SurrogateScorer(scorer)
    source = Source(space.name, space, "value", "no table", oracle=oracle, labels=given, scorer=surrogate)
    return Problem.of(source, params, seed, threads=1)


def with_source(problem: Problem, **changes: Any) -> Problem:
    """Return the problem with fields of its source replaced."""
    return replace(problem, source=replace(problem.source, **changes))
