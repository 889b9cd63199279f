"""Searchers of the literature without a predictor: random, regularized evolution, local search."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lissnas.searchers.base import History, Search, Searched, inside, space_of, without
from lissnas.spaces import Archs

POPULATION = 50
"""Architectures in the population of regularized evolution; its first ones are uniform."""
TOURNAMENT = 10
"""Architectures of which the best becomes the parent."""
MAX_TRIES = 50
"""Children that are drawn to find one that was not evaluated."""
FIRST = 10
"""Uniform architectures that local search starts from (White et al., 2021)."""
EXPANDED = 16
"""Architectures whose neighbors are listed at once."""


def none_proposed(searched: Searched, history: History, n: int, rng: Generator) -> Archs:
    """Propose nothing, so that all architectures are uniform."""
    return history.rows[:0]


def children_by_tournament(searched: Searched, history: History, n: int, rng: Generator) -> Archs:
    """Propose a mutant of the best of a random part of the youngest evaluated (Real et al., 2019)."""
    space = space_of(searched)
    known = history.known()
    if len(history.rows) < POPULATION or not len(known):
        return history.rows[:0]
    young, taken, found = known[-POPULATION:], np.sort(space.key(history.rows)), history.rows[:0]
    for _ in range(n):
        drawn = young[rng.permutation(len(young))[:TOURNAMENT]]
        parent = history.rows[drawn[np.argmax(history.scores[drawn])]]
        tries = space.mutate(np.repeat(parent[None], MAX_TRIES, axis=0), np.ones(MAX_TRIES, np.int64), rng)
        found = np.concatenate([found, without(space, inside(searched, tries), taken)[:1]])
    return found


def neighbors_of_best(searched: Searched, history: History, n: int, rng: Generator) -> Archs:
    """Propose the neighbors of the best architecture whose neighbors were not all evaluated (White et al., 2021).

    The neighbors of one architecture are evaluated before those of the next; a better one is expanded first.
    """
    space = space_of(searched)
    if len(history.rows) < FIRST:
        return history.rows[:0]
    taken, found = np.sort(space.key(history.rows)), history.rows[:0]
    best = history.best(len(history.rows))
    for lo in range(0, len(best), EXPANDED):
        children, parents = space.neighbors(history.rows[best[lo : lo + EXPANDED]])
        children = children[np.lexsort((rng.random(len(children)), parents))]
        found = np.concatenate([found, without(space, inside(searched, children), taken)])
        if len(found) >= n:
            break
    return found


random_search = Search(none_proposed)
regularized_evolution = Search(children_by_tournament)
local_search = Search(neighbors_of_best)
