"""The report as one self-contained HTML page, and as one Markdown file."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from matplotlib.figure import Figure

from lissnas import artifacts
from lissnas.plots.figures import png, svg
from lissnas.stages.report.paper import PAPER
from lissnas.stages.report.tables import Table


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Words:
    """What the numbers of one benchmark show."""

    title: str
    lines: Sequence[str]


def identifier(text: str) -> str:
    """Return a name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def report_files(
    words: Sequence[Words],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    maps: Mapping[str, Mapping[str, Any]],
    origin: str,
) -> dict[str, bytes]:
    """Return the page, the Markdown file, every figure as PNG and SVG and every table as CSV."""
    out: dict[str, bytes] = {}
    for picture in pictures:
        name = f"figures/{identifier(picture.title)}"
        out[f"{name}.png"], out[f"{name}.svg"] = png(picture.figure), svg(picture.figure)
    for table in tables:
        out[f"tables/{identifier(table.name)}.csv"] = _csv(table)
    out["report.md"] = _markdown(words, tables, pictures, origin).encode()
    out["index.html"] = _html(words, tables, pictures, maps, origin, out).encode()
    return out


def _html(
    words: Sequence[Words],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    maps: Mapping[str, Mapping[str, Any]],
    origin: str,
    made: Mapping[str, bytes],
) -> str:
    from jinja2 import Environment, StrictUndefined
    from plotly.offline import get_plotlyjs

    template = (files("lissnas.stages.report") / "page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    shown = []
    for picture in pictures:
        name = identifier(picture.title)
        image = base64.b64encode(made[f"figures/{name}.png"]).decode()
        shown.append({"id": name, "title": picture.title, "caption": picture.caption, "png": image})
    # "</" could end the script element that holds the data.
    data = json.dumps(list(maps.values()), separators=(",", ":")).replace("</", "<\\/")
    return environment.from_string(template).render(
        paper=PAPER,
        origin=origin,
        words=[{"title": w.title, "lines": [_plain(line) for line in w.lines]} for w in words],
        tables=[{**vars(t), "id": identifier(t.name)} for t in tables],
        figures=shown,
        maps=[{"benchmark": name} for name in maps],
        maps_json=data,
        plotly_js=get_plotlyjs() if maps else "",
    )


def _markdown(words: Sequence[Words], tables: Sequence[Table], pictures: Sequence[Picture], origin: str) -> str:
    lines = ["# Search spaces shrunk, measured, compared", "", f"lissnas next to the paper: {PAPER}. {origin}", ""]
    for section in words:
        lines += [f"## {section.title}", "", *(f"- {_plain(line)}" for line in section.lines), ""]
    for picture in pictures:
        name = identifier(picture.title)
        lines += [f"## {picture.title}", "", f"![{picture.title}](figures/{name}.png)", "", picture.caption, ""]
    for table in tables:
        lines += [f"## {table.name}: {table.title}", "", artifacts.to_markdown(table.columns, table.rows), ""]
        lines += [f"{remark}\n" for remark in table.remarks]
    return "\n".join(lines).rstrip() + "\n"


def _plain(line: str) -> str:
    return line.removeprefix("- ").replace("`", "")


def _csv(table: Table) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows([table.columns, *table.rows])
    return sink.getvalue().encode()
