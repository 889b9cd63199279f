"""Shrink a benchmark's space: the steps of the method as tasks.

python -m flows.shrink --benchmark nasbench101 --seed 0
"""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.common import DATA, as_task, folder_of, given_source, log_to_mlflow, main, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import (
    ForceOption,
    LocalityOption,
    SeedOption,
    ShrinkSettings,
    SourceOptions,
    ThreadsOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.predictors.accuracy import Scorer
from lissnas.shrinkers import description
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.state import State
from lissnas.stages.shrink import shrink_stage

STEPS = (
    method.adopt,
    method.enter_labels,
    method.sample,
    method.predict,
    method.select_seeds,
    method.generate_neighbors,
    method.check_convergence,
    method.label,
)
TASKS = {step.__name__: as_task(step) for step in STEPS}
HELD: deque[Scorer] = deque(maxlen=16)
"""The last predictors, of this run and of some before it: XGBoost frees what it gave out for a model only in the thread
that it gave it to, and one of Prefect's threads would be the last to let go of a state."""


def run_as_task(step: method.Step, state: State, problem: Problem) -> State:
    """Run a step of the method as a task, named after it and the iteration."""
    iteration = max(state.iteration, 0) + (step.__name__ == "select_seeds")
    named = TASKS[step.__name__].with_options(task_run_name=f"{step.__name__} {iteration}")  # type: ignore[attr-defined]
    result: State = named(state, problem)
    if result.predictor is not None and not any(one is result.predictor for one in HELD):
        HELD.append(result.predictor)
    return result


def named() -> str:
    """Return the name of this flow run: what is shrunk, and the seed."""
    given = flow_run.parameters
    return f"shrink {given['benchmark'] or given['space']} seed {given['seed']}"


@flow(name="shrink", flow_run_name=named, persist_result=False)
def shrink(
    benchmark: str | None = None,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
    locality: Path | None = None,
    space: str | None = None,
    labels: Path | None = None,
    metric: str | None = None,
    labels_from: Literal["training"] | None = None,
    oracle_command: str | None = None,
    oracle_timeout: float = SourceOptions.oracle_timeout,
    oracle_supernet: Path | None = None,
    oracle_model: Path | None = None,
) -> tuple[Outcome, str]:
    """Shrink `benchmark`, or a `space` and who judges it, into `out`, and log it to MLflow.

    Returns the outcome, and where it was logged.
    """
    given = given_source(locals())
    folder = out or folder_of("shrunk", benchmark, space) / f"seed-{seed}"
    checked, source = description.load_source(given, params, overrides or {}, folder)
    what = source.name
    logger = get_run_logger()
    outcome = shrink_stage(
        checked,
        source,
        seed,
        folder,
        call=run_as_task,
        on_iteration=lambda state: logger.info(render.iteration_line(state)),
        force=force,
        threads=threads,
        locality=locality,
    )
    m = outcome.metrics
    judged = "true" if "mean_true" in m else "predicted"
    table_artifact(
        f"iterations {what} seed {seed}",
        outcome.table("iterations.parquet").to_pylist(),
        f"{what}, seed {seed}: {m['full_size']:,} architectures to {m['size']:,}, {source.metric}: "
        f"{judged} mean {m[f'full_mean_{judged}']:.4g} to {m[f'mean_{judged}']:.4g}",
    )
    return outcome, log_to_mlflow("shrink", outcome, seed)


@with_options
def command(
    source: SourceOptions,
    settings: ShrinkSettings,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/shrunk/...")] = None,
    locality: LocalityOption = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Shrink a benchmark's space, or one of your own, in a Prefect flow run, logged to MLflow."""
    # A mistake ends here, before Prefect starts.
    params, overrides = settings.params, settings.overrides()
    description.load_source(vars(source), params, overrides, out or DATA / "shrunk")
    outcome, place = shrink(
        **vars(source),
        seed=seed,
        out=out,
        params=params,
        overrides=overrides,
        threads=threads,
        force=force,
        locality=locality,
    )
    if "DVC_STAGE" not in os.environ:  # a stage of a longer pipeline ends with a line, not a page
        render.show_shrink(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
