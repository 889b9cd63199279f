"""Searchers: find the best architectures of a space or subspace; without torch."""

from __future__ import annotations

from lissnas.searchers.evolution import History, Limits, evolutionary_search, top

__all__ = ["History", "Limits", "evolutionary_search", "top"]
