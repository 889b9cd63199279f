"""Searchers: find the best architectures of a space or subspace; without torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from numpy.random import Generator

from lissnas.oracles import Oracle
from lissnas.searchers.evolution import History, Limits, evolutionary_search, top
from lissnas.spaces import Space
from lissnas.spaces.subspace import Subspace

Searcher: TypeAlias = Callable[[Space | Subspace, Oracle, int, Generator], History]
"""Evaluates at most `n` architectures of a space or subspace and returns all of them, in order of evaluation."""

__all__ = ["History", "Limits", "Searcher", "evolutionary_search", "top"]
