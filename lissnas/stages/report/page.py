"""Render the report as linked HTML pages and as a Markdown file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from typing import Any

from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from lissnas import artifacts
from lissnas.plots.figures import png, svg
from lissnas.stages.report.overview import Overview
from lissnas.stages.report.paper import PAPER
from lissnas.stages.report.tables import Table

INDEX = "index.html"
PLOTLY = "pages/plotly.min.js"
"""The script of the maps, shared by all pages."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    title: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Page:
    """A page of the report: a benchmark, or a table of the paper."""

    group: str
    """Title of its group in the list of pages."""
    name: str
    title: str
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    """Remarks on the tables, a list."""
    pictures: Sequence[Picture] = ()
    map: Mapping[str, Any] | None = None
    """A plotly figure of the space, as JSON data."""

    @property
    def file(self) -> str:
        """Its place in the report."""
        return f"pages/{identifier(self.name)}.html"


@dataclass(frozen=True)
class Report:
    """The content of the report."""

    origin: str
    """The sources of the numbers, in a sentence."""
    picture: Picture
    """A space being shrunk."""
    overview: Overview
    pages: Sequence[Page]

    @property
    def groups(self) -> list[tuple[str, list[Page]]]:
        """The pages by group, in order."""
        return [(name, list(pages)) for name, pages in groupby(self.pages, lambda page: page.group)]

    @property
    def pictures(self) -> list[Picture]:
        """The pictures of all pages; the first page shows one of them."""
        return [picture for page in self.pages for picture in page.pictures]

    @property
    def tables(self) -> list[Table]:
        """The overview, and the tables of all pages."""
        return [self.overview.table, *(table for page in self.pages for table in page.tables)]

    def files(self) -> dict[str, bytes]:
        """Return the files: HTML pages and their script, Markdown, figures as PNG and SVG, tables as CSV."""
        from plotly.offline import get_plotlyjs

        svgs = {picture.title: svg(picture.figure) for picture in self.pictures}
        out = {f"figures/{identifier(title)}.svg": data for title, data in svgs.items()}
        out |= {f"figures/{identifier(picture.title)}.png": png(picture.figure) for picture in self.pictures}
        for t in self.tables:
            rows = [dict(zip(t.columns, row, strict=True)) for row in t.rows]
            out[f"tables/{identifier(t.name)}.csv"] = artifacts.to_csv(rows)
        out["report.md"] = self.rendered("report.md.j2", escaped=False).encode()
        # Inline pictures show names on hover, and make a page complete without other files.
        inline = {title: data[data.index(b"<svg") :].decode() for title, data in svgs.items()}
        for page in (None, *self.pages):
            file = INDEX if page is None else page.file
            out[file] = self.rendered("page.html.j2", escaped=True, page=page, svgs=inline).encode()
        return out | {PLOTLY: get_plotlyjs().encode()}

    def rendered(
        self, template: str, escaped: bool, page: Page | None = None, svgs: Mapping[str, str] | None = None
    ) -> str:
        """Return a rendered template of this folder, of the first page without `page`; `svgs` are pictures by title."""
        environment = Environment(autoescape=escaped, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        environment.filters |= {"id": identifier, "markdown": lambda t: artifacts.to_markdown(t.columns, t.rows)}
        text = (files("lissnas.stages.report") / template).read_text(encoding="utf-8")
        return environment.from_string(text).render(report=self, page=page, paper=PAPER, svgs=svgs)


def identifier(text: str) -> str:
    """Return a title as an identifier for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
