"""The `lissnas` command: each subcommand calls a stage. Heavy imports are inside the functions."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from lissnas.cli import data as data_module
from lissnas.cli import options, user_space
from lissnas.core import process
from lissnas.core.errors import UserError, need_torch
from lissnas.version import __version__

app = typer.Typer(
    help="Shrink a neural architecture search space to a small, diverse subspace that is dense in good architectures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

MIN_HELP_WIDTH = 80
"""Width of the help, in characters, in which all options can be read."""


def _version(requested: bool) -> None:
    if requested:
        process.out.print(f"lissnas {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("shrink")
@options.with_options
def _shrink(
    source: options.SourceOptions,
    out: options.OutOption,
    settings: options.ShrinkSettings,
    seed: options.SeedOption = 0,
    method: options.MethodOption = None,
    locality: options.LocalityOption = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
    keep_failed: options.KeepFailedOption = False,
    reuse_answers: options.ReuseAnswersOption = False,
) -> None:
    """Shrink a benchmark's space or a custom space. After an interruption, the same command resumes."""
    from lissnas.cli import render
    from lissnas.oracles.reuse import Reuse
    from lissnas.shrinkers.alone import check_method
    from lissnas.shrinkers.description import Description
    from lissnas.stages.shrink import shrink_stage

    check_method(method)
    reuse = Reuse(force, keep_failed, reuse_answers, render.note)
    checked, shrunk = Description(**vars(source)).load(settings.params, settings.overrides(), out, reuse)
    with render.progress(f"shrinking {shrunk.name}") as after_iteration:
        outcome = shrink_stage(
            *(checked, shrunk, seed, out, locality, method),
            on_iteration=after_iteration,
            force=force,
            threads=threads,
        )
    render.show_shrink(outcome)
    render.show_reuse(reuse)


