"""Train the best networks of a search from scratch, and export the best of them.

python -m flows.retrain --benchmark nas_bench_macro --found data/search/nas_bench_macro
torchrun --nproc-per-node 8 -m flows.retrain ...     (one process a GPU, each batch shared)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow

from flows.common import (
    DATA,
    limit_gpu_tasks,
    log_to_mlflow,
    main,
    one_shot_group,
    table_artifact,
    train_step,
    training_log,
)
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import ForceOption, RetrainSettings, SearchedOption, SeedOption, TableOption, with_options
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.nets import parallel
from lissnas.shrinkers import description
from lissnas.stages.one_shot import check
from lissnas.stages.retrain import retrain_stage

FoundOption = Annotated[Path, typer.Option(help="Folder of a finished search.")]


@flow(name="retrain", flow_run_name="retrain {benchmark} seed {seed}", persist_result=False)
def retrain(
    benchmark: str,
    found: Path,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Retrain the best of the search in `found` into `out`, log it to MLflow."""
    checked, space, truth = description.load_searched(benchmark, params, overrides or {}, table)
    limit_gpu_tasks()
    outcome = retrain_stage(
        checked,
        space.name,
        found,
        seed,
        out or DATA / "retrain" / benchmark,
        truth,
        train_step,
        training_log(),
        force,
    )
    table_artifact(f"retrained {benchmark} seed {seed}", outcome.csv("retrained.csv"), "Networks trained from scratch")
    return outcome, log_to_mlflow("retrain", outcome, seed, group or one_shot_group(benchmark, seed))


@with_options
def command(
    benchmark: SearchedOption,
    found: FoundOption,
    settings: RetrainSettings,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/retrain/...")] = None,
    table: TableOption = None,
    force: ForceOption = False,
) -> None:
    """Retrain the best networks in a Prefect flow run, logged to MLflow; several processes by torchrun."""
    params, overrides = settings.params, settings.overrides()
    checked, space, truth = description.load_searched(benchmark, params, overrides, table)
    check(checked, space)
    folder = out or DATA / "retrain" / benchmark
    with parallel.process_group():
        if not parallel.leads():
            retrain_stage(checked, space.name, found, seed, folder, truth)
            return
        outcome, place = retrain(benchmark, found, seed, folder, params, table, overrides, force)
    render.show_retrained(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
