"""The whole method on one benchmark in one flow run: shrink, supernet, search, retrain.

python -m flows.nas --benchmark nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows import pools
from flows.common import DATA, log_to_mlflow, main
from flows.retrain import retrain
from flows.search import search
from flows.shrink import run_as_task
from flows.supernet import supernet
from lissnas.artifacts.stage_run import Outcome, finished
from lissnas.benchmarks import Benchmark
from lissnas.cli import render
from lissnas.cli.options import BenchmarkOption, ForceOption, SearchSettings, SeedOption, TableOption, with_options
from lissnas.config import ParamFiles, Params, sized
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import Source
from lissnas.stages.one_shot import check, check_settings, trains
from lissnas.stages.shrink import shrink_stage


@flow(name="nas", flow_run_name="nas {benchmark} seed {seed}", persist_result=False)
def nas(
    benchmark: str,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
) -> tuple[Outcome, Outcome | None, list[str]]:
    """Shrink `benchmark`, search in what is left, retrain the best; return what search and retraining left."""
    checked, source = _prepared(benchmark, params, table, overrides or {})
    folder = out or DATA / "nas" / benchmark / f"seed-{seed}"
    logger, group = get_run_logger(), f"nas {benchmark} seed {seed}"
    shrunk = shrink_stage(
        checked,
        Source.of(source),
        seed,
        folder / "shrunk",
        call=run_as_task,
        on_iteration=lambda state: logger.info(render.iteration_line(state)),
        force=force,
    )
    stages = [("shrink", shrunk)]
    given = {"benchmark": benchmark, "seed": seed, "params": params, "overrides": overrides, "force": force}
    subspace, searched, trained = folder / "shrunk", folder / "search", None
    if checked.search.oracle == "supernet":
        trained = searched / "supernet"
        pools.run_training(supernet, {**given, "subspace": subspace, "out": trained, "group": group})
        stages.append(("supernet", finished(trained)))
    asked = {"subspace": subspace, "supernet": trained, "table": table}
    pools.run_training(search, {**given, **asked, "out": searched, "group": group})
    found, best = finished(searched), None
    stages.append(("search", found))
    if checked.retrain.networks:
        asked = {"found": searched, "table": table}
        pools.run_training(retrain, {**given, **asked, "out": searched / "best", "group": group})
        best = finished(searched / "best")
        stages.append(("retrain", best))
    # What a training flow has logged is found here, and linked to from this run's page too.
    return found, best, [log_to_mlflow(stage, outcome, seed, group) for stage, outcome in stages]


def _prepared(
    benchmark: str, params: ParamFiles, table: Path | None, overrides: dict[str, Any]
) -> tuple[Params, Benchmark]:
    """Return parameters and benchmark; raises UserError for what training will not take, before anything is shrunk."""
    checked, source = description.load(benchmark, params, overrides, table)
    own = sized(checked, benchmark)
    if trains(own):
        (check_settings if pools.configured() else check)(own, source.space)
    return checked, source


@with_options
def command(
    benchmark: BenchmarkOption,
    settings: SearchSettings,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; else data/nas/...")] = None,
    table: TableOption = None,
    force: ForceOption = False,
) -> None:
    """Shrink, search and retrain in one Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    _prepared(benchmark, params, table, overrides)
    found, best, places = nas(benchmark, seed, out, params, table, overrides, force)
    render.show_search(found, best)
    for place in places:
        process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
