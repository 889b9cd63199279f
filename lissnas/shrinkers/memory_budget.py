"""Conversion between a memory limit and the rows that a shrink may keep."""

from __future__ import annotations

PART = 1 << 20
"""Maximum number of neighbors drawn per batch."""
BATCH_FRACTION = 4
"""A batch has at most one in this many of the rows that fit in memory."""
ROW_BYTES = 40
"""Memory of a row in addition to its genome: its entries in the columns and in lists of indices."""
COPIES = 3
"""Copies of a row in memory while rows are concatenated and sorted."""
BASE_BYTES = 400 << 20
"""Memory of the libraries and of a batch of features."""


def rows_in_memory(memory_gib: float, genome_len: int) -> int:
    """Return the number of rows that a state may have for the process to stay within `memory_gib`."""
    return max(0, int((memory_gib * 2**30 - BASE_BYTES) / (COPIES * (ROW_BYTES + genome_len))))


def memory_needed(rows: int, genome_len: int) -> float:
    """Return the memory, in GiB, for a state of `rows` rows; the inverse of `rows_in_memory`."""
    return (rows * COPIES * (ROW_BYTES + genome_len) + BASE_BYTES) / 2**30 + 0.05
