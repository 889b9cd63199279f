"""Shrink a space: the method's steps run as tasks, its loop as a flow.

python -m flows.shrink --benchmark nasbench101 --seed 0
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params
from lissnas.oracles.reuse import Reuse
from lissnas.predictors.accuracy import Scorer
from lissnas.shrinkers import lissnas as loop
from lissnas.shrinkers.alone import check_method
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.state import State
from lissnas.stages.shrink import shrink_stage

LOGGED = 3
"""One iteration in three is logged: a shrink has some fifteen, and `make run` prints at most 60 lines."""
LAST_PREDICTORS: deque[Scorer] = deque(maxlen=16)
"""References to the last predictors of this process: XGBoost frees thread-local memory of a model only in the thread
that allocated it, but one of Prefect's threads would drop the last reference."""


# -- the steps of the method as tasks ----------------------------------------------------------------
sample = common.as_task(loop.sample)
adopt = common.as_task(loop.adopt)
enter_labels = common.as_task(loop.enter_labels)
predict = common.as_task(loop.predict)
expand = common.as_task(loop.expand)
check_convergence = common.as_task(loop.check_convergence)
label = common.as_task(loop.label)
TASKS: dict[str, Any] = {
    step.name: step
    for step in (
        *(sample, adopt, enter_labels, predict),
        *(expand, check_convergence, label),
    )
}


def run_as_task(step: loop.Step, state: State, problem: Problem) -> State:
    """Run a step of the method as a task named after the step and the iteration.

    The three steps of `expand` take milliseconds for each of many batches: they share a task run.
    """
    iteration = max(state.iteration, 0) + (step is loop.expand)
    name = "select_seeds, generate_neighbors, predict" if step is loop.expand else step.__name__
    result: State = TASKS[step.__name__].with_options(task_run_name=f"{name} {iteration}")(state, problem)
    if result.predictor is not None and not any(one is result.predictor for one in LAST_PREDICTORS):
        LAST_PREDICTORS.append(result.predictor)
    return result


# -- the flow: `shrink_stage` runs the loop, saves its state after each iteration, and writes the result ----
def prepared(
    what: Description,
    seed: int,
    out: Path | None,
    params: ParamFiles,
    overrides: common.Overrides,
    method: str | None = None,
    reuse: Reuse | None = None,
) -> tuple[Params, Source, Path]:
    """Return validated parameters, source and output folder; raise UserError if any input is invalid."""
    check_method(method)
    folder = out or common.folder_of("shrunk", what.name) / f"seed-{seed}"
    return *what.load(params, overrides, folder, reuse), folder


@flow(name="shrink", flow_run_name="shrink {what.name} seed {seed}", persist_result=False)
def shrink(
    what: Description,
    seed: options.SeedOption = 0,
    out: common.OutOption = None,
    params: ParamFiles = None,
    overrides: common.Overrides = None,
    method: options.MethodOption = None,
    locality: options.LocalityOption = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
    keep_failed: options.KeepFailedOption = False,
    reuse_answers: options.ReuseAnswersOption = False,
) -> tuple[Outcome, str]:
    """Shrink a benchmark's space, or a custom space, into `out`, and log it to MLflow.

    Returns the outcome and its MLflow location.
    """
    reuse = Reuse(force, keep_failed, reuse_answers, common.log_line)
    checked, source, folder = prepared(what, seed, out, params, overrides, method, reuse)
    how: How = {"call": run_as_task, "on_iteration": log_iteration, "force": force, "threads": threads}
    how["record"] = record = common.recorder("shrink", seed)
    outcome = shrink_stage(checked, source, seed, folder, locality, method, **how)
    common.log_reuse(reuse)
    common.table_artifact(
        f"iterations {source.name} seed {seed}",
        outcome.table("iterations.parquet").to_pylist(),
        f"{source.name}, seed {seed}: {render.shrink_line(outcome.metrics, source.metric)}",
    )
    return outcome, common.log_to_mlflow(record, outcome)


def log_iteration(state: State) -> None:
    """Log a line about each third iteration and the last one."""
    if state.stop or state.iteration % LOGGED == 0:
        common.log_line(render.iteration_line(state))


if __name__ == "__main__":
    common.main(common.command_of(shrink, prepared, render.show_shrink, options.ShrinkSettings))
