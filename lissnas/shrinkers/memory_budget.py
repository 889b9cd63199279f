"""How many rows a shrink may keep in a given amount of memory."""

from __future__ import annotations

PART = 1 << 20
"""Maximum of neighbors that are drawn at once."""
SPARE = 4
"""They may be one in so many of the memory's rows."""
ROW_BYTES = 40
"""Memory of a row beside its genome: its entries in the columns, and its places in the lists of indices."""
COPIES = 3
"""How many times a row is in memory while rows are joined and sorted."""
BASE_BYTES = 400 << 20
"""Memory of the libraries, and of a chunk of features."""


def rows_in_memory(memory_gib: float, genome_len: int) -> int:
    """Return how many rows a state may hold for a process to stay within `memory_gib`."""
    return max(0, int((memory_gib * 2**30 - BASE_BYTES) / (COPIES * (ROW_BYTES + genome_len))))


def memory_for(rows: int, genome_len: int) -> float:
    """Return the GiB within which a state may hold so many rows: what `rows_in_memory` turns round."""
    return (rows * COPIES * (ROW_BYTES + genome_len) + BASE_BYTES) / 2**30 + 0.05
