"""Rows of a file of labels: networks in its own columns, to be filled in and read again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from lissnas.errors import UserError
from lissnas.labels import ARCH, STATUS, VALUE
from lissnas.spaces import Archs, Space
from lissnas.spaces.declared import Declared, DeclaredSpace


def write_rows(space: Space, archs: Archs, metric: str | None = None, header: Sequence[str] | None = None) -> bytes:
    """Return a CSV file of architectures in the columns of labels, the metric left empty.

    `metric` names its column, else the space does, else it is `value`; `header` names all columns, as for
    `rows_like`.
    """
    columns = header or header_of(space, metric_of(space, metric))
    return to_csv(columns, rows_like(columns, space, archs))


def header_of(space: Space, metric: str) -> list[str]:
    """Return the columns of a new file: one a position (declared product spaces) or `arch`, and the metric."""
    return [*(space.positions if isinstance(space, DeclaredSpace) else [ARCH]), metric]


def rows_like(header: Sequence[str], space: Space, archs: Archs) -> list[dict[str, str]]:
    """Return rows of a file with these columns for networks without a label: texts, empty where nothing is known."""
    names = space.format(archs)
    columns = {ARCH: names}
    if isinstance(space, DeclaredSpace):
        columns |= dict(zip(space.positions, space.to_text(archs), strict=True))
    return [{name: columns[name][i] if name in columns else "" for name in header} for i in range(len(names))]


def read_rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return the columns and the rows of a CSV file that `read_labels` has accepted."""
    found = [cells for cells in csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")) if cells]
    header = [name.strip() for name in found[0]]
    return header, [dict(zip(header, cells, strict=True)) for cells in found[1:]]


def to_csv(header: Sequence[str], rows: Sequence[dict[str, str]]) -> bytes:
    """Return a CSV file of rows, texts as they are."""
    out = io.StringIO()
    writer = csv.DictWriter(out, header, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def metric_of(space: Space, asked: str | None = None) -> str:
    """Return the column of labels: as asked, else as the space names it; raises UserError for one that is taken."""
    metric = asked or (space.metric_name if isinstance(space, Declared) else VALUE)
    taken = {ARCH, STATUS, *(space.positions if isinstance(space, DeclaredSpace) else ())}
    if metric in taken:
        raise UserError(f"metric: {metric!r} is a column of its own in labels of {space.name}; name another one")
    return metric
