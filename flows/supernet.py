"""Train a supernet on a shrunk space, or on a whole one.

python -m flows.supernet --benchmark nas_bench_macro --subspace data/shrunk/nas_bench_macro/seed-0
python -m flows.supernet --benchmark shufflenetv2     (the whole space, as an oracle of shrinks)
torchrun --nproc-per-node 8 -m flows.supernet ...     (one process a GPU, each batch shared)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow

from flows.common import DATA, limit_gpu_tasks, log_to_mlflow, main, one_shot_group, train_step, training_log
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import ForceOption, SearchedOption, SeedOption, TrainingSettings, with_options
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.nets import parallel
from lissnas.shrinkers import description
from lissnas.spaces.members import read_members
from lissnas.stages.one_shot import check
from lissnas.stages.supernet import supernet_stage


@flow(name="supernet", flow_run_name="supernet {benchmark} seed {seed}", persist_result=False)
def supernet(
    benchmark: str,
    subspace: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Train a supernet on the space in `subspace`, or the whole one, into `out`; log it to MLflow."""
    checked, space, _ = description.load_searched(benchmark, params, overrides or {}, None)
    limit_gpu_tasks()
    members, log = None if subspace is None else read_members(subspace, space), training_log()
    outcome = supernet_stage(
        checked,
        space,
        members,
        seed,
        out or DATA / "supernet" / benchmark,
        train_step,
        lambda p: log("supernet", p),
        force,
    )
    return outcome, log_to_mlflow("supernet", outcome, seed, group or one_shot_group(benchmark, seed))


@with_options
def command(
    benchmark: SearchedOption,
    settings: TrainingSettings,
    subspace: Annotated[
        Path | None,
        typer.Option(help="subspace.parquet of a finished shrink, or its folder; else the whole space."),
    ] = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/supernet/...")] = None,
    force: ForceOption = False,
) -> None:
    """Train a supernet on a shrunk or a whole space in a Prefect flow run, logged to MLflow; processes by torchrun."""
    params, overrides = settings.params, settings.overrides()
    checked, space, _ = description.load_searched(benchmark, params, overrides, None)
    members = None if subspace is None else read_members(subspace, space)
    check(checked, space)
    with parallel.process_group():
        if not parallel.leads():
            supernet_stage(checked, space, members, seed, out or DATA / "supernet" / benchmark)
            return
        outcome, place = supernet(benchmark, subspace, seed, out, params, overrides, force)
    render.show_supernet(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
