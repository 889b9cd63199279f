"""The overview: on each benchmark, the difference between ours and each method."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lissnas.stages.report.tables import Compared, Row, Table

MARKS = {"ahead": "▲", "equal": "=", "behind": "▼", "unclear": "?", "": ""}
"""Marks of the verdicts, from the point of view of ours; variants of ours and the ceiling have no verdict."""
STRONG = 1.0
"""Difference in standard deviations with the strongest colour."""


@dataclass(frozen=True)
class Difference:
    """The mean of ours minus the mean of a method at equal size, in standard deviations of the full space."""

    row: Row

    def __str__(self) -> str:
        return f"{self.mark} {self.minus} ({self.interval})".strip()

    @property
    def value(self) -> float:
        """The difference, to sort by."""
        return float(self.row["ours_minus_sd"])

    @property
    def verdict(self) -> str:
        """One of ahead, equal, behind and unclear, or empty."""
        return self.row["verdict"] or ""

    @property
    def mark(self) -> str:
        """The verdict as one character, which needs no colour."""
        return MARKS[self.verdict]

    @property
    def minus(self) -> str:
        """The difference as text."""
        return f"{self.value:+.3f}"

    @property
    def interval(self) -> str:
        """The 95 % interval as text."""
        return _interval(self.row, "ours")

    @property
    def strength(self) -> float:
        """Opacity of the colour; the text is readable on all of them."""
        share = min(1.0, abs(self.value) / STRONG)
        return round(0.1 + 0.35 * math.sqrt(share), 2)

    @property
    def details(self) -> str:
        """The tests, and the difference to the method with our quota."""
        r = self.row
        if not self.verdict:
            return f"{r['method']} is not a rival"
        text = f"{r['method']}: ours {self.verdict}, p {r['p_holm']:.2g} after Holm's correction"
        if r.get("quota_verdict"):
            text += (
                f"; with our diversity quota {r['quota_minus_sd']:+.3f} ({_interval(r, 'quota')}), {r['quota_verdict']}"
            )
        return text


def _interval(row: Row, of: str) -> str:
    return f"{row[f'{of}_minus_sd_low']:.3f} to {row[f'{of}_minus_sd_high']:.3f}"


@dataclass(frozen=True)
class Overview:
    """Differences of all methods on all benchmarks."""

    compared: Sequence[Compared]
    """One comparison for each benchmark; those without differences in standard deviations are left out."""
    references: Collection[str]
    """Methods that are not rivals: variants of ours, and the ceiling."""

    @cached_property
    def shown(self) -> list[Compared]:
        """The comparisons with differences in standard deviations."""
        return [c for c in self.compared if "ours_minus_sd" in c.summary[0]]

    @cached_property
    def rows(self) -> dict[str, list[Difference | None]]:
        """Differences by method, one for each shown benchmark; the closest rivals first."""
        methods = list(dict.fromkeys(r["method"] for c in self.shown for r in c.summary if r["method"] != "lissnas"))
        found = {m: [None if (r := c.of(m)) is None else Difference(r) for c in self.shown] for m in methods}
        return dict(sorted(found.items(), key=lambda item: self.mean(item[1])))

    def mean(self, differences: Sequence[Difference | None]) -> float:
        """Return the mean difference over the benchmarks on which a method was run."""
        return float(np.mean([d.value for d in differences if d is not None]))

    @property
    def caption(self) -> str:
        """What a cell shows, and how often each verdict occurs against rivals."""
        every = [d for m, row in self.rows.items() if m not in self.references for d in row if d is not None]
        n = Counter(d.verdict for d in every)
        left_out = [c.benchmark for c in self.compared if c not in self.shown]
        old = (
            f" Without these columns, hence left out: {', '.join(left_out)}; repeat the comparison." if left_out else ""
        )
        return (
            "Mean of ours minus mean of the method at equal size, in standard deviations of the full space, with its "
            f"95 % interval. Of {len(every)} comparisons with rivals, ours is ahead (▲) in {n['ahead']}, equal (=, "
            f"less than .02 apart) in {n['equal']}, behind (▼) in {n['behind']}; {n['unclear']} are unclear (?). In "
            f"italics: variants of ours and the ceiling.{old}"
        )

    @property
    def table(self) -> Table:
        """The overview as text."""
        columns = ["method", "mean of all", *(c.benchmark for c in self.shown)]
        rows = [
            [method, f"{self.mean(row):+.3f}", *("" if d is None else str(d) for d in row)]
            for method, row in self.rows.items()
        ]
        return Table("Overview", "All methods on all benchmarks", columns, rows, [self.caption])
