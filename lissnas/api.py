"""The public Python API, exported lazily by `import lissnas`."""

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
from lissnas.stages.find import SearchResult as SearchResult
from lissnas.stages.find import find
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
    "goal": "shrink.goal",
    "diversity": "shrink.elite.diversity",
}
"""Keyword arguments of `shrink` and the parameters that they set."""


@dataclass(frozen=True)
class by_name:  # lower case: used like a function
    """An oracle from a function of one architecture's name: `by_name(train)`.

    The function takes a name in the space's notation and returns a number, NaN for a failed training.

    Example:
        >>> import lissnas
        >>> macro = lissnas.space("nas_bench_macro")
        >>> oracle = lissnas.by_name(lambda name: name.count("2"))  # the number of large blocks
        >>> result = lissnas.shrink(macro, oracle=oracle, target_size=100, label_budget=60)
        >>> result.metrics["labels"]
        60
    """

    function: Callable[[str], float]

    def on(self, space: Space) -> Oracle:
        """Return the oracle over encoded architectures of a space."""
        return lambda archs: np.array([float(self.function(name)) for name in space.format(archs)])


@dataclass(frozen=True)
class by_rows:
    """An oracle from a function of encoded architectures: `by_rows(evaluate)`.

    The function takes an int8 matrix `(n, genome_len)` and returns `(n,)` numbers, NaN for failed trainings.

    Example:
        >>> import lissnas
        >>> macro = lissnas.space("nas_bench_macro")
        >>> oracle = lissnas.by_rows(lambda archs: archs.sum(axis=1))
        >>> result = lissnas.shrink(macro, oracle=oracle, target_size=100, label_budget=60)
        >>> result.space.size(), result.subspace.size()
        (3969, 100)
    """

    function: Callable[[Archs], FloatArray | Sequence[float]]

    def on(self, space: Space) -> Oracle:
        """Return the oracle over encoded architectures of a space."""
        return lambda archs: np.asarray(self.function(archs), np.float64)


def benchmark(name: str) -> Benchmark:
    """Return a packaged or imported benchmark, e.g. `nasbench101`; raises UnknownName.

    Call it with rows to get their true values; `space` is its space and `values` are all true values.

    Example:
        >>> import lissnas
        >>> table = lissnas.benchmark("nas_bench_macro")
        >>> table.space, table.metric
        (<Space nas_bench_macro: 3,969 architectures>, 'CIFAR-10 test accuracy, mean of three runs, %')
        >>> table(table.space.parse(["22212220", "00000000"])).round(2).tolist()
        [93.13, 45.36]
    """
    return benchmarks.get(name)


def read_space(path: Path | str) -> Space:
    """Return the space declared by a `space.yaml`; raises ConfigError with every problem of the file.

    Example:
        >>> import lissnas
        >>> lissnas.read_space("my_space/space.yaml")  # the file that `lissnas init my_space` writes
        <Space keyword_net: 16,046 architectures>
    """
    return read_declared(Path(path))


