"""Shrinkers: from a space and an oracle to a smaller space."""

from __future__ import annotations

from lissnas.shrinkers.methods import METHODS, Method, Shrinker, get
from lissnas.shrinkers.problem import Problem, Source

__all__ = ["METHODS", "Method", "Problem", "Shrinker", "Source", "get"]
