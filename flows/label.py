"""Collect labels with the built-in training or a user's program: one task for each architecture, on a Dask cluster.

python -m flows.label --space shufflenetv2 --networks 150 --out data/label/shufflenetv2
python -m flows.label --space fairnas --archs suggested.csv --scheduler tcp://10.0.0.1:8786
python -m flows.label --space space.yaml --program "python train.py" --networks 50     (an architecture in, a value out)
python -m flows.label --space fairnas --workers 0     (sequential, without Dask and Prefect)
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from distributed.scheduler import KilledWorker
from prefect import flow
from prefect.futures import as_completed
from prefect_dask.task_runners import DaskTaskRunner

from flows import pools
from flows.common import OutOption, Overrides, as_task, folder_of, log_line, log_reuse, log_to_mlflow, main, recorder
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import (
    ForceOption,
    KeepFailedOption,
    LabelSettings,
    ReuseAnswersOption,
    SeedOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.core.errors import UserError
from lissnas.oracles import label_collection
from lissnas.oracles.label_collection import Attempt, Labeller, LabellerUnavailable, describe_failure
from lissnas.oracles.label_table import read_archs
from lissnas.oracles.reuse import Reuse
from lissnas.shrinkers import description
from lissnas.shrinkers.description import check
from lissnas.shrinkers.problem import get_space
from lissnas.stages.label import label_stage

TRAIN = as_task(label_collection.attempt).with_options(name="train_label")


def cluster(workers: int | None, scheduler: str | None) -> Any:
    """Return the task runner: the Dask cluster at `scheduler`, or local processes with one thread each."""
    if scheduler is not None:
        return DaskTaskRunner(address=scheduler)
    count = os.cpu_count() if workers is None else workers
    return DaskTaskRunner(
        cluster_kwargs={"n_workers": count, "threads_per_worker": 1, "processes": True, "dashboard_address": None},
        # A local cluster of fixed size does not replace workers that died, and then waits forever for one.
        adapt_kwargs={"minimum": count, "maximum": count},
    )


def on_dask(label_one: Labeller, archs: Sequence[str]) -> Iterator[Attempt]:
    """Label each architecture in a task; yield attempts as they arrive.

    An architecture whose worker dies repeatedly counts as failed. Raises LabellerUnavailable if the cluster is lost.
    """

    def start(arch: str) -> Any:
        return TRAIN.with_options(task_run_name=f"train {arch}").submit(label_one, arch)

    futures = {start(arch): arch for arch in archs}
    suspects: list[str] = []
    for future in as_completed(list(futures)):
        made = _outcome(future)
        if isinstance(made, KilledWorker):
            suspects.append(futures[future])
        else:
            yield made
    # Dask blames every task queued on a worker for its death: run each of them alone to find the cause.
    for arch in suspects:
        made = _outcome(start(arch))
        yield Attempt(arch, None, describe_failure(made), None) if isinstance(made, KilledWorker) else made


def _outcome(future: Any) -> Attempt | KilledWorker:
    try:
        made: Attempt = future.result()
    except KilledWorker as death:
        return death
    except LabellerUnavailable:
        raise
    except Exception as error:
        raise LabellerUnavailable(f"the cluster is gone ({describe_failure(error)})") from error
    # Otherwise the cluster would train it again if the worker that holds the result dies.
    future.wrapped_future.release()
    return made


@flow(name="label", flow_run_name="label {space} seed {seed}", persist_result=False, task_runner=cluster(None, None))
def label(
    space: str,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    overrides: Overrides = None,
    archs: list[str] | None = None,
    program: str | None = None,
    force: bool = False,
    keep_failed: bool = False,
    reuse_answers: bool = False,
) -> tuple[Outcome, str]:
    """Label architectures of `space`, a name or a file, into `out`, log the result to MLflow."""
    checked, found = description.load_params(params, overrides), get_space(space)
    if program is None:
        pools.warn_without_gpu()
    folder = out or folder_of("label", space)
    reuse = Reuse(force, keep_failed, reuse_answers, log_line)
    on_attempt = render.attempt_lines(log_line)
    record = recorder("label", seed)
    outcome = label_stage(checked, found, seed, folder, archs, on_dask, on_attempt, program, reuse, record)
    log_reuse(reuse)
    return outcome, log_to_mlflow(record, outcome)


SpaceOption = Annotated[str, typer.Option(help="Space, e.g. shufflenetv2 (see `lissnas spaces`), or a space.yaml.")]
ArchsOption = Annotated[
    Path | None, typer.Option(help="CSV file with a column arch; default: --networks architectures are sampled.")
]
WorkersOption = Annotated[
    int | None, typer.Option(min=0, help="Processes of a local cluster; 0: sequential; default: number of cores.")
]
SchedulerOption = Annotated[str | None, typer.Option(help="Address of a Dask scheduler: train on its cluster.")]
ProgramOption = Annotated[
    str | None, typer.Option(help="Labelling program: reads an architecture from stdin, prints its value.")
]


@with_options
def command(
    space: SpaceOption,
    settings: LabelSettings,
    archs: ArchsOption = None,
    seed: SeedOption = 0,
    out: OutOption = None,
    workers: WorkersOption = None,
    scheduler: SchedulerOption = None,
    program: ProgramOption = None,
    force: ForceOption = False,
    keep_failed: KeepFailedOption = False,
    reuse_answers: ReuseAnswersOption = False,
) -> None:
    """Collect labels and save each as it arrives; the same command resumes after an interruption."""
    if scheduler is not None and workers is not None:
        raise UserError("--scheduler: that cluster has its own workers; leave --workers out")
    params, overrides = settings.params, settings.overrides()
    checked, found = description.load_params(params, overrides), get_space(space)
    check(checked, found, program)
    names = None if archs is None else read_archs(archs, found)
    folder, place = out or folder_of("label", space), ""
    if workers == 0:
        with render.lines(f"labels of {space}") as line:
            reuse = Reuse(force, keep_failed, reuse_answers, render.note)
            on_attempt = render.attempt_lines(line)
            outcome = label_stage(checked, found, seed, folder, names, None, on_attempt, program, reuse)
        render.show_reuse(reuse)
    else:
        on_cluster = label.with_options(task_runner=cluster(workers, scheduler))
        how = {"force": force, "keep_failed": keep_failed, "reuse_answers": reuse_answers}
        outcome, place = on_cluster(space, seed, folder, params, overrides, names, program, **how)
    m = outcome.metrics
    process.say(
        f"{m['labels']:,} labels of {m['space']}: {m['min']:.4g} to {m['max']:.4g}, mean {m['mean']:.4g}; "
        f"{len(m['failed'])} failed{'. Nothing was done: they were there' if outcome.reused else ''}"
    )
    render.state_metric(outcome)
    process.say(f"Files: {outcome.folder}")
    if place:
        process.say(place)


if __name__ == "__main__":
    main(command)
