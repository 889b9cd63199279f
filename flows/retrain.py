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
    OutOption,
    command_of,
    limit_gpu_tasks,
    log_to_mlflow,
    main,
    one_shot_group,
    table_artifact,
    train_step,
    training_log,
)
from lissnas.artifacts.stage_run import Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import render
from lissnas.cli.options import ForceOption, RetrainSettings, SearchedOption, SeedOption, TableOption
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers import description
from lissnas.spaces import Space
from lissnas.stages.one_shot import check
from lissnas.stages.retrain import retrain_stage

FoundOption = Annotated[Path, typer.Option(help="Folder of a finished search.")]


def prepared(
    benchmark: str, params: ParamFiles, table: Path | None, overrides: dict[str, Any] | None
) -> tuple[Params, Space, Benchmark | None]:
    """Return checked parameters, the space, and its table if it has one; raises UserError for any mistake."""
    checked, space, truth = description.load_searched(benchmark, params, overrides, table)
    check(checked, space)
    return checked, space, truth


def join(
    benchmark: str,
    found: Path,
    seed: int,
    out: Path | None,
    params: ParamFiles,
    table: Path | None,
    overrides: dict[str, Any] | None,
) -> None:
    """Take part in the trainings that the first process of `torchrun` leads."""
    checked, space, truth = prepared(benchmark, params, table, overrides)
    retrain_stage(checked, space.name, found, seed, out or DATA / "retrain" / benchmark, truth)


@flow(name="retrain", flow_run_name="retrain {benchmark} seed {seed}", persist_result=False)
def retrain(
    benchmark: SearchedOption,
    found: FoundOption,
    seed: SeedOption = 0,
    out: OutOption = None,
    params: ParamFiles = None,
    table: TableOption = None,
    overrides: dict[str, Any] | None = None,
    force: ForceOption = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Retrain the best of the search in `found` into `out`, log it to MLflow."""
    checked, space, truth = prepared(benchmark, params, table, overrides)
    limit_gpu_tasks()
    folder, call = out or DATA / "retrain" / benchmark, train_step("retrain")
    outcome = retrain_stage(checked, space.name, found, seed, folder, truth, call, training_log(), force)
    table_artifact(f"retrained {benchmark} seed {seed}", outcome.csv("retrained.csv"), "Networks trained from scratch")
    return outcome, log_to_mlflow("retrain", outcome, seed, group or one_shot_group(benchmark, seed))


if __name__ == "__main__":
    main(command_of(retrain, prepared, render.show_retrained, RetrainSettings, join))
