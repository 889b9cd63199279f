"""Oracles of true values: label tables, programs and trainings, and the logs that store their labels."""

from __future__ import annotations

from lissnas.oracles.base import CountedOracle, Oracle
from lissnas.oracles.label_collection import LabelLog, collect
from lissnas.oracles.label_table import Labels, read_labels

__all__ = ["CountedOracle", "LabelLog", "Labels", "Oracle", "collect", "read_labels"]
