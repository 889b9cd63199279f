"""The whole method on one benchmark in one flow run: shrink, supernet, search, retrain.

python -m flows.nas --benchmark nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows import pools
from flows.common import DATA, limit_gpu_tasks, log_to_mlflow, main, table_artifact, train_step, training_log
from flows.shrink import run_as_task
from lissnas import console, options
from lissnas.config import sized
from lissnas.options import (
    BenchmarkOption,
    ForceOption,
    ParamsOption,
    SeedOption,
    TableOption,
    with_config_options,
)
from lissnas.sources import Source
from lissnas.stages.base import Outcome, finished
from lissnas.stages.one_shot import Watch, one_shot
from lissnas.stages.search import TOP
from lissnas.stages.shrink import shrink_stage


@flow(name="nas", flow_run_name="nas {benchmark} seed {seed}", persist_result=False)
def nas(
    benchmark: str,
    seed: int = 0,
    out: Path | None = None,
    params: Path | None = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
) -> tuple[Outcome, Outcome | None, list[str]]:
    """Shrink `benchmark`, search in what is left, retrain the best; return what search and retraining left."""
    checked, source = options.load(benchmark, params, overrides or {}, table)
    folder = out or DATA / "nas" / benchmark / f"seed-{seed}"
    logger = get_run_logger()
    limit_gpu_tasks()
    shrunk = shrink_stage(
        checked,
        Source.of(source),
        seed,
        folder / "shrunk",
        call=run_as_task,
        on_iteration=lambda state: logger.info(console.iteration_line(state)),
        force=force,
    )
    trained, found = folder / "search" / "supernet", folder / "search"
    if pools.configured():
        given = {"benchmark": benchmark, "seed": seed, "params": params, "overrides": overrides, "force": force}
        subspace = {"subspace": folder / "shrunk", "table": table}
        if checked.search.oracle == "supernet":
            pools.run_on_pool("supernet", {**given, "subspace": folder / "shrunk", "out": trained})
            subspace["supernet"] = trained
        pools.run_on_pool("search", {**given, **subspace, "out": found})
        search, best = finished(found), None
        if checked.retrain.networks:
            pools.run_on_pool("retrain", {**given, "table": table, "found": found, "out": found / "best"})
            best = finished(found / "best")
    else:
        watch = Watch(training_log(), lambda history: logger.info(console.search_line(history)))
        search, best = one_shot(
            sized(checked, benchmark),
            source.space,
            source,
            folder / "shrunk",
            seed,
            found,
            None,
            train_step,
            watch,
            force,
        )
    table_artifact(f"found {benchmark} seed {seed}", search.json(TOP), f"The best networks of {benchmark}")
    stages = [("shrink", shrunk), ("search", search), *([("retrain", best)] if best else [])]
    if trained.exists():
        stages.insert(1, ("supernet", finished(trained)))
    group = f"nas {benchmark} seed {seed}"
    return search, best, [log_to_mlflow(stage, outcome, seed, group) for stage, outcome in stages]


@with_config_options("search")
def command(
    benchmark: BenchmarkOption,
    overrides: dict[str, Any],
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the results; else data/nas/...")] = None,
    params: ParamsOption = None,
    table: TableOption = None,
    force: ForceOption = False,
) -> None:
    """Shrink, search and retrain in one Prefect flow run, logged to MLflow."""
    options.load(benchmark, params, overrides, table)
    search, best, places = nas(benchmark, seed, out, params, table, overrides, force)
    console.show_search(search, best)
    for place in places:
        console.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