def load_result(folder: Path | str, space: AnySpace | None = None) -> ShrinkResult:
    """Return the result in the folder of a finished shrink after verifying its files.

    `space` is required only for a space defined in Python. Raises UserError, DamagedFile.

    Example:
        >>> import lissnas
        >>> folder = lissnas.shrink("nas_bench_macro", oracle=lissnas.benchmark("nas_bench_macro")).save("shrunk")
        >>> lissnas.load_result(folder).subspace.size()
        450
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
    minimize: bool | None = None,
    params: Params | Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    threads: int = 0,
    **knobs: Any,
) -> ShrinkResult:
    """Shrink a space to a small subspace that is dense in good architectures.

    Args:
        space: a `Space`, the path of a space.yaml, or the name of a space.
        labels: initial true values: a CSV or parquet file or a data frame, with one column per position or the
            column `arch`, and the metric.
        oracle: provides more labels during the shrink: a benchmark, `by_name(f)`, or `by_rows(f)`.
        target_size: size of the subspace; by default the benchmark's, or derived from the first labels.
        label_budget: maximum number of labels in total, including those of `labels`.
        seed: the random seed.
        metric: the column of the labels; required if it is ambiguous.
        minimize: whether less of the metric is better, unless the space declares it; required if its name looks like
            a cost (loss, error, latency, ...).
        params: validated parameters or the path of a params.yaml; by default ./params.yaml or the built-in values.
        settings: further parameters by their dotted path, e.g. `{"shrink.elite.neighbors": 12}`.
        threads: 0 uses all cores; results do not depend on it.
        knobs: `variant`, `max_queries`, `memory` (GiB), `diversity`, `goal` (`space`, `network` or `both`: what labels
            are collected for).

    Returns:
        The subspace, the predictor and metrics; `save(folder)` writes the same files as `lissnas shrink`.

    Raises:
        UserError: for incompatible arguments or too few labels.
        ConfigError: for invalid parameters or labels, with every problem found.

    Example:
        >>> import lissnas
        >>> result = lissnas.shrink("my_space/space.yaml", labels="my_space/labels.csv", target_size=200)
        >>> result.space.size(), result.subspace.size()
        (16046, 200)
        >>> result.to_pandas().columns.tolist()
        ['arch', 'predicted', 'distance', 'seed']
    """
    if unknown := [name for name in knobs if name not in KNOBS]:
        raise UserError(f"{unknown_name('keyword', unknown[0], KNOBS)}. Pass other parameters in settings={{...}}.")
    overrides = {KNOBS[name]: value for name, value in knobs.items()} | dict(settings or {})
    overrides |= {} if target_size is None else {"shrink.target_size": target_size}
    overrides |= {} if label_budget is None else {"shrink.labels": label_budget}
    given = _space(space)
    source = _source(given, labels, metric, oracle, minimize)
    checked = description.for_space(_params(params, overrides), given)
    return ShrinkResult.of(run_shrink(Problem.of(source, checked, seed, threads)))


def search(
    space: AnySpace,
    oracle: Benchmark | by_name | by_rows | None,
    n: int,
    subspace: Subspace | None = None,
    labels: AnyLabels | None = None,
    seed: int = 0,
    *,
    metric: str | None = None,
    minimize: bool | None = None,
    params: Params | Path | str | None = None,
) -> SearchResult:
    """Find the best network of a space by `n` evaluations: a guided search (`lissnas.searchers.guided`).

    Args:
        space: a `Space`, the path of a space.yaml, or the name of a space.
        oracle: evaluates networks: a benchmark, `by_name(f)`, or `by_rows(f)`; None if `n` is 0.
        n: the number of networks to evaluate; with 0 the networks are ranked by the labels alone.
        subspace: the part of the space to search, such as the `subspace` of a `ShrinkResult`.
        labels: true values that are known: a CSV or parquet file or a data frame.
        seed: the random seed.
        metric: the column of the labels; required if it is ambiguous.
        minimize: whether less of the metric is better, unless the space declares it.
        params: validated parameters or the path of a params.yaml.

    Returns:
        All networks with a value, and the ten best, labelled or predicted, with the reason for each.

    Raises:
        UserError: for incompatible arguments.
        ConfigError: for invalid parameters or labels, with every problem found.

    Example:
        >>> import lissnas
        >>> found = lissnas.search("nas_bench_macro", lissnas.benchmark("nas_bench_macro"), n=40)
        >>> best = found.best[0]
        >>> len(found.history.rows), best["reason"], best["score"] > 92.5
        (40, 'label', True)
    """
    given = _space(space)
    if subspace is not None and subspace.space.name != given.name:
        raise UserError(f"subspace: it is of {subspace.space.name}, not of {given.name}")
    source = _source(given, labels, metric, oracle, minimize)
    return find(source, subspace or given, n, description.for_space(_params(params, {}), given), seed)


def _space(given: AnySpace) -> Space:
    if isinstance(given, Path | str):
        return get_space(str(given))
    return given


def _params(given: Params | Path | str | None, overrides: Mapping[str, Any]) -> Params:
    if not isinstance(given, Params):
        return description.load_params(None if given is None else Path(given), overrides)
    if overrides:
        raise UserError("params: pass either validated parameters or single settings, not both")
    return given


def _source(
    space: Space,
    labels: AnyLabels | None,
    metric: str | None,
    oracle: Benchmark | by_name | by_rows | None,
    minimize: bool | None,
) -> Source:
    if isinstance(oracle, Benchmark):
        if minimize:
            raise UserError(f"minimize: more is better in all tables, also in {oracle.name}; leave it out")
        if labels is not None:
            raise UserError("labels: a benchmark is an oracle for the whole space; leave labels or oracle out")
        if oracle.space.name != space.name:
            raise UserError(f"oracle: {oracle.name} is a table of {oracle.space.name}, not of {space.name}")
        return Source.of(oracle)
    if oracle is not None and not isinstance(oracle, by_name | by_rows):
        raise UserError("oracle: expected a benchmark, by_name(f) for an f of one name, or by_rows(f) for one of rows")
    return from_space(
        space,
        _labels(labels, space, metric, minimize),
        metric,
        None if oracle is None else oracle.on(space),
        oracle_id="a function",
        minimize=minimize,
    )


def _labels(given: AnyLabels | None, space: Space, metric: str | None, minimize: bool | None) -> Labels | None:
    if given is None or isinstance(given, Labels):
        return given
    if isinstance(given, Path | str):
        return read_labels(Path(given), space, metric, minimize=minimize)
    return labels_of_frame(given, space, metric, minimize)
