"""Searchers: find the best architectures of a space or subspace; without torch."""

from __future__ import annotations

from lissnas.searchers.base import History, Search, Searched, Searcher
from lissnas.searchers.baselines import local_search, random_search, regularized_evolution
from lissnas.searchers.evolution import Limits, evolutionary_search, top
from lissnas.searchers.guided import guided

SEARCHERS: dict[str, Search] = {
    "guided": guided,
    "regularized_evolution": regularized_evolution,
    "local_search": local_search,
    "random": random_search,
}
"""Searchers by name."""

__all__ = ["SEARCHERS", "History", "Limits", "Search", "Searched", "Searcher", "evolutionary_search", "top"]
