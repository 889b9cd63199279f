"""Run a study by its name, and leave its rows and its page in `studies/results`."""

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
"""Where studies keep what they resume from."""
RESULTS = Path("studies/results")

Rows = Sequence[Mapping[str, Any]]
Study = Callable[[], tuple[Rows, str]]
"""Computes what it lacks, and returns the rows of a CSV file and a page in Markdown."""


def study_params(overrides: Mapping[str, Any] | None = None) -> Params:
    """Return the parameters of the studies, checked."""
    return description.load_params((Path("params.yaml"), Path("params.study.yaml")), overrides)


def table(rows: Iterable[Mapping[str, str]]) -> str:
    """Return rows, each a column's name -> text, as a Markdown table."""
    cells = list(rows)
    return artifacts.to_markdown([*cells[0]], [[*row.values()] for row in cells])


def run_study(studies: Mapping[str, Study]) -> None:
    """Run the study that the command line names."""

    def command(name: Annotated[str, typer.Option(help=f"Which study: {', '.join(studies)}.")]) -> None:
        """Run a study, from where it was, and write studies/results/NAME.csv and NAME.md."""
        if name not in studies:
            raise UnknownName("study", name, studies)
        rows, page = studies[name]()
        made = f"on {platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC).date()}"
        artifacts.write(RESULTS / f"{name}.csv", artifacts.to_csv(rows))
        artifacts.write(RESULTS / f"{name}.md", f"Made by `make study NAME={name}` {made}.\n\n{page}\n".encode())
        process.say(f"{RESULTS / name}.md, {RESULTS / name}.csv")

    process.run(lambda: typer.run(command))
