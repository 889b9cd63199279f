"""Measures of a space: quality, diversity, locality."""

from __future__ import annotations

from lissnas.metrics.diversity import Yardstick
from lissnas.metrics.quality import (
    complexity_weights,
    correlations,
    edf_auc,
    error_edf,
    error_window,
    good_threshold,
    ks,
    share_good,
    share_interval,
    shrink_index,
    top_kept,
    top_mean,
)

__all__ = [
    "Yardstick",
    "complexity_weights",
    "correlations",
    "edf_auc",
    "error_edf",
    "error_window",
    "good_threshold",
    "ks",
    "share_good",
    "share_interval",
    "shrink_index",
    "top_kept",
    "top_mean",
]
