"""Tables 5 and 6: spaces that are too large to list."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lissnas.core.errors import UserError
from lissnas.plots.figures import big
from lissnas.stages.report import paper
from lissnas.stages.report.tables import NOT_YET, STUDY, Table, named, num, of_paper, printed_name


class Huge(BaseModel):
    """A shrunk space that is too large to list: a row of `huge.csv` (`make study NAME=huge`)."""

    model_config = ConfigDict(frozen=True)

    space: str
    full_size: int
    full_size_exact: bool
    """Whether `full_size` counts networks; otherwise it counts descriptions."""
    size: int
    size_low: int
    size_high: int
    size_exact: bool
    """Whether `size` is counted; otherwise it is an estimate, with the interval `size_low` to `size_high`."""
    kind: str
    queries: int
    seconds: float
    memory_gib: float
    mean_full: float
    mean_shrunk: float
    judged_by: str

    @property
    def shown(self) -> list[str]:
        """The size, with its interval if it is an estimate, and the reduction factor."""
        interval = "" if self.size_exact else f" ({big(self.size_low)} to {big(self.size_high)})"
        return [f"{big(self.size)}{interval}", big(self.full_size / self.size)]

    @property
    def note(self) -> str:
        """The oracle and the cost of the shrink."""
        full = (
            "" if self.full_size_exact else "The full size counts descriptions; several can describe the same network. "
        )
        return (
            f"{full}Evaluated by {self.judged_by}: mean {num(self.mean_full)} to {num(self.mean_shrunk)}. "
            f"{self.kind.capitalize()}; {self.queries:,} queries, {self.seconds / 60:,.0f} min, "
            f"{self.memory_gib:.1f} GiB."
        )


COLUMNS = tuple(Huge.model_fields)
WHERE = f"{STUDY}, 1 seed"


def read_huge(path: Path) -> list[Huge]:
    """Return the rows of the study, with exact sizes; raises UserError for a file with other columns."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(
                f"{path}: expected the columns {', '.join(COLUMNS)}. Make the file again: make study NAME=huge"
            )
        return [Huge.model_validate(row) for row in reader]


def table_5(found: Sequence[Huge]) -> Table:
    """Return Table 5: sizes of MobileNet and AnyNetX, from the study and from the paper."""
    by_name = {printed_name(h.space): h for h in found}
    rows = []
    for p in paper.TABLES["Table 5"].rows:
        h = by_name.get(p.space)
        ours, remark = [NOT_YET, "", ""], p.remark
        if h is not None and p.method == "original":
            ours = [WHERE, big(h.full_size), ""]
        elif h is not None and p.method == "lissnas":
            ours, remark = [WHERE, *h.shown], f"{h.note} {p.remark}".strip()
        rows.append([p.space, p.method, *ours, *p.values.values(), remark])
    columns = ["space", "method", "from", "size", "factor", *named(paper.TABLES["Table 5"].rows), "remark"]
    return of_paper("Table 5", columns, rows, _remarks(found))


def table_6(listed: Table, found: Sequence[Huge]) -> Table:
    """Return Table 6 with an additional row for each huge space that is not in Table 5."""
    shown = {p.space for p in paper.TABLES["Table 5"].rows}
    new = {printed_name(h.space): h for h in found if printed_name(h.space) not in shown}
    printed = {p.space: [*p.values.values()] for p in paper.TABLES["Table 6"].rows}
    rows = [row for row in listed.rows if not (row[2] == NOT_YET and row[0] in new)]
    for name, h in new.items():
        rows.append([h.space, "lissnas", WHERE, big(h.full_size), *h.shown, *printed.get(name, ["", "", ""]), h.note])
    return Table(listed.name, listed.title, listed.columns, rows, [*listed.remarks, *_remarks([*new.values()])])


def _remarks(found: Sequence[Huge]) -> list[str]:
    if not found:
        return []
    return [
        "No table of trained networks is public for these spaces. Each row names the oracle that evaluates it instead; "
        "no mean is an ImageNet accuracy of trained networks. The target sizes are the paper's."
    ]
