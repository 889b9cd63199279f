"""The `lissnas data` command: write a benchmark's table, import official files, list tables and sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from lissnas.cli.options import ForceOption, out_option
from lissnas.core import process
from lissnas.core.errors import LissnasError

app = typer.Typer(invoke_without_command=True)
KINDS = "nasbench101, nasbench201, transnas, nasbench301"
"""The names in `official.KINDS`, repeated here because its import takes a second."""

FolderOption = Annotated[
    Path | None, typer.Option("--to", help="Folder of imported data. Default: $LISSNAS_DATA, else in the user folder.")
]


@app.callback()
def _data(
    context: typer.Context,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`); required to write a table.")
    ] = None,
    out: Annotated[Path | None, out_option("Output folder; required to write a table.")] = None,
    force: ForceOption = False,
) -> None:
    """Write a benchmark's table: each architecture with its key and its true value."""
    given = {"benchmark": benchmark, "out": out}
    if context.invoked_subcommand is not None:
        if any(given.values()) or force:
            context.fail(f"Options go after the subcommand {context.invoked_subcommand}.")
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
        Path, typer.Argument(metavar="FILE", help="The official file, or the folder that it was extracted to.")
    ],
    to: FolderOption = None,
    force: ForceOption = False,
) -> None:
    """Import an official benchmark file with all its metrics."""
    from lissnas.artifacts.ownership import check_folder
    from lissnas.artifacts.stage_run import run
    from lissnas.benchmarks import official
    from lissnas.benchmarks.official import layout
    from lissnas.cli import render

    layout.check_kind(kind, official.KINDS)
    root = to or official.data_root()
    check_folder(root / kind)
    with render.lines(f"reading {file}") as line:
        line("checksum")
        found = official.digests(file)
        line("content")
        outcome = run(
            root / kind,
            official.parameters(kind, found),
            lambda: official.convert(kind, file, found),
            force,
            writes=(layout.ABOUT,),
        )
    imported = dict(outcome.metrics)
    process.say(f"{imported['source']}: sha256 {imported['source_sha256']}, {imported['checked']}")
    for text in _contents(imported):
        process.say(text)
    if outcome.reused:
        process.out.print("Nothing was done: this file is imported already.")
    process.say(f"Files: {outcome.location}")
    if root.resolve() != official.data_root().resolve():
        process.say(f"To use them: export LISSNAS_DATA={root.resolve()}")


@app.command("list")
def _list(
    to: FolderOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """List packaged tables, imported files, and the sources of the other official files."""
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
    """Return the description of an imported folder, or its problem."""
    from lissnas.benchmarks.official.select import about

    try:
        return {"path": str(folder), **about(folder)}
    except LissnasError as error:
        return {"path": str(folder), "benchmark": folder.name, "problem": str(error)}


def _contents(imported: dict[str, Any]) -> list[str]:
    """Return a line for each table of an import, or for its models."""
    from lissnas.benchmarks.official import layout

    if "models" in imported:
        return [f"{imported['models']} models of {imported['features']} features"]
    groups: dict[str, list[str]] = {}
    for name, table in imported["tables"].items():
        groups.setdefault(f"{table['networks']:,} networks; {layout.describe(table['metrics'])}", []).append(name)
    return [f"{', '.join(names)}: {text}" for text, names in groups.items()]


def _show(
    packaged: list[dict[str, Any]], found: list[dict[str, Any]], obtainable: list[dict[str, str]], root: Path
) -> None:
    from lissnas.cli import render

    rows = [{"packaged": row["name"], **row, "networks": f"{row['networks']:,}"} for row in packaged]
    shown = [{name: row[name] for name in ("packaged", "networks", "metric", "licence")} for row in rows]
    render.print_table(render.table_of("", shown, ("packaged", "metric", "licence")))
    process.say(f"Imported to {root}:" + ("" if found else " nothing yet"))
    for one in found:
        if "problem" in one:
            process.say(f"  {one['benchmark']}: {one['problem']}")
            continue
        origin = f"from {one['source']}, sha256 {one['source_sha256']}, {one['checked']}"
        process.say(f"  {one['benchmark']} ({one['path']}) {origin}")
        for line in _contents(one):
            process.say(f"    {line}")
    process.out.print("Select a metric with NAME@SPLIT/RUN/EPOCHS, e.g. nasbench101@val/max/108. Official files:")
    for row in obtainable:
        note = f" ({row['note']})" if row["note"] else ""
        process.say(f"  {row['file']}{note}, {row['size']}, licence {row['licence']}, {row['checksum']}")
        process.say(f"    {row['address']}")
        process.say(f"    {row['command']}")
