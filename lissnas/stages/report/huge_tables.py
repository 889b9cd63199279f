"""What the report says of spaces too large to list: Tables 5 and 6, and methods that a surrogate judged."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lissnas import artifacts
from lissnas.core.errors import UserError
from lissnas.plots.figures import big
from lissnas.spaces import FloatArray
from lissnas.stages.report import paper
from lissnas.stages.report.tables import NOT_YET, STUDY, Compared, Table, between, count, named, num, printed_name

HUGE = "huge.csv"
"""Committed result of `make study NAME=huge`."""
COLUMNS = (
    *("space", "full_size", "full_size_exact", "size", "size_low", "size_high", "size_exact", "kind", "queries"),
    *("seconds", "memory_gib", "mean_full", "mean_shrunk", "judged_by"),
)


@dataclass(frozen=True)
class Huge:
    """A space that is too large to list, shrunk by our method."""

    space: str
    full_size: int
    full_size_exact: bool
    """Whether `full_size` counts networks; else it counts descriptions."""
    size: int
    size_low: int
    size_high: int
    size_exact: bool
    """Whether `size` is counted; else it is measured, and lies between low and high."""
    kind: str
    queries: int
    seconds: float
    memory_gib: float
    mean_full: float
    mean_shrunk: float
    judged_by: str

    @property
    def factor(self) -> float:
        """How many times fewer networks there are."""
        return self.full_size / self.size

    @property
    def note(self) -> str:
        """Who judged, and what it took."""
        full = "" if self.full_size_exact else "The full size counts descriptions, some of the same network. "
        return (
            f"{full}Judged by {self.judged_by}: mean {num(self.mean_full)} to {num(self.mean_shrunk)}. "
            f"{self.kind.capitalize()}; {self.queries:,} queries, {self.seconds / 60:,.0f} min, "
            f"{self.memory_gib:.1f} GiB."
        )


def read_huge(path: Path) -> list[Huge]:
    """Return the rows of the study; raises UserError for a file of other columns. Sizes are exact, however large."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}; make it: make study NAME=huge")
        return [
            Huge(
                r["space"],
                int(r["full_size"]),
                r["full_size_exact"] == "true",
                int(r["size"]),
                int(r["size_low"]),
                int(r["size_high"]),
                r["size_exact"] == "true",
                r["kind"],
                int(r["queries"]),
                float(r["seconds"]),
                float(r["memory_gib"]),
                float(r["mean_full"]),
                float(r["mean_shrunk"]),
                r["judged_by"],
            )
            for r in reader
        ]


def _size(h: Huge) -> str:
    return big(h.size) if h.size_exact else f"{big(h.size)} ({big(h.size_low)} to {big(h.size_high)})"


def table_5(found: Sequence[Huge]) -> Table:
    """Return Table 5: sizes on MobileNet and AnyNetX, ours from the study beside the paper's."""
    by_name = {printed_name(h.space): h for h in found}
    where = f"{STUDY}, 1 seed"
    rows = []
    for p in paper.TABLE_5:
        h = by_name.get(p.space)
        ours, note = [NOT_YET, "", ""], ""
        if h is not None and p.method == "original":
            ours = [where, big(h.full_size), ""]
        elif h is not None and p.method == "lissnas":
            ours, note = [where, _size(h), big(h.factor)], h.note
        remark = " ".join(part for part in (note, p.remark) if part)
        rows.append([p.space, p.method, *ours, p.values["size"], p.values["factor"], remark])
    columns = ["space", "method", "from", "size", "factor", *named(paper.TABLE_5), "remark"]
    return Table("Table 5", "Size reduction on spaces that can't be listed", columns, rows, _judges(found))


def table_6(listed: Table, found: Sequence[Huge]) -> Table:
    """Return Table 6 with a row more for each huge space that is not in Table 5."""
    shown = {p.space for p in paper.TABLE_5}
    new = [h for h in found if printed_name(h.space) not in shown]
    printed = {p.space: p for p in paper.TABLE_6}
    names = {printed_name(h.space) for h in new}
    rows = [row for row in listed.rows if not (row[2] == NOT_YET and row[0] in names)]
    for h in new:
        p = printed.get(printed_name(h.space))
        theirs = list(p.values.values()) if p else [""] * len(paper.TABLE_6[0].values)
        ours = [big(h.full_size), _size(h), big(h.factor)]
        rows.append([h.space, "lissnas", f"{STUDY}, 1 seed", *ours, *theirs, h.note])
    return Table(listed.name, listed.title, listed.columns, rows, [*listed.remarks, *_judges(new)])


def _judges(found: Sequence[Huge]) -> list[str]:
    if not found:
        return []
    return [
        "No table of trained networks is public for these spaces: each row says who judged instead, and no mean here "
        "is the ImageNet accuracy of a trained network. The target sizes are the paper's."
    ]


# -- methods that a surrogate judged -----------------------------------------------------------------
def read_judged(path: Path) -> Compared:
    """Return the committed comparison on a space without a table."""
    rows = artifacts.read_csv(path)
    first = rows[0]
    full = {"size": first["full_size"], "mean": first["full_mean"], "best": first["full_best"]}
    return Compared(first["benchmark"], first["metric"], full, STUDY, int(first["seeds"]), rows)


def judged_table(c: Compared) -> Table:
    """Return the full space and all methods on a space that a surrogate judged, ours at the same size beside each."""
    columns = [
        *("method", "size", "queries", "mean", "95 %", "ours, same size", "ahead", "best", "ours, same size's best"),
        *("good", "EDF area", "FLOPs coverage"),
    ]
    full = ["full space", big(c.full["size"]), "", num(c.full["mean"]), "", "", "", num(c.full["best"])]
    rows = [[*full, *[""] * (len(columns) - len(full))]]
    for r in c.summary:
        rows.append(
            [
                *(r["method"], count(r["size"]), count(r["queries"]), num(r["mean_true"]), between(r, "mean_true")),
                *(num(r["ours_mean_true"]), f"{r['ours_ahead']}/{c.seeds}", num(r["max_true"])),
                *(num(r["ours_max_true"]), f"{100 * r['p_good']:.0f} %", num(r["edf_auc"], 3)),
                num(r.get("flops_coverage"), 2),
            ]
        )
    remark = (
        "Values are predicted, not those of trained networks, and the full space's are of a uniform sample of 100,000. "
        "Sets are judged by all of their members, products by 10,000, so the best of a product is that of the sample."
    )
    return Table(f"Methods on {c.benchmark}", f"Judged by a surrogate ({c.where}): {c.metric}", columns, rows, [remark])


def read_quantiles(path: Path) -> dict[str, FloatArray]:
    """Return the quantiles of each space's values, at evenly spaced shares."""
    values: dict[str, list[float]] = {}
    for r in artifacts.read_csv(path):
        values.setdefault(r["space"], []).append(r["value"])
    return {name: np.array(own) for name, own in values.items()}


def window(values: Mapping[str, FloatArray]) -> float:
    """Return how far an error window reaches: from the best of all to the full space's quantile of .05."""
    full = values["full space"]
    return float(max(v.max() for v in values.values()) - np.quantile(full, 0.05))
