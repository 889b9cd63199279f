"""The report: every table and figure of the paper, from real data."""

from __future__ import annotations

from lissnas.stages.report.huge_tables import COLUMNS
from lissnas.stages.report.label_curve import COLLECTED, SIX_ROUNDS, UNIFORM, label_figure, label_tables
from lissnas.stages.report.stage import report_stage

__all__ = ["COLLECTED", "COLUMNS", "SIX_ROUNDS", "UNIFORM", "label_figure", "label_tables", "report_stage"]
