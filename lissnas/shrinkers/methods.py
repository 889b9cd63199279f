"""Registry of the methods of a comparison, in the order of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from numpy.random import Generator

from lissnas import benchmarks
from lissnas.config import PaperConfig
from lissnas.core.errors import UnknownName, UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import CountedOracle
from lissnas.shrinkers import abs as abs_
from lissnas.shrinkers import (
    abs_pairs,
    dds,
    distilled,
    dsm_nas,
    genetic,
    greedynas,
    greedynas_v2,
    half_space,
    hep_nas,
    lamoo,
    lapt,
    local_search,
    naive,
    nse,
    padnas,
)
from lissnas.shrinkers.edges import with_edges
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Source
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.then_rank import then_rank
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

Shrinker: TypeAlias = Callable[[Space, CountedOracle, int, Generator], Subspace]
"""Signature of the rivals: space, oracle, target size, random generator."""
Variant: TypeAlias = Callable[[Shrunk, PaperConfig], Shrunk]
"""Signature of variants of our method: its result with the comparison's predictor, and the paper's settings."""
Transfer: TypeAlias = Callable[[Sequence[lapt.Labelled]], Shrinker]
"""Signature of rivals that use the labels of other tasks: architectures and values of each."""

PAPER_FIRST = 0.55
"""Share of the budget for the first sample of the paper variant: its loop queries about as many again."""
QUOTA = 0.05
"""Diversity of rivals with a quota: the default of our method."""


@dataclass(frozen=True)
class Method:
    """A rival with the shared signature, a variant of our method, or a rival that is made from other tasks' labels.

    A `reference` is not a rival: our variants, and the upper bound for any method with the same predictor.
    """

    name: str
    rival: Shrinker | None = None
    variant: Variant | None = None
    transfer: Transfer | None = None
    """Makes the rival from labels of the other tasks on the same space; there is none without another task."""
    reference: bool = False
    needs_labels: bool = True
    needs_table: bool = False
    """Whether it queries every architecture, or collects labels."""


def _ours(ours: Shrunk, paper: PaperConfig) -> Shrunk:
    return ours


def _collect(ours: Shrunk, paper: PaperConfig) -> Shrunk:
    """Return our method with labels collected during the shrink, within the same budget."""
    problem = ours.problem
    limited = problem.params.model_copy(update={"max_queries": ours.state.queries})
    return shrink(replace(problem, params=limited, fitted=None))


def _no_locality(ours: Shrunk, paper: PaperConfig) -> Shrunk:
    """Return our method with uniform draws instead of neighbors (Appendix H.2), within the same budget."""
    limited = ours.problem.params.model_copy(update={"max_queries": ours.state.queries})
    return shrink(replace(ours.problem, params=limited, locality=False))


def _paper(ours: Shrunk, paper: PaperConfig) -> Shrunk:
    """Return the paper's loop within the same budget: a smaller first sample, stopped at the target size.

    Its space is the last one whose mean rose, whatever its size.
    """
    budget, target = ours.state.queries, ours.state.target
    assert target is not None
    first = min(paper.first_size or budget, round(PAPER_FIRST * budget))
    config = paper.model_copy(update={"first_size": max(first, min(target + 1, budget))})
    changed = {"variant": "paper", "method": config, "max_queries": budget}
    return shrink(replace(ours.problem, params=ours.problem.params.model_copy(update=changed)))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("lissnas", variant=_ours, reference=True),
        Method("lissnas_paper", variant=_paper, reference=True),
        Method("abs", with_edges(abs_.shrink)),
        Method("abs_then_rank", then_rank(with_edges(abs_.shrink))),
        Method("abs_pairs", abs_pairs.shrink),
        Method("nse", with_edges(nse.shrink)),
        Method("nse_then_rank", then_rank(with_edges(nse.shrink))),
        Method("padnas", padnas.shrink),
        Method("padnas_then_rank", then_rank(padnas.shrink)),
        Method("greedynas", greedynas.shrink),
        Method("greedynas_v2", greedynas_v2.shrink),
        Method("dds", with_edges(dds.shrink)),
        Method("dds_then_rank", then_rank(with_edges(dds.shrink))),
        Method("half_space", half_space.shrink),
        Method("distilled", distilled.shrink),
        Method("lamoo", lamoo.shrink),
        Method("hep_nas", hep_nas.shrink),
        Method("dsm_nas", dsm_nas.shrink),
        Method("lapt", transfer=lapt.learned_on),
        *(Method(f"top{x}", naive.top_share(x)) for x in (30, 20, 10, 5)),
        Method("no_neighbors", naive.no_neighbors),
        Method("no_locality", variant=_no_locality),
        Method("flops", naive.costliest("flops"), needs_labels=False),
        Method("params", naive.costliest("params"), needs_labels=False),
        Method("flops_then_rank", naive.costliest_then_rank("flops")),
        Method("best_first", local_search.search(0)),
        Method("best_first_quota", local_search.search(QUOTA)),
        Method("genetic", genetic.search(0)),
        Method("genetic_quota", genetic.search(QUOTA)),
        Method("score_all", naive.score_all, reference=True, needs_table=True),
        Method("lissnas_collect", variant=_collect, reference=True, needs_table=True),
    )
}
"""All methods by name, in the order of tables."""
REFERENCES = tuple(name for name, method in METHODS.items() if method.reference)
"""Methods that are not rivals."""


def by_name(name: str) -> Method:
    """Return the method of that name; raises UnknownName."""
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]


def get(name: str) -> Shrinker:
    """Return the rival of that name; raises UnknownName, or UserError if it depends on the benchmark."""
    method = METHODS.get(name)
    if method is not None and method.transfer is not None:
        raise UserError(f"{name} learns from other tasks of a benchmark; it is only available in a comparison")
    if method is None or method.rival is None:
        raise UnknownName("method", name, [name for name, one in METHODS.items() if one.rival is not None])
    return method.rival


def rival_on(name: str, source: Source, seed: int) -> tuple[Shrinker, int]:
    """Return the rival of that name on a source, and the number of other tasks' labels that it uses.

    Raises UnknownName, or UserError for a rival that needs another task of the space if there is none.
    """
    transfer = by_name(name).transfer
    if transfer is None:
        return get(name), 0
    tasks = []
    for other in _available(name, source):
        benchmark, rng = benchmarks.get(other), stream(seed, "compare", name, other)
        rows = source.space.sample_distinct(min(lapt.LABELS, source.space.size()), rng)
        tasks.append((rows, benchmark(rows)))
    return transfer(tasks), sum(len(rows) for rows, _ in tasks)


def other_tasks(source: Source) -> list[str]:
    """Return the names of the packaged benchmarks of other tasks on the same space."""
    task = source.name.partition("@")[0]
    if source.truth is None or task not in benchmarks.names():
        return []
    return [n for n in benchmarks.names() if n != task and benchmarks.space_of(n) == benchmarks.space_of(task)]


def _available(name: str, source: Source) -> list[str]:
    """Return the other tasks that a method can use; raises UserError if the source lacks what it needs."""
    method = by_name(name)
    if method.needs_table and source.truth is None:
        raise UserError(f"{name} needs a table of true values, which {source.name} lacks; remove it")
    tasks = other_tasks(source) if method.transfer else []
    if method.transfer and not tasks:
        raise UserError(f"{name} learns from other tasks of the same space, which {source.name} lacks; remove it")
    return tasks


def chosen(names: Sequence[str] | str, source: Source | None = None) -> list[str]:
    """Return the names of methods in the order of tables; `all` are those that the source supports.

    Raises UnknownName, or UserError for a method that needs a table or other tasks if the source has none.
    """
    names = [names] if isinstance(names, str) else names
    if list(names) == ["all"]:
        return [name for name in METHODS if source is None or _is_available(name, source)]
    for name in names:
        by_name(name)
        if source is not None:
            _available(name, source)
    return [name for name in METHODS if name in names]


def _is_available(name: str, source: Source) -> bool:
    method = METHODS[name]
    return not (method.needs_table and source.truth is None) and not (method.transfer and not other_tasks(source))
