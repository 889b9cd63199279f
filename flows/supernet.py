"""Train a supernet on a shrunk or a full space.

python -m flows.supernet --benchmark nas_bench_macro --subspace data/shrunk/nas_bench_macro/seed-0
python -m flows.supernet --benchmark shufflenetv2     (the full space, as an oracle for shrinking)
torchrun --nproc-per-node 8 -m flows.supernet ...     (one process a GPU, each batch shared)
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
from lissnas.spaces.members import read_members
from lissnas.stages.one_shot import check
from lissnas.stages.supernet import supernet_stage

WholeOption = Annotated[
    Path | None, typer.Option(help="subspace.parquet of a finished shrink, or its folder; default: the full space.")
]


def prepared(
    benchmark: str, subspace: Path | None, seed: int, out: Path | None, params: ParamFiles, overrides: common.Overrides
) -> Callable[..., Outcome]:
    """Return the validated stage; raise UserError if any input is invalid."""
    checked, space, _ = description.load_searched(benchmark, params, overrides, None)
    check(checked, space)
    members = None if subspace is None else read_members(subspace, space)
    return partial(supernet_stage, checked, space, members, seed, out or common.DATA / "supernet" / benchmark)


@flow(name="supernet", flow_run_name="supernet {benchmark} seed {seed}", persist_result=False)
def supernet(
    benchmark: options.SearchedOption,
    subspace: WholeOption = None,
    seed: options.SeedOption = 0,
    out: common.OutOption = None,
    params: ParamFiles = None,
    overrides: common.Overrides = None,
    force: options.ForceOption = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Train a supernet on the space in `subspace`, or on the full space, into `out`; log it to MLflow."""
    stage = prepared(benchmark, subspace, seed, out, params, overrides)
    common.limit_gpu_tasks()
    record = common.recorder("supernet", seed, group or common.one_shot_group(benchmark, seed))
    outcome = stage(call=common.train_step, on_training=common.training_log(), force=force, record=record)
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(supernet, prepared, render.show_supernet, options.TrainingSettings, joins=True))
