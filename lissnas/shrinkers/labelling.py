"""Which networks to label next: uniform ones at first, then those that the goal of the labels asks for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.random import Generator

from lissnas import benchmarks, config
from lissnas.config import MIN_LABELS, Goal, Params, label_budget
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.direction import is_minimized
from lissnas.oracles.label_table import FAILED, Labels, metric_of
from lissnas.searchers.guided import FIRST, Evidence, propose
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.strategies import SEARCH_SIZE, strategy_of
from lissnas.spaces import Archs, IntArray, Keys, Space
from lissnas.spaces.base import first_of_each, is_in

BEST_EVERY = 5
"""With the goal `space`, one network in 5 is among the best predicted; the others are random members, more
informative (measured)."""
SEARCH_EVERY = 2
"""With the goal `both`, one network in 2 is proposed by a search."""
SEARCH_FROM = 40
"""Labels after which a search proposes networks, with the goal `both`; a tenth of the label budget if that is less."""
BUDGET_SHARE = 0.1
GROWTH = 1.25
"""Growth of the number of labels after which, with the goal `both`, the space is shrunk again for suggestions."""
MAX_SUGGEST_SIZE = SEARCH_SIZE
"""Maximum size of the space that suggestions are drawn from; the shrinker too collects its labels at this size."""
WIDER = 2
"""Informative suggestions come from a space this many times larger than the shrunk one, whose outer half locates its
border: the next space's mean improves by .002 to .009 standard deviations (NAS-Bench-Macro, TransNAS)."""
SEARCH = "search"
"""The kind of a suggestion that a guided search proposes."""
LIKELY_BEST = "likely best"
"""The kind of a suggestion with a high prediction."""
INFORMATIVE = "informative"
"""The kind of a random member of the (wider) shrunk space."""
UNIFORM = "uniform"
"""The kind of a random member of the full space."""
KINDS = (SEARCH, LIKELY_BEST, INFORMATIVE, UNIFORM)


@dataclass(frozen=True)
class Batch:
    """Distinct networks to train next, in random order, so that any prefix is a mix too."""

    archs: Archs
    names: list[str]
    kinds: list[str]
    """The kind of each network: search, likely best, informative, or uniform."""

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Batch of {self.describe()}>"

    def describe(self) -> str:
        """Return the number of networks of each kind as one line."""
        count = Counter(self.kinds)
        parts = ", ".join(f"{count[kind]:,} {kind}" for kind in KINDS if count[kind])
        return f"{len(self):,} networks: {parts}"


