"""Registry of the methods of a comparison, in the order of tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from numpy.random import Generator

from lissnas.config import PaperConfig
from lissnas.core.errors import UnknownName, UserError
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
    other_tasks,
    padnas,
    plugin,
)
from lissnas.shrinkers.edges import with_edges
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Source
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.then_rank import then_rank
from lissnas.spaces import Space
from lissnas.spaces.base import LISTABLE
from lissnas.spaces.subspace import Subspace

Shrinker: TypeAlias = Callable[[Space, CountedOracle, int, Generator], Subspace]
"""Signature of the rivals: space, oracle, target size, random generator."""
Variant: TypeAlias = Callable[[Shrunk, PaperConfig, int], Shrunk]
"""Signature of variants of our method: its result with the comparison's predictor, the paper's settings, the budget."""
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
    """Whether it collects labels of any architecture."""
    needs_listing: bool = False
    """Whether it queries every architecture."""


def within(ours: Shrunk, budget: int, **changes: Any) -> Shrunk:
    """Shrink the problem of `ours` again within a query budget, with other fields of `Problem`."""
    limited = ours.problem.params.model_copy(update={"max_queries": budget})
    return shrink(replace(ours.problem, params=limited, **changes))


def _ours(ours: Shrunk, paper: PaperConfig, budget: int) -> Shrunk:
    return ours if budget >= ours.state.queries else within(ours, budget)


def _collect(ours: Shrunk, paper: PaperConfig, budget: int) -> Shrunk:
    """Return our method with labels collected during the shrink, within the same budget."""
    return within(ours, budget, fitted=None)


def _no_locality(ours: Shrunk, paper: PaperConfig, budget: int) -> Shrunk:
    """Return our method with uniform draws instead of neighbors (Appendix H.2), within the same budget."""
    return within(ours, budget, locality=False)


def _paper(ours: Shrunk, paper: PaperConfig, budget: int) -> Shrunk:
    """Return the paper's loop within the same budget: a smaller first sample, stopped at the target size.

    Its space is the last one whose mean rose, whatever its size.
    """
    target = ours.state.target
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
        Method("score_all", naive.score_all, reference=True, needs_listing=True),
        Method("lissnas_collect", variant=_collect, reference=True, needs_table=True),
    )
}
"""All methods by name, in the order of tables."""
REFERENCES = tuple(name for name, method in METHODS.items() if method.reference)
"""Methods that are not rivals."""


def by_name(name: str) -> Method:
    """Return the method of that name, or the shrinker `package.module:function` of the user.

    Raises UnknownName, and UserError for a shrinker of the user that fails its check.
    """
    if plugin.is_plugin(name):
        return Method(name, plugin.load(name))
    if name not in METHODS:
        raise UnknownName("method", name, METHODS)
    return METHODS[name]


def get(name: str) -> Shrinker:
    """Return the rival of that name; raises UnknownName, or UserError for one that needs other tasks."""
    method = METHODS.get(name)
    if method is not None and method.transfer is not None:
        raise UserError(f"{name} learns from other tasks of a benchmark's space; run it by `lissnas compare`")
    if method is None or method.rival is None:
        raise UnknownName("method", name, [name for name, one in METHODS.items() if one.rival is not None])
    return method.rival


def rival_on(method: Method, source: Source, seed: int) -> Shrinker:
    """Return the rival on a source; one that uses the labels of other tasks is made from them."""
    if method.transfer is not None:
        return method.transfer(other_tasks.labelled(source, lapt.LABELS, seed))
    assert method.rival is not None
    return method.rival


def labels_of_others(method: Method, source: Source) -> int:
    """Return the number of labels of other tasks that a method uses."""
    if method.transfer is None:
        return 0
    return len(other_tasks.names(source)) * min(lapt.LABELS, source.space.size())


def chosen(
    names: Sequence[str] | str, source: Source | None = None, more: Sequence[str] = (), required: bool = True
) -> list[str]:
    """Return the names of methods in the order of tables; `all` are those that the source supports.

    `more` are added: packaged methods or shrinkers of the user, which come last. Raises UnknownName, and UserError for
    a method that the source does not support; such names are left out unless they are `required`.
    """
    names = [names] if isinstance(names, str) else list(names)
    everything = names == ["all"]
    if everything or not required:
        names = [name for name in (METHODS if everything else names) if not _obstacle(name, source)]
    names = [*names, *more]
    for name in names:
        if problem := _obstacle(name, source):
            raise UserError(f"{name} {problem}; remove it")
    own = [name for name in names if plugin.is_plugin(name)]
    return [*(name for name in METHODS if name in names), *dict.fromkeys(own)]


def _obstacle(name: str, source: Source | None) -> str:
    """Return why a method can't run on a source; empty if it can."""
    method = by_name(name)
    if source is None:
        return ""
    if method.needs_table and source.truth is None:
        return f"needs a table of true values, which {source.name} lacks"
    if method.needs_listing and source.space.size() > LISTABLE:
        return f"queries every architecture, but {source.name} is too large to list"
    if method.transfer is not None and not other_tasks.names(source):
        return f"learns from other tasks of the same space, which {source.name} lacks"
    return ""
