"""Evolutionary search in a shrunk set under cost limits, as in SPOS (Guo et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lissnas.artifacts import Checkpoint
from lissnas.config import SearchConfig
from lissnas.core.errors import InvalidArchitecture, UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import Oracle
from lissnas.searchers.base import History
from lissnas.spaces import Archs, IntArray, Keys, Space
from lissnas.spaces.base import first_of_each, is_in

UNAVAILABLE = 127  # distance of evaluated members, more than any genome length
MAX_EDITS = 2
"""Edits per mutation: SPOS redraws two of twenty decisions on average."""


@dataclass(frozen=True)
class Limits:
    """Maximum costs of an architecture; None is no limit. `flops` are multiply-adds."""

    flops: float | None = None
    params: float | None = None

    def keep(self, space: Space, members: Archs) -> Archs:
        """Return the members within the limits; if there are none, raises UserError with the smallest costs."""
        if not len(members):
            raise UserError("the shrunk space is empty: there is nothing to search")
        costs = space.costs(members)
        limits = {name: limit for name, limit in vars(self).items() if limit is not None}
        inside = np.ones(len(members), bool)
        for name, limit in limits.items():
            if name not in costs:
                raise UserError(f"space {space.name} knows no {name}, so they can't be limited")
            inside &= costs[name] <= limit
        if not inside.any():
            smallest = "; ".join(_smallest(costs, name) for name in limits)
            raise UserError(f"no network of the shrunk space is within the limits; {smallest}")
        return members[inside]


def _smallest(costs: Mapping[str, IntArray], name: str) -> str:
    """Return a description of the member with the minimum of a cost."""
    at = int(np.argmin(costs[name]))
    described = " and ".join(f"{values[at] / 1e6:,.2f} M {cost}" for cost, values in costs.items())
    return f"the smallest has {described} (fewest {name})"


def evolutionary_search(
    space: Space,
    members: Archs,
    oracle: Oracle,
    settings: SearchConfig,
    limits: Limits,
    seed: int,
    checkpoint: Checkpoint | None = None,
    on_generation: Callable[[History], None] = lambda history: None,
) -> History:
    """Search the members of a shrunk set that are within the limits; evaluates each at most once.

    A set no larger than `population * generations` is evaluated completely. Resumes from the checkpoint,
    which is saved after each generation. Raises UserError if no member is within the limits.
    """
    inside = limits.keep(space, members)
    inside = inside[first_of_each(space.key(inside))]
    history = History(inside[:0])
    if checkpoint is not None and (saved := checkpoint.load()) is not None:
        history = History(saved[0]["rows"], saved[0]["scores"], saved[0]["generation"])
    first = int(history.generation.max()) + 1 if len(history.generation) else 0
    whole = len(inside) <= settings.population * settings.generations
    generations = -(-len(inside) // settings.population) if whole else settings.generations
    keys = space.key(inside)
    for generation in range(first, generations):
        rng = stream(seed, "search", generation)
        if whole:
            part = slice(generation * settings.population, (generation + 1) * settings.population)
            rows = inside[stream(seed, "search").permutation(len(inside))[part]]
        elif generation == 0:
            rows = inside[rng.permutation(len(inside))[: settings.population]]
        else:
            rows = offspring(space, inside, keys, history, settings, rng)
        history = history.evaluated(space, oracle, rows, generation)
        if checkpoint is not None:
            checkpoint.save({"rows": history.rows, "scores": history.scores, "generation": history.generation}, {})
        on_generation(history)
    return history


def offspring(
    space: Space, inside: Archs, keys: Keys, history: History, settings: SearchConfig, rng: np.random.Generator
) -> Archs:
    """Return the next generation: unevaluated members, by mutation and crossover of the best.

    A child outside the set, or already evaluated, is replaced by the unevaluated member with the fewest differences.
    """
    parents = history.rows[history.best(settings.parents)]
    half = settings.population // 2
    mutated = parents[rng.integers(0, len(parents), half)]
    edits = np.clip(rng.binomial(space.genome_len, settings.mutation, half), 1, MAX_EDITS)
    mutated = space.mutate(mutated, np.minimum(edits, space.max_edits), rng)
    first = rng.integers(0, len(parents), settings.population - half)
    second = (first + rng.integers(1, max(2, len(parents)), len(first))) % len(parents)
    crossed = np.where(rng.random((len(first), space.genome_len)) < 0.5, parents[first], parents[second])
    children = np.concatenate([mutated, _canonical(space, crossed)])
    free = ~is_in(keys, np.sort(space.key(history.rows)))
    taken: list[int] = []
    for child in children:
        if not free.any():
            break
        distance = np.where(free, (inside != child).sum(axis=1), UNAVAILABLE)
        nearest = np.flatnonzero(distance == distance.min())
        chosen = int(nearest[rng.integers(0, len(nearest))])
        free[chosen] = False
        taken.append(chosen)
    return inside[taken]


def _canonical(space: Space, rows: Archs) -> Archs:
    """Return rows that are architectures of the space in canonical form, and others unchanged."""
    rows = rows.copy()
    for i in range(len(rows)):
        try:
            space.key(rows[i : i + 1])
        except InvalidArchitecture:
            continue
        rows[i : i + 1] = space.canonicalize(rows[i : i + 1])
    return rows


def top(space: Space, history: History, k: int) -> list[Mapping[str, Any]]:
    """Return the `k` best as `arch, score, flops, params`, best first; scores are in the metric's sign."""
    at = history.best(k)
    names = space.format(history.rows[at])
    costs = space.costs(history.rows[at])
    return [
        {"arch": name, "score": float(score), **{c: int(v[i]) for c, v in costs.items()}}
        for i, (name, score) in enumerate(zip(names, history.values[at], strict=True))
    ]
