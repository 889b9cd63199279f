"""The public face: what `import lissnas` gives, made of parts that have no other user than people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lissnas import benchmarks, spaces
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import UserError, unknown_name
from lissnas.oracles.base import Oracle
from lissnas.oracles.label_table import Labels, labels_of_frame, read_labels
from lissnas.shrinkers import description
from lissnas.shrinkers.lissnas import shrink as run_shrink
from lissnas.shrinkers.problem import Problem, Source, from_space, get_space
from lissnas.shrinkers.result import ShrinkResult as ShrinkResult
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces import Space as Space
from lissnas.spaces.declared import read_space as read_declared
from lissnas.spaces.subspace import Subspace as Subspace
from lissnas.study import Study as Study

if TYPE_CHECKING:
    import pandas as pd

space = spaces.get

AnySpace: TypeAlias = Space | Path | str
AnyLabels: TypeAlias = "Labels | pd.DataFrame | Path | str"

KNOBS = {
    "variant": "shrink.variant",
    "max_queries": "shrink.max_queries",
    "memory": "shrink.memory",
    "diversity": "shrink.elite.diversity",
}
"""Keyword arguments of `shrink`, and the parameters that they set."""


@dataclass(frozen=True)
class by_name:  # reads like a function where it is used
    """An oracle made of a function of one architecture's name: `by_name(train)`.

    The function gets a name in the space's notation and returns a number, NaN for a training that failed.
    """

    function: Callable[[str], float]

    def on(self, space: Space) -> Oracle:
        """Return the oracle over rows of a space."""
        return lambda archs: np.array([float(self.function(name)) for name in space.format(archs)])


@dataclass(frozen=True)
class by_rows:
    """An oracle made of a function of rows: `by_rows(evaluate)`.

    The function gets an int8 matrix `(n, genome_len)` and returns `(n,)` numbers, NaN for a training that failed.
    """

    function: Callable[[Archs], FloatArray | Sequence[float]]

    def on(self, space: Space) -> Oracle:
        """Return the oracle over rows of a space."""
        return lambda archs: np.asarray(self.function(archs), np.float64)


def benchmark(name: str) -> Benchmark:
    """Return a packaged or imported table over a space, e.g. `nasbench101`; raises UnknownName.

    Calling it with rows gives their true values; `space` is its space, `values` are all of them.
    """
    return benchmarks.get(name)


def read_space(path: Path | str) -> Space:
    """Return the space that a `space.yaml` declares; raises ConfigError with every problem of the file."""
    return read_declared(Path(path))


def load_result(folder: Path | str, space: AnySpace | None = None) -> ShrinkResult:
    """Return the result in the folder of a finished shrink, once its files are verified.

    `space` is only needed for a space defined in Python. Raises UserError, DamagedFile.
    """
    return ShrinkResult.read(Path(folder), None if space is None else _space(space))


def shrink(
    space: AnySpace,
    labels: AnyLabels | None = None,
    oracle: Benchmark | by_name | by_rows | None = None,
    target_size: int | None = None,
    label_budget: int | None = None,
    seed: int = 0,
    *,
    metric: str | None = None,
    params: Params | Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    threads: int = 0,
    **knobs: Any,
) -> ShrinkResult:
    """Shrink a space to a small one that is dense in good architectures.

    Args:
        space: a `Space`, the path of a space.yaml, or the name of a space.
        labels: true values known from the start: a CSV or parquet file, or a data frame, with a column a position
            or one `arch`, and the metric.
        oracle: what gives more labels while the space shrinks: a benchmark, `by_name(f)`, or `by_rows(f)`.
        target_size: architectures to keep; by default the benchmark's, or by a rule from the first labels.
        label_budget: how many labels to request from the oracle, those of `labels` included.
        seed: of every random draw.
        metric: the labels' column, if several could be meant.
        params: checked parameters, or the path of a params.yaml; by default ./params.yaml or the built-in values.
        settings: further parameters by their dotted path, e.g. `{"shrink.elite.neighbors": 12}`.
        threads: 0 takes all cores; never changes a result.
        knobs: `variant`, `max_queries`, `memory` (GiB), `diversity`.

    Returns:
        The shrunk space, the predictor, and metrics; `save(folder)` writes what `lissnas shrink` writes.

    Raises:
        UserError: for arguments that don't fit together, or too few labels.
        ConfigError: for parameters or labels, with every problem found.
    """
    if unknown := [name for name in knobs if name not in KNOBS]:
        raise UserError(f"{unknown_name('keyword', unknown[0], KNOBS)}. Other parameters go into settings={{...}}")
    overrides = {KNOBS[name]: value for name, value in knobs.items()} | dict(settings or {})
    overrides |= {} if target_size is None else {"shrink.target_size": target_size}
    overrides |= {} if label_budget is None else {"shrink.labels": label_budget}
    given = _space(space)
    source = _source(given, labels, metric, oracle)
    checked = description.for_space(_params(params, overrides), given)
    return ShrinkResult.of(run_shrink(Problem.of(source, checked, seed, threads)))


def _space(given: AnySpace) -> Space:
    if isinstance(given, Path | str):
        return get_space(str(given))
    return given


def _params(given: Params | Path | str | None, overrides: Mapping[str, Any]) -> Params:
    if not isinstance(given, Params):
        return description.load_params(None if given is None else Path(given), overrides)
    if overrides:
        raise UserError("params: give checked parameters, or single settings, not both")
    return given


def _source(
    space: Space, labels: AnyLabels | None, metric: str | None, oracle: Benchmark | by_name | by_rows | None
) -> Source:
    if isinstance(oracle, Benchmark):
        if labels is not None:
            raise UserError("labels: a benchmark is an oracle for the whole space; leave labels or oracle out")
        if oracle.space.name != space.name:
            raise UserError(f"oracle: {oracle.name} is a table of {oracle.space.name}, not of {space.name}")
        return Source.of(oracle)
    if oracle is not None and not isinstance(oracle, by_name | by_rows):
        raise UserError("oracle: say what the function takes: by_name(f) one name, by_rows(f) a matrix of rows")
    function = None if oracle is None else oracle.on(space)
    return from_space(space, _labels(labels, space, metric), metric, function, oracle_id="a function")


def _labels(given: AnyLabels | None, space: Space, metric: str | None) -> Labels | None:
    if given is None or isinstance(given, Labels):
        return given
    if isinstance(given, Path | str):
        return read_labels(Path(given), space, metric)
    return labels_of_frame(given, space, metric)
