"""Shrinkers: reduce a space to a smaller one with the help of an oracle."""

from __future__ import annotations

from lissnas.shrinkers.methods import METHODS, Method, Shrinker, get
from lissnas.shrinkers.problem import Problem, Source

__all__ = ["METHODS", "Method", "Problem", "Shrinker", "Source", "get"]
