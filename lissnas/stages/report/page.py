"""Render the report as a self-contained HTML page and as a Markdown file."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
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
class Page:
    """The content of the report."""

    origin: str
    """The sources of the numbers, in a sentence."""
    remarks: Mapping[str, Sequence[str]]
    """Remarks on the comparisons: lines by title."""
    tables: Sequence[Table]
    pictures: Sequence[Picture]
    maps: Mapping[str, Mapping[str, Any]]
    """Plotly figures of space maps by benchmark, as JSON data."""

    def files(self) -> dict[str, bytes]:
        """Return the files: HTML page, Markdown, figures as PNG and SVG, tables as CSV."""
        pngs = {picture.title: png(picture.figure) for picture in self.pictures}
        out = {f"figures/{identifier(title)}.png": data for title, data in pngs.items()}
        out |= {f"figures/{identifier(p.title)}.svg": svg(p.figure) for p in self.pictures}
        for t in self.tables:
            rows = [dict(zip(t.columns, row, strict=True)) for row in t.rows]
            out[f"tables/{identifier(t.name)}.csv"] = artifacts.to_csv(rows)
        out["report.md"] = self.rendered("report.md.j2", escaped=False).encode()
        out["index.html"] = self.rendered("page.html.j2", escaped=True, pngs=pngs).encode()
        return out

    def rendered(self, template: str, escaped: bool, pngs: Mapping[str, bytes] | None = None) -> str:
        """Return a rendered template of this folder; `pngs` are the pictures to embed, by title."""
        from plotly.offline import get_plotlyjs

        environment = Environment(autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"id": identifier, "markdown": lambda t: artifacts.to_markdown(t.columns, t.rows)}
        text = (files("lissnas.stages.report") / template).read_text(encoding="utf-8")
        return environment.from_string(text).render(
            page=self,
            paper=PAPER,
            pngs={title: base64.b64encode(data).decode() for title, data in (pngs or {}).items()},
            plotly_js=get_plotlyjs() if self.maps else "",
        )


def identifier(text: str) -> str:
    """Return a title as an identifier for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
