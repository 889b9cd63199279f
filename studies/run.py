"""Run a study by name, and write its rows and its page to `studies/results`."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from lissnas import artifacts
from lissnas.config import Params
from lissnas.core import process
from lissnas.core.errors import UnknownName
from lissnas.shrinkers import description

WORK = Path("data/study")
"""Folder of intermediate results, from which studies resume."""
RESULTS = Path("studies/results")

Rows = Sequence[Mapping[str, Any]]
Study = Callable[[], tuple[Rows, str]]
"""A function that computes missing results and returns the rows of a CSV file and a page in Markdown."""


def study_params(overrides: Mapping[str, Any] | None = None) -> Params:
    """Return the validated parameters of the studies."""
    return description.load_params((Path("params.yaml"), Path("params.study.yaml")), overrides)


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows (mappings of column name to text) as a Markdown table."""
    cells = list(rows)
    return artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells])


def run_study(studies: Mapping[str, Study]) -> None:
    """Parse the command line and run the named study."""

    def command(name: Annotated[str, typer.Option(help=f"Name of the study: {', '.join(studies)}.")]) -> None:
        """Run or resume a study, and write studies/results/NAME.csv and NAME.md."""
        if name not in studies:
            raise UnknownName("study", name, studies)
        rows, page = studies[name]()
        made = f"on {platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC).date()}"
        artifacts.write(RESULTS / f"{name}.csv", artifacts.to_csv(rows))
        artifacts.write(RESULTS / f"{name}.md", f"Made by `make study NAME={name}` {made}.\n\n{page}\n".encode())
        process.say(f"{RESULTS / name}.md, {RESULTS / name}.csv")

    process.run(lambda: typer.run(command))
