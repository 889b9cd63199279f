"""Commands for custom spaces: `init` writes example files, `suggest` selects the next networks to train."""

from __future__ import annotations

import csv
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from lissnas.cli import options
from lissnas.cli.options import SeedOption, Settings, ThreadsOption, with_options
from lissnas.core import process
from lissnas.core.errors import UserError

app = typer.Typer()

EXAMPLE = ("space.yaml", "labels.csv")
"""The files that `lissnas init` copies from the package's folder `example`."""


@app.command("init")
def _init(folder: Annotated[Path, typer.Argument(metavar="DIR", help="Output folder.")]) -> None:
    """Write an example of a custom space, space.yaml and labels.csv, that is ready to shrink."""
    from lissnas import artifacts

    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose a folder")
    if there := [name for name in EXAMPLE if (folder / name).exists()]:
        raise UserError(f"{folder / there[0]} exists and is not replaced; choose another folder")
    for name in EXAMPLE:
        artifacts.write(folder / name, (files("lissnas") / "example" / name).read_bytes())
    space, labels, shrunk, chosen = (shlex.quote(str(folder / name)) for name in (*EXAMPLE, "shrunk", "next.csv"))
    given = f"--space {space} --labels {labels}"
    process.say(f"Files: {folder}: {EXAMPLE[0]}, commented; {EXAMPLE[1]}, example data from a formula, not measured.")
    process.say(f"Shrink the space:    lissnas shrink {given} --out {shrunk}")
    process.say(f"What to train next:  lissnas suggest {given} --n 50 --out {chosen}")


@app.command("suggest")
@with_options
def _suggest(
    space: Annotated[str, typer.Option(help="A space.yaml file, or the name of a space.")],
    out: Annotated[Path, typer.Option(help="Output file, .csv: the columns of the labels, with an empty metric.")],
    settings: Settings,
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels so far, .csv or .parquet; an empty metric: pending. Default: draw uniformly."),
    ] = None,
    n: Annotated[int, typer.Option(min=1, max=options.MAX_SUGGESTED, help="Number of networks.")] = 50,
    metric: Annotated[str | None, typer.Option(help="Column of the metric, if there are several candidates.")] = None,
    minimize: options.MinimizeOption = None,
    goal: options.GoalOption = None,
    seed: SeedOption = 0,
    threads: ThreadsOption = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Suggest the next networks to train, none of them labelled: half of them by a search for the best network.

    The other half locates the shrunk space; `--goal` changes the shares. The first ones are uniform.
    """
    from lissnas import artifacts
    from lissnas.cli import render
    from lissnas.oracles.label_table import read_labels, read_rows, write_rows
    from lissnas.shrinkers import description
    from lissnas.shrinkers.labelling import UNIFORM, no_labels, suggest
    from lissnas.shrinkers.problem import get_space

    if out.suffix.lower() != ".csv" or out.is_dir():
        raise UserError(f"--out: expected a file that ends in .csv, found {out}")
    if labels is not None and out.exists() and labels.exists() and out.samefile(labels):
        raise UserError(f"--out: {out} is the file of the labels; choose another file, and add its rows after training")
    if out.exists() and not force:
        raise UserError(f"{out} exists; choose another file, or replace it with --force")
    found = get_space(space)
    overrides = settings.overrides() | ({} if goal is None else {"shrink.goal": goal})
    checked = description.for_space(description.load_params(settings.params, overrides), found)
    known = no_labels(found, metric, minimize)
    if labels is not None:
        known = read_labels(labels, found, metric, min_labels=0, minimize=minimize)
    with render.lines(f"choosing networks of {found.name}"):
        batch = suggest(found, known, n, checked, seed, threads)
    if out.exists() and not _is_suggestion(out, known.metric):
        raise UserError(f"{out} is not a file of suggestions ({known.metric} empty in each row); choose another file")
    header = None
    if labels is not None and labels.suffix.lower() == ".csv":
        header = read_rows(labels, found, known.metric)[0]
    artifacts.write(out, write_rows(found, batch.archs, known.metric, header))
    process.say(f"{batch.describe()}. Files: {out}")
    if len(batch) < n:
        process.say(f"Note: {n:,} were requested, but no more unlabelled networks exist.")
    have = len(known.values)
    if batch.kinds.count(UNIFORM) == len(batch) == n:
        process.say(
            f"Note: {have:,} labels are too few (or all equal) to select {n:,} networks by; these are drawn uniformly."
        )
    known_file = shlex.quote(str(labels)) if labels is not None else "labels.csv"
    process.say(f"Train them, fill in {known.metric}, add the rows to {known_file}, and then:")
    process.say(f"  lissnas shrink --space {shlex.quote(space)} --labels {known_file} --out shrunk_{have + len(batch)}")


def _is_suggestion(file: Path, metric: str) -> bool:
    """Return whether a file holds suggestions without any label, and nothing of value is lost with it."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, ValueError, csv.Error):
        return False
    return bool(rows) and all(row.get(metric) == "" for row in rows)
