"""All architectures that a shrink has seen, as columns, in order of appearance."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lissnas.shrinkers.selection import Strata, select_top
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import BoolArray

UNLABELLED = -1
"""In `label_round`: no label was requested."""
FAILED = -2
"""In `label_round`: a label was requested, but not obtained."""

Column: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Archive:
    """Architectures seen so far, with scores, labels and provenance.

    Types are as narrow as possible: there may be tens of millions of rows.
    """

    rows: Archs
    keys: Keys
    scores: NDArray[np.float32]
    """Predicted scores; NaN until predicted."""
    labels: FloatArray
    """True values; NaN if unlabelled."""
    label_round: NDArray[np.int8]
    """The round in which a label was obtained, UNLABELLED or FAILED."""
    parent: NDArray[np.int32]
    """The row that a neighbor was derived from; for a sampled architecture, its row itself."""
    distance: NDArray[np.int8]
    """Edits from the parent."""
    stratum: NDArray[np.int16]
    expanded: BoolArray
    """Whether the row has been a seed architecture."""

    @classmethod
    def empty(cls, space: Space) -> Archive:
        """Return an empty archive."""
        return cls(
            rows=np.empty((0, space.genome_len), np.int8),
            keys=np.empty(0, np.uint64),
            scores=np.empty(0, np.float32),
            labels=np.empty(0, np.float64),
            label_round=np.empty(0, np.int8),
            parent=np.empty(0, np.int32),
            distance=np.empty(0, np.int8),
            stratum=np.empty(0, np.int16),
            expanded=np.empty(0, np.bool_),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def extend(
        self, space: Space, rows: Archs, keys: Keys, parent: IntArray | None, distance: IntArray, strata: Strata | None
    ) -> Archive:
        """Return the archive with new rows appended; `parent` None means that they were sampled."""
        n, more = len(self), len(rows)
        stratum = np.zeros(more, np.int16)
        if strata is not None and more:
            stratum = strata.of_each(space, rows).astype(np.int16)
        new = {
            "rows": rows,
            "keys": keys,
            "scores": np.full(more, np.nan, np.float32),
            "labels": np.full(more, np.nan),
            "label_round": np.full(more, UNLABELLED, np.int8),
            "parent": (np.arange(n, n + more) if parent is None else parent).astype(np.int32),
            "distance": distance.astype(np.int8),
            "stratum": stratum,
            "expanded": np.zeros(more, bool),
        }
        return Archive(**{name: np.concatenate([column, new[name]]) for name, column in self.columns().items()})

    def keep(self, which: BoolArray) -> tuple[Archive, IntArray]:
        """Return the archive with the rows in the mask `(n,)` `which`, and the new index of each old row.

        Parents of rows that are kept have to be kept.
        """
        index = np.cumsum(which) - 1
        kept = Archive(**{name: column[which] for name, column in self.columns().items()})
        return replace(kept, parent=index[kept.parent].astype(np.int32)), index

    def top(self, among: IntArray, k: int, strata: Strata | None, diversity: float, strict: bool = False) -> IntArray:
        """Return the `k` highest-scored rows of `among`, best first, with a quota per stratum (`select_top`)."""
        weight = np.ones(1) if strata is None else strata.weight
        share = 0.0 if strata is None else diversity
        return among[select_top(self.scores[among], self.stratum[among], weight, k, share, strict)]

    def columns(self) -> dict[str, Column]:
        """Return the columns by name."""
        return {column.name: getattr(self, column.name) for column in fields(self)}

    @property
    def labelled(self) -> IntArray:
        """Indices of labelled rows."""
        return np.flatnonzero(self.label_round >= 0)

    @property
    def n_requested(self) -> int:
        """Number of requested labels, including failed ones, which count towards the label budget."""
        return int((self.label_round != UNLABELLED).sum())
