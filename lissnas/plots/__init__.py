"""Figures made from plain data."""

from __future__ import annotations

from lissnas.plots.comparison import colours
from lissnas.plots.figures import BLUE, ORANGE, big, plain, png, svg

__all__ = ["BLUE", "ORANGE", "big", "colours", "plain", "png", "svg"]
