"""Shrink a benchmark's space: the steps of the method as tasks.

python -m flows.shrink --benchmark nasbench101 --seed 0
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows.common import DATA, as_task, log_to_mlflow, main, table_artifact
from lissnas import console, options
from lissnas.options import (
    BenchmarkOption,
    ForceOption,
    LocalityOption,
    ParamsOption,
    SeedOption,
    TableOption,
    ThreadsOption,
    with_config_options,
)
from lissnas.shrinkers import lissnas as method
from lissnas.shrinkers.state import Problem, State
from lissnas.stages.base import Outcome
from lissnas.stages.shrink import shrink_stage

STEPS = (
    method.sample,
    method.predict,
    method.select_seeds,
    method.generate_neighbors,
    method.check_convergence,
    method.label,
)
TASKS = {step.__name__: as_task(step) for step in STEPS}


def run_as_task(step: method.Step, state: State, problem: Problem) -> State:
    """Run a step of the method as a task, named after it and the iteration."""
    iteration = max(state.iteration, 0) + (step.__name__ == "select_seeds")
    named = TASKS[step.__name__].with_options(task_run_name=f"{step.__name__} {iteration}")  # type: ignore[attr-defined]
    result: State = named(state, problem)
    return result


@flow(name="shrink", flow_run_name="shrink {benchmark} seed {seed}", persist_result=False)
def shrink(
    benchmark: str,
    seed: int = 0,
    out: Path | None = None,
    params: Path | None = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
    locality: Path | None = None,
) -> tuple[Outcome, str]:
    """Shrink `benchmark` into `out`, log it to MLflow; return the outcome and where it was logged."""
    checked, source = options.load(benchmark, params, overrides or {}, table)
    logger = get_run_logger()
    outcome = shrink_stage(
        checked,
        source,
        seed,
        out or DATA / "shrunk" / benchmark / f"seed-{seed}",
        call=run_as_task,
        on_iteration=lambda state: logger.info(console.iteration_line(state)),
        force=force,
        threads=threads,
        locality=locality,
    )
    m = outcome.metrics
    table_artifact(
        f"iterations {benchmark} seed {seed}",
        outcome.table("iterations.parquet").to_pylist(),
        f"{benchmark}, seed {seed}: {m['full_size']:,} architectures to {m['size']:,}, {source.metric}: "
        f"mean {m['full_mean_true']:.4g} to {m['mean_true']:.4g}",
    )
    return outcome, log_to_mlflow("shrink", outcome, seed)


@with_config_options("shrink")
def command(
    benchmark: BenchmarkOption,
    overrides: dict[str, Any],
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/shrunk/...")] = None,
    params: ParamsOption = None,
    table: TableOption = None,
    locality: LocalityOption = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Shrink a benchmark's space in a Prefect flow run, logged to MLflow."""
    options.load(benchmark, params, overrides, table)  # a mistake ends here, before Prefect starts
    outcome, place = shrink(benchmark, seed, out, params, table, overrides, threads, force, locality)
    if "DVC_STAGE" not in os.environ:  # a stage of a longer pipeline ends with a line, not a page
        console.show_shrink(outcome)
    console.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