@dataclass
class Policy:
    """Chooses the networks to label next from the labels so far, for one space, goal and seed.

    The goal `space` asks for labels that locate the shrunk space: random members of it and of its surroundings,
    stratified, and one in five of the best predicted. `network` is a guided search for the best network. `both` is half
    of each batch each.
    """

    space: Space
    params: Params
    goal: Goal
    seed: int = 0
    threads: int = 0
    _shrunk: dict[int | None, tuple[str, Shrunk]] = field(default_factory=dict)

    def next(self, labels: Labels, n: int) -> Batch:
        """Return the next `n` networks to label, fewer if fewer are left.

        Networks that are labelled, failed, or wait for a label (`Labels.unlabelled`) are excluded; a search avoids
        the surroundings of those that failed, and takes those that wait to be as good as predicted. Raises UserError
        if no network is left.
        """
        if n < 1:
            raise UserError(f"n: expected at least one network, got {n}")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed: {self.seed} is not in 0 to 2^32 - 1")
        space, known = self.space, taken(self.space, labels)
        n = min(n, _n_left(space, labels, known))
        rng = stream(self.seed, "suggest", len(known))
        archs, kinds = self._chosen(labels, known, n, rng) if self.ready(labels, n) else (labels.archs[:0], [])
        if more := n - len(archs):
            known = np.concatenate([known, space.key(archs)])
            archs = np.concatenate([archs, space.sample_distinct(more, rng, without=known)])
            kinds += [UNIFORM] * more
        order = rng.permutation(n)
        return Batch(archs[order], space.format(archs[order]), [kinds[i] for i in order.tolist()])

    def ready(self, labels: Labels, n: int) -> bool:
        """Return whether the uniform labels are collected and not all equal, when `n` more are requested."""
        have = len(labels.values)
        return have >= self._first(have + n) and float(np.ptp(labels.values)) > 0

    def _first(self, n: int) -> int:
        """Return the number of uniform labels; the label budget is `n` unless one is configured."""
        if self.goal == "network":
            return FIRST
        given = self.params.shrink.labels or config.benchmark_settings(self.params, self.space.name).labels
        budget = n if given is None else label_budget(self.params, self.space.name, self.space.size())
        if self.goal == "space":
            return max(MIN_LABELS, math.ceil(self.params.shrink.elite.first_labels * budget))
        return SEARCH_FROM if given is None else max(MIN_LABELS, min(SEARCH_FROM, math.ceil(BUDGET_SHARE * budget)))

    def _chosen(self, labels: Labels, known: Keys, n: int, rng: Generator) -> tuple[Archs, list[str]]:
        """Return up to `n` networks by the labels, and their kinds."""
        space, trees = self.space, self.params.predictor
        if self.goal == "network":
            found = propose(space, evidence(space, labels), n, rng, trees)
            return found, [SEARCH] * len(found)
        every = BEST_EVERY if self.goal == "space" else SEARCH_EVERY
        # Counted over all batches, so that batches of one give the same mix as large ones.
        first = (len(known) + n) // every - len(known) // every
        size = _suggest_size(space, self.params)
        if self.goal == "space":
            result = self.shrunk(labels, size)
            top, members = _select(result, known, n, first, rng)
            archs, kinds = result.state.archive.rows[top], [LIKELY_BEST] * len(top)
        else:
            result = self.shrunk(self._earlier(labels), size)
            pool = result.state.archive.rows[result.members]
            archs = propose(space, evidence(space, labels), first, rng, trees, pool)
            known = np.sort(np.concatenate([known, space.key(archs)]))
            _, members = _select(result, known, n - len(archs), 0, rng)
            kinds = [SEARCH] * len(archs)
        others = result.state.archive.rows[members]
        return np.concatenate([archs, others]), kinds + [INFORMATIVE] * len(others)

    def _earlier(self, labels: Labels) -> Labels:
        """Return the first labels, as many as there were when the space was to be shrunk the last time.

        All, if their order is unknown.
        """
        if labels.order is None:
            return labels
        n = len(labels.values)
        size = self._first(n)
        while (grown := math.ceil(GROWTH * size)) <= n:
            size = grown
        early = labels.first(size)
        return early if float(np.ptp(early.values)) > 0 else labels

    def shrunk(self, labels: Labels, size: int | None = None) -> Shrunk:
        """Return the space shrunk by labels, cached; `size` replaces the target size.

        Raises UserError if there are too few labels, or all are equal.
        """
        digest = labels.digest(self.space)
        if size not in self._shrunk or self._shrunk[size][0] != digest:
            result = shrink_by_labels(self.space, labels, self.params, self.seed, self.threads, size)
            self._shrunk[size] = (digest, result)
        return self._shrunk[size][1]


def suggest(
    space: Space,
    labels: Labels | None,
    n: int,
    params: Params | None = None,
    seed: int = 0,
    threads: int = 0,
    goal: Goal | None = None,
) -> Batch:
    """Return the next `n` networks to label (`Policy.next`); the goal is that of the parameters, by default `both`.

    The space is shrunk by all labels, so that their order in the file doesn't matter.
    """
    known = no_labels(space) if labels is None else replace(labels, order=None)
    checked = params if params is not None else default_params()
    return Policy(space, checked, goal or checked.shrink.goal or "both", seed, threads).next(known, n)


def shrink_by_labels(
    space: Space, labels: Labels, params: Params, seed: int, threads: int = 0, size: int | None = None
) -> Shrunk:
    """Return the space shrunk by the variant `elite` from the given labels only.

    `size` replaces the target size. Raises UserError if there are too few labels, or all are equal.
    """
    if len(labels.values) < MIN_LABELS:
        raise UserError(f"{len(labels.values)} networks of {space.name} have a label, at least {MIN_LABELS} are needed")
    elite = params.model_copy(update={"shrink": params.shrink.model_copy(update={"variant": "elite"})})
    source = Source(space.name, space, labels.metric, labels.digest(space), labels=labels, minimize=labels.negated)
    problem = Problem.of(source, elite, seed, threads)
    if size is not None:
        problem = replace(problem, params=problem.params.model_copy(update={"target_size": size}))
    return shrink(problem)


