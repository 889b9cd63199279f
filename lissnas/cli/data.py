"""The `lissnas data` command: write a benchmark's table, import official files, list what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lissnas.cli.options import ForceOption
from lissnas.core import process
from lissnas.core.errors import LissnasError

app = typer.Typer(invoke_without_command=True)
KINDS = "nasbench101, nasbench201, transnas, nasbench301"
"""The names of `official.KINDS`, which takes a second to import."""

FolderOption = Annotated[
    Path | None, typer.Option("--to", help="Folder of imported data; else $LISSNAS_DATA, else the user's data folder.")
]


@app.callback()
def _data(
    context: typer.Context,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`); required to write a table.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; required to write a table.")] = None,
    force: ForceOption = False,
) -> None:
    """Write a benchmark's table: every architecture, its key and its true value."""
    given = {"benchmark": benchmark, "out": out}
    if context.invoked_subcommand is not None:
        if any(given.values()) or force:
            context.fail(f"Options go after the word {context.invoked_subcommand}.")
        return
    if benchmark is None or out is None:
        context.fail(f"Missing option '--{next(name for name, value in given.items() if value is None)}'.")
    from lissnas.cli import render
    from lissnas.shrinkers import description
    from lissnas.stages.prepare import data_stage

    render.show_data(data_stage(description.load(benchmark, None, {}, None)[1], out, force=force))


@app.command("import")
def _import(
    kind: Annotated[str, typer.Argument(metavar="BENCHMARK", help=f"One of {KINDS}.")],
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The official file, or the folder that it was unpacked to.")
    ],
    to: FolderOption = None,
    force: ForceOption = False,
) -> None:
    """Convert an official benchmark file, so that all of its metrics can be selected."""
    from lissnas.artifacts.stage_run import run
    from lissnas.benchmarks import official
    from lissnas.benchmarks.official import layout
    from lissnas.cli import render

    layout.check_kind(kind, official.KINDS)
    root = to or official.data_root()
    with render.lines(f"reading {file}") as line:
        line("checksum")
        found = official.digests(file)
        line("content")
        outcome = run(
            root / kind,
            official.parameters(kind, found),
            lambda: official.convert(kind, file, found),
            force,
        )
    said = dict(outcome.metrics)
    process.say(f"{said['source']}: sha256 {said['source_sha256']}, {said['checked']}")
    for text in _contents(said):
        process.say(text)
    if outcome.reused:
        process.out.print("Nothing was done: the same file was imported before.")
    process.say(f"Files: {outcome.location}")
    if root.resolve() != official.data_root().resolve():
        process.say(f"To use them: export LISSNAS_DATA={root.resolve()}")


@app.command("list")
def _list(
    to: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """List packaged tables, imported files, and where to get the others."""
    from lissnas import artifacts, benchmarks
    from lissnas.benchmarks import official

    root = to or official.data_root()
    packaged = [
        {"name": b.name, "networks": len(b.keys), "metric": b.metric, "licence": b.licence}
        for b in map(benchmarks.get, benchmarks.names())
    ]
    found = [_imported(root / kind) for kind in official.KINDS if (root / kind / artifacts.MANIFEST).exists()]
    obtainable = [
        vars(s) | {"checksum": s.checksum, "command": f"lissnas data import {s.benchmark} {s.file}"}
        for s in official.SOURCES
    ]
    if as_json:
        print(
            json.dumps(
                {"packaged": packaged, "imported": found, "obtainable": obtainable, "folder": str(root)}, indent=2
            )
        )
        return
    _show(packaged, found, obtainable, root)


def _imported(folder: Path) -> dict[str, Any]:
    """Return what was imported to a folder, or what is wrong with it."""
    from lissnas.benchmarks.official.select import about

    try:
        return {"path": str(folder), **about(folder)}
    except LissnasError as error:
        return {"path": str(folder), "benchmark": folder.name, "problem": str(error)}


def _contents(said: dict[str, Any]) -> list[str]:
    """Return a line about each table of an import, or its models."""
    from lissnas.benchmarks.official import layout

    if "models" in said:
        return [f"{said['models']} models of {said['features']} features"]
    alike: dict[str, list[str]] = {}
    for name, table in said["tables"].items():
        alike.setdefault(f"{table['networks']:,} networks; {layout.describe(table['metrics'])}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in alike.items()]


def _show(
    packaged: list[dict[str, Any]], found: list[dict[str, Any]], obtainable: list[dict[str, str]], root: Path
) -> None:
    from lissnas.cli import render

    rows = [{"packaged": row["name"], **row, "networks": f"{row['networks']:,}"} for row in packaged]
    shown = [{name: row[name] for name in ("packaged", "networks", "metric", "licence")} for row in rows]
    process.out.print(render.table_of("", shown, ("packaged", "metric", "licence")))
    process.say(f"Imported to {root}:" + ("" if found else " nothing yet"))
    for said in found:
        if "problem" in said:
            process.say(f"  {said['benchmark']}: {said['problem']}")
            continue
        origin = f"from {said['source']}, sha256 {said['source_sha256']}, {said['checked']}"
        text = f"  {said['benchmark']} ({said['path']}) {origin}"
        process.say(text)
        for line in _contents(said):
            process.say(f"    {line}")
    process.out.print("Select with NAME@SPLIT/RUN/EPOCHS, e.g. nasbench101@val/max/108. How to get official files:")
    for row in obtainable:
        note = f" ({row['note']})" if row["note"] else ""
        process.say(f"  {row['file']}{note}, {row['size']}, licence {row['licence']}, {row['checksum']}")
        process.say(f"    {row['address']}")
        process.say(f"    {row['command']}")
