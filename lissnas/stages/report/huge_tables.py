"""Tables of spaces too large to list: Tables 5 and 6, and methods evaluated by a surrogate."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from lissnas import artifacts
from lissnas.core.errors import UserError
from lissnas.plots.figures import big
from lissnas.spaces import FloatArray
from lissnas.stages.compare import method_cells
from lissnas.stages.report import paper
from lissnas.stages.report.tables import FULL, NOT_YET, STUDY, Compared, Table, named, num, printed_name


class Huge(BaseModel):
    """A space that is too large to list, shrunk by our method: a row of `huge.csv` (`make study NAME=huge`)."""

    model_config = ConfigDict(frozen=True)

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
    def shown_size(self) -> str:
        """The size as text, with its interval if it is measured."""
        return (
            big(self.size) if self.size_exact else f"{big(self.size)} ({big(self.size_low)} to {big(self.size_high)})"
        )

    @property
    def note(self) -> str:
        """What evaluated the space, and what the shrink took."""
        full = "" if self.full_size_exact else "The full size counts descriptions, some of the same network. "
        return (
            f"{full}Evaluated by {self.judged_by}: mean {num(self.mean_full)} to {num(self.mean_shrunk)}. "
            f"{self.kind.capitalize()}; {self.queries:,} queries, {self.seconds / 60:,.0f} min, "
            f"{self.memory_gib:.1f} GiB."
        )


COLUMNS = tuple(Huge.model_fields)
WHERE = f"{STUDY}, 1 seed"


def read_huge(path: Path) -> list[Huge]:
    """Return the rows of the study; raises UserError for a file of other columns. Sizes are exact, however large."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: expected the columns {', '.join(COLUMNS)}; make it: make study NAME=huge")
        return [Huge.model_validate(row) for row in reader]


def table_5(found: Sequence[Huge]) -> Table:
    """Return Table 5: sizes on MobileNet and AnyNetX, ours from the study next to the paper's."""
    by_name = {printed_name(h.space): h for h in found}
    rows = []
    for p in paper.TABLE_5:
        h = by_name.get(p.space)
        ours, remark = [NOT_YET, "", ""], p.remark
        if h is not None and p.method == "original":
            ours = [WHERE, big(h.full_size), ""]
        elif h is not None and p.method == "lissnas":
            ours, remark = [WHERE, h.shown_size, big(h.factor)], f"{h.note} {p.remark}".strip()
        rows.append([p.space, p.method, *ours, *p.values.values(), remark])
    columns = ["space", "method", "from", "size", "factor", *named(paper.TABLE_5), "remark"]
    return Table("Table 5", "Size reduction on spaces that can't be listed", columns, rows, _remarks(found))


def table_6(listed: Table, found: Sequence[Huge]) -> Table:
    """Return Table 6 with a row more for each huge space that is not in Table 5."""
    shown = {p.space for p in paper.TABLE_5}
    new = {printed_name(h.space): h for h in found if printed_name(h.space) not in shown}
    printed = {p.space: [*p.values.values()] for p in paper.TABLE_6}
    rows = [row for row in listed.rows if not (row[2] == NOT_YET and row[0] in new)]
    for name, h in new.items():
        ours = [big(h.full_size), h.shown_size, big(h.factor)]
        rows.append([h.space, "lissnas", WHERE, *ours, *printed.get(name, ["", "", ""]), h.note])
    return Table(listed.name, listed.title, listed.columns, rows, [*listed.remarks, *_remarks([*new.values()])])


def _remarks(found: Sequence[Huge]) -> list[str]:
    if not found:
        return []
    return [
        "No table of trained networks is public for these spaces: each row names what evaluated it instead, and no "
        "mean here is the ImageNet accuracy of a trained network. The target sizes are the paper's."
    ]


# -- methods evaluated by a surrogate ----------------------------------------------------------------
def read_judged(path: Path) -> Compared:
    """Return the committed comparison on a space without a table."""
    rows = artifacts.read_csv(path)
    first = rows[0]
    full = {"size": first["full_size"], "mean": first["full_mean"], "best": first["full_best"]}
    return Compared(first["benchmark"], first["metric"], full, STUDY, int(first["seeds"]), rows)


def judged_table(c: Compared) -> Table:
    """Return the full space and all methods on a space evaluated by a surrogate, ours at the same size next to each."""
    rows = [method_cells(r) for r in c.summary]
    full = {"method": FULL, "size": big(c.full["size"]), "mean": num(c.full["mean"]), "best": num(c.full["best"])}
    remark = (
        "Values are predicted, not those of trained networks, and the full space's are of a uniform sample of 100,000. "
        "Sets are evaluated by all members, products by 10,000, so the best of a product is that of the sample."
    )
    columns = list(rows[0])
    cells = [[row.get(name, "") for name in columns] for row in (full, *rows)]
    return Table(
        f"Methods on {c.benchmark}", f"Evaluated by a surrogate ({c.where}): {c.metric}", columns, cells, [remark]
    )


def read_quantiles(path: Path) -> dict[str, FloatArray]:
    """Return the quantiles of each space's values, at evenly spaced shares."""
    values: dict[str, list[float]] = {}
    for r in artifacts.read_csv(path):
        values.setdefault(r["space"], []).append(r["value"])
    return {name: np.array(own) for name, own in values.items()}


def window(values: Mapping[str, FloatArray]) -> float:
    """Return how far an error window reaches: from the best of all to the full space's quantile of .05."""
    return float(max(v.max() for v in values.values()) - np.quantile(values[FULL], 0.05))