def default_params() -> Params:
    """Return the parameters of ./params.yaml, or the built-in values if there is no such file."""
    return config.load(None, {}, benchmarks.names())


def no_labels(space: Space, metric: str | None = None, minimize: bool | None = None) -> Labels:
    """Return the empty labels of a new study; raises UserError if the direction of the metric isn't stated."""
    none = np.empty((0, space.genome_len), np.int8)
    name = metric_of(space, metric)
    negated = is_minimized(space, name, minimize)
    return Labels(none, np.empty(0), np.empty(0, np.int64), name, {}, negated)


def evidence(space: Space, labels: Labels) -> Evidence:
    """Return what a search knows: labels, failed networks, and those that wait for a label or were stopped."""
    failed = unlabelled(space, labels)[1]
    rows = np.concatenate([labels.archs, failed])
    values = np.concatenate([labels.values, np.full(len(failed), np.nan)])
    repeats = np.concatenate([labels.repeats, np.ones(len(failed), np.int64)])
    others = np.concatenate([labels.archs[:0], *labels.unlabelled.values()])
    others = others[first_of_each(space.key(others))]
    return Evidence(rows, values, others[~is_in(space.key(others), np.sort(space.key(rows)))], repeats)


def taken(space: Space, labels: Labels) -> Keys:
    """Return the sorted keys of all networks that are labelled, requested, or failed."""
    return np.unique(np.concatenate([space.key(a) for a in (labels.archs, *labels.unlabelled.values())]))


def unlabelled(space: Space, labels: Labels) -> tuple[Archs, Archs]:
    """Return the networks that wait for a label and those that failed, both without labelled ones, in row order."""
    none, known = labels.archs[:0], space.key(labels.archs)
    found = []
    for archs in (labels.unlabelled.get(FAILED, none), labels.unlabelled.get("empty", none)):
        keys = space.key(archs)
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        found.append(archs[first & ~is_in(keys, np.sort(known))])
        known = np.concatenate([known, keys])
    return found[1], found[0]


def _n_left(space: Space, labels: Labels, known: Keys) -> int:
    """Return the number of networks that can be requested; raises UserError if there is none."""
    if left := space.size() - len(known):
        return left
    counts = zip(map(len, unlabelled(space, labels)), ("wait for a label", "failed"), strict=True)
    rest = ", ".join(f"{n:,} {what}" for n, what in counts if n)
    raise UserError(f"every network of {space.name} is labelled" + (f" or requested ({rest})" if rest else ""))


def _suggest_size(space: Space, params: Params) -> int | None:
    """Return the size of the space to draw suggestions from, None for the target size."""
    target = params.shrink.target_size or config.benchmark_settings(params, space.name).target_size
    return MAX_SUGGEST_SIZE if target is not None and target > MAX_SUGGEST_SIZE else None


def _select(result: Shrunk, known: Keys, n: int, likely: int, rng: Generator) -> tuple[IntArray, IntArray]:
    """Return the archive indices of up to `n` networks that are not `known`: `likely` best and informative ones."""
    state, strategy = result.state, strategy_of(result.problem.params)
    archive = state.archive
    free = ~is_in(archive.keys, known)
    members = result.members[free[result.members]]
    top = strategy.top(state, members, likely)
    free[top] = False
    wide = strategy.top(state, np.arange(len(archive)), WIDER * len(result.members), strict=True)
    wide = wide[free[wide]]
    others = _spread(wide, archive.stratum[wide].astype(np.int64), min(n - len(top), len(wide)), rng)
    if short := n - len(top) - len(others):  # fill up with the best of the other evaluated networks
        free[others] = False
        others = np.concatenate([others, strategy.top(state, np.flatnonzero(free), short)])
    return top, others


def _spread(rows: IntArray, stratum: IntArray, k: int, rng: Generator) -> IntArray:
    """Return `k` random rows with equal probability, in proportion from each stratum."""
    order = np.lexsort((rng.random(len(rows)), stratum))
    at = np.floor((np.arange(k) + rng.random()) * len(rows) / max(k, 1)).astype(np.int64)
    return rows[order[np.minimum(at, len(rows) - 1)]] if k else rows[:0]
