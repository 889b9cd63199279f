"""Measures of a space: quality, diversity, locality."""

from __future__ import annotations

from lissnas.metrics.diversity import DiversityReference
from lissnas.metrics.quality import edf_auc, error_edf, good_threshold, share_good, shrink_index

__all__ = ["DiversityReference", "edf_auc", "error_edf", "good_threshold", "share_good", "shrink_index"]
