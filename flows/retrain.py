"""Train the best networks of a search from scratch, and export the best of them.

python -m flows.retrain --benchmark nas_bench_macro --found data/search/nas_bench_macro
torchrun --nproc-per-node 8 -m flows.retrain ...     (one process a GPU, each batch shared)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.one_shot import check
from lissnas.stages.retrain import retrain_stage

FoundOption = Annotated[Path, typer.Option(help="Folder of a finished search.")]


def prepared(
    benchmark: str,
    found: Path,
    seed: int,
    out: Path | None,
    params: ParamFiles,
    table: Path | None,
    overrides: common.Overrides,
) -> Callable[..., Outcome]:
    """Return the validated stage; raise UserError if any input is invalid."""
    checked, space, truth = description.load_searched(benchmark, params, overrides, table)
    check(checked, space)
    return partial(retrain_stage, checked, space.name, found, seed, out or common.DATA / "retrain" / benchmark, truth)


@flow(name="retrain", flow_run_name="retrain {benchmark} seed {seed}", persist_result=False)
def retrain(
    benchmark: options.SearchedOption,
    found: FoundOption,
    seed: options.SeedOption = 0,
    out: common.OutOption = None,
    params: ParamFiles = None,
    table: options.TableOption = None,
    overrides: common.Overrides = None,
    force: options.ForceOption = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Retrain the best of the search in `found` into `out`, log it to MLflow."""
    stage = prepared(benchmark, found, seed, out, params, table, overrides)
    common.limit_gpu_tasks()
    record = common.recorder("retrain", seed, group or common.one_shot_group(benchmark, seed))
    outcome = stage(call=common.train_step, on_training=common.training_log(), force=force, record=record)
    common.table_artifact(
        f"retrained {benchmark} seed {seed}", outcome.csv("retrained.csv"), "Networks trained from scratch"
    )
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(retrain, prepared, render.show_retrained, options.RetrainSettings, joins=True))