@app.command("locality")
@options.with_options
def _locality(
    source: options.SourceOptions,
    out: options.OutOption,
    settings: options.Settings,
    predictor: options.PredictorOption = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> None:
    """Measure the locality of a space: correlation of accuracy by edit distance, and the threshold distance."""
    from lissnas.cli import render
    from lissnas.predictors.accuracy import predictor_in
    from lissnas.shrinkers.description import Description
    from lissnas.shrinkers.own_table import benchmark_of
    from lissnas.stages.locality import locality_stage

    checked, measured = Description(**vars(source)).load(settings.params, settings.overrides(), out)
    table = benchmark_of(measured, predicted=predictor is not None)
    model = None if predictor is None else predictor_in(predictor, table.space)
    with render.lines(f"locality of {table.name}") as on_progress:
        outcome = locality_stage(
            checked, table, out, on_progress=on_progress, force=force, predictor=model, threads=threads
        )
    render.show_locality(outcome)


@app.command("compare")
@options.with_options
def _compare(
    source: options.SourceOptions,
    out: options.OutOption,
    settings: options.ShrinkSettings,
    methods: options.MethodsOption = None,
    method: options.MoreMethodsOption = None,
    seeds: options.SeedsOption = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> None:
    """Compare shrinkers with equal predictor, query budget and size. After an interruption, the same command resumes.

    The space is a benchmark's (evaluated by its table) or a custom one, evaluated by its labels or a surrogate model.
    If only some networks have labels, the predictor learns from a part, and methods are evaluated on the others.
    """
    from lissnas.cli import render
    from lissnas.shrinkers.comparison import source_of
    from lissnas.shrinkers.description import Description
    from lissnas.shrinkers.methods import chosen
    from lissnas.stages.compare import compare_stage

    overrides = settings.overrides(options.comparison_overrides(methods, seeds))
    checked, compared = Description(**vars(source)).load(settings.params, overrides, out)
    names = chosen(checked.compare.methods, source_of(compared), method or (), required=methods is not None)
    with render.lines(f"comparing on {compared.name}") as on_progress:
        outcome = compare_stage(
            checked,
            compared,
            names,
            checked.pipeline.seeds,
            out,
            on_progress=on_progress,
            force=force,
            threads=threads,
        )
    render.show_comparison(outcome)


@app.command("search")
@options.with_options
def _search(
    source: options.SourceOptions,
    out: options.OutOption,
    settings: options.SearchSettings,
    subspace: Annotated[
        Path | None,
        typer.Option(help="Folder of a finished shrink, or its subspace.parquet. Default: the space."),
    ] = None,
    n: Annotated[
        int | None, typer.Option(min=0, max=options.MAX_SUGGESTED, help="Networks to evaluate by the oracle.")
    ] = None,
    seed: options.SeedOption = 0,
    supernet: options.SupernetOption = None,
    force: options.ForceOption = False,
    keep_failed: options.KeepFailedOption = False,
    reuse_answers: options.ReuseAnswersOption = False,
) -> None:
    """Find the best network of a space, or of a shrunk space.

    With --space, or --n evaluations of a benchmark: from labels, and by a search that requests more of them. Otherwise,
    in the shrunk space of a benchmark: by a supernet that is trained on it, with the labels and the predictor of the
    shrink; the best networks are trained from scratch. After an interruption, the same command resumes.
    """
    from lissnas.cli import render
    from lissnas.shrinkers import description

    if source.space is not None or n is not None:
        from lissnas.oracles.reuse import Reuse
        from lissnas.spaces.members import read_subspace
        from lissnas.stages.find import find_stage

        trains: dict[str, Any] = {"supernet": supernet, "by": settings.by, "networks": settings.networks}
        trains |= {"max-mflops": settings.max_mflops, "max-mparams": settings.max_mparams}
        if alone := [name for name, value in trains.items() if value is not None]:
            raise UserError(f"--{alone[0]} belongs to a search by a supernet: --benchmark and --subspace, without --n")
        reuse = Reuse(force, keep_failed, reuse_answers, render.note)
        given = description.Description(**vars(source))
        checked, found_in = given.load(settings.params, settings.overrides(), out, reuse)
        searched = found_in.space if subspace is None else read_subspace(subspace, found_in.space)
        with render.lines(f"searching {found_in.name}") as line:
            outcome = find_stage(
                *(checked, found_in, searched, n or 0, seed, out),
                on_batch=lambda h: line(render.search_line(h)),
                force=force,
            )
        render.show_found(outcome)
        render.show_reuse(reuse)
        return
    benchmark = source.benchmark
    if benchmark is None or subspace is None:
        raise UserError("give --space with --labels or an oracle, or --benchmark with --subspace or --n")
    need_torch("lissnas search without --n")
    from lissnas.stages.one_shot import one_shot

    overrides = settings.overrides()
    checked, space, truth = description.load_searched(benchmark, settings.params, overrides, source.table)
    with render.lines(f"searching {benchmark}") as line:
        found, best = one_shot(
            *(checked, space, truth, subspace, seed, out, supernet),
            on_training=lambda what, p: line(render.training_line(what, p)),
            on_generation=lambda h: line(render.search_line(h)),
            force=force,
        )
    render.show_search(found, best)


@app.command("report")
@options.with_options
def _report(
    settings: options.Settings,
    out: options.OutOption = Path("report"),
    data: Annotated[Path, typer.Option(help="Folder with the results compare/ and locality/.")] = Path("data"),
    results: Annotated[Path, typer.Option(help="Folder with the results of long studies, optional.")] = Path(
        "studies/results"
    ),
    force: options.ForceOption = False,
) -> None:
    """Write the report: the paper's tables and figures, computed from real data, next to the published values."""
    from lissnas.cli import render
    from lissnas.shrinkers import description
    from lissnas.stages.report.stage import report_stage

    checked = description.load_params(settings.params, settings.overrides())
    with render.lines("making the report") as on_progress:
        outcome = report_stage(checked, data, results, out, on_progress=on_progress, force=force)
    render.show_report(outcome)


app.add_typer(data_module.app, name="data")
app.add_typer(user_space.app)


@app.command("show")
def _show(folder: Annotated[Path, typer.Argument(help="Folder of a finished shrink.")]) -> None:
    """Verify a finished shrink and print its summary and its MLflow run."""
    from lissnas.artifacts.stage_run import finished
    from lissnas.cli import render

    outcome = finished(folder)
    if not (outcome.folder / "subspace.json").exists():
        raise UserError(f"{outcome.location} holds no shrunk space; `lissnas verify` checks results of all kinds")
    render.show_shrink(outcome)
    if find_spec("mlflow"):
        from lissnas import tracking

        if (place := tracking.find(outcome.folder)) is not None:
            process.say(f"MLflow: {place}")


@app.command("verify")
def _verify(
    path: Annotated[Path, typer.Argument(help="A result, a file in it, a folder of results, or s3://bucket/prefix.")],
) -> None:
    """Verify results, checkpoints and label logs against their checksums; exit code 1 if any is damaged."""
    from lissnas.artifacts.verification import verified

    count, damaged = Counter[str](), False
    for one in verified(path):
        count[one.kind] += not one.damages
        for damage in one.damages:
            damaged = True
            process.say(str(damage))
    process.out.print(
        "sound: " + (", ".join(f"{n:,} {kind}{'s' if n > 1 else ''}" for kind, n in count.items() if n) or "nothing")
    )
    if damaged:
        raise typer.Exit(1)


@app.command("sync")
def _sync() -> None:
    """Send MLflow the records that it lacks, with their times, and end the runs of dead processes."""
    if not find_spec("mlflow"):
        raise UserError("lissnas sync needs MLflow; install it: pip install 'lissnas[pipeline]'")
    from lissnas.tracking import pending

    logged = []
    for about, place, is_logged in pending.sync():
        process.say(f"{'logged' if is_logged else 'not logged'}: {about['stage']} in {about['folder']}: {place}")
        logged.append(is_logged)
    if not logged:
        process.say(f"nothing is left to log in {pending.RECORDS.absolute()}")
    if not all(logged):
        raise typer.Exit(1)


@app.command("spaces")
def _spaces(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON only.")] = False,
) -> None:
    """List the spaces, their sizes (architectures; for AnyNetX descriptions) and their benchmarks."""
    from lissnas import benchmarks, spaces
    from lissnas.cli import render

    rows: list[dict[str, Any]] = [
        {
            "name": s.name,
            "size": s.size(),
            "size_exact": s.size_exact,
            "genome_len": s.genome_len,
            "source": s.source,
        }
        for s in map(spaces.get, spaces.names())
    ]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    shown = [
        {
            "space": row["name"],
            "architectures": render.count_text(row["size"]) + ("" if row["size_exact"] else " descriptions"),
            "benchmarks": ", ".join(
                n.partition("/")[2] or n for n in benchmarks.names() if benchmarks.space_of(n) == row["name"]
            ),
            "source": str(row["source"]),
        }
        for row in rows
    ]
    render.print_table(render.table_of("", shown, ("space", "benchmarks", "source")))


@app.command("doctor")
def _doctor() -> None:
    """Check packages, packaged data, parameters, servers and disk, and print how to fix each problem."""
    from rich.table import Table
    from rich.text import Text

    from lissnas.cli import render
    from lissnas.cli.doctor import check_all

    table = Table()
    for name in ("", "check", "found", "what to do"):
        table.add_column(name, no_wrap=name in ("", "check"), overflow="fold")
    mark = {True: Text("ok", "green"), False: Text("wrong", "red"), None: Text("missing", "yellow")}
    checks = check_all()
    for check in checks:
        table.add_row(mark[check.sound], *map(Text, (check.what, check.found, check.fix)))
    render.print_table(table)
    if any(check.sound is False for check in checks):
        raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    if shutil.get_terminal_size().columns < MIN_HELP_WIDTH:
        os.environ.setdefault("TERMINAL_WIDTH", str(MIN_HELP_WIDTH))  # Typer would cut the names of options
    process.run(app)
