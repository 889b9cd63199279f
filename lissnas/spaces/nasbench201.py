"""NAS-Bench-201: 15,625 cells of four nodes with an operation on each of six edges (Dong and Yang, 2020)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from lissnas.spaces.base import Archs, BoolArray, raise_first
from lissnas.spaces.choices import ChoiceSpace

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges in the order of a row's digits: by target node, then by source node."""
NOTATION = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"
_PATTERN = re.compile(re.escape(NOTATION).replace(r"\{\}", f"({'|'.join(OPS)})"))


class NASBench201(ChoiceSpace):
    """Published strings are the identity: 15,625, of which 6,466 are functionally distinct (NATS-Bench: topology)."""

    def __init__(self) -> None:
        super().__init__("nasbench201", [len(OPS)] * len(EDGES), "NAS-Bench-201 (Dong and Yang, 2020)")

    def format(self, archs: Archs) -> list[str]:
        """Return `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        self.check_rows(archs)
        return [NOTATION.format(*(OPS[i] for i in row)) for row in archs.tolist()]

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the rows of `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`."""
        found = [_PATTERN.fullmatch(name) for name in names]
        bad: BoolArray = np.fromiter((match is None for match in found), bool, len(found))
        raise_first(bad, f"expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2| with operations {', '.join(OPS)}")
        index = {op: i for i, op in enumerate(OPS)}
        digits = [[index[op] for op in match.groups()] for match in found if match]
        return np.array(digits, np.int8).reshape(-1, self.genome_len)
