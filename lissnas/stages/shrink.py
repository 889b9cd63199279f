"""The shrink stage: shrink the space of a source and write the result files."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from lissnas import artifacts
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.config import Params
from lissnas.shrinkers.alone import check_method, shrink_alone
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.plugin import identity
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import WRITES, files_of
from lissnas.shrinkers.state import State
from lissnas.stages.locality import read_threshold

STATE_FORMAT = 4
"""Version of checkpoints: states of other versions are not resumed; the shrink starts from scratch."""


@remote_out(WRITES)
def shrink_stage(
    params: Params,
    source: Source,
    seed: int,
    out: Path,
    locality: Path | None = None,
    method: str | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Shrink a source's space and write the result files; resumes an interrupted run.

    `locality` is the folder of a locality stage, whose threshold distance limits `max_edits`. `method` is another
    shrinker that runs instead of lissnas: a rival's name or `package.module:function`. Raises ConfigError
    for numbers that don't fit the space, and UserError for a folder in use or with a result of other parameters.
    """
    distance = None if locality is None else read_threshold(locality, source.space.name)
    problem = Problem.of(source, params, seed, how.get("threads", 0), distance)
    parameters = problem.params.stored()
    if method is not None:
        check_method(method, params)
        parameters["method"] = identity(method)

    def work() -> dict[str, bytes]:
        if method is not None:
            call, notify = how.get("call", run_here), how.get("on_iteration", ignore)
            return shrink_alone(problem, method, call, notify).files()
        checkpoint = artifacts.Checkpoint(out, {**parameters, "format": STATE_FORMAT})
        saved = checkpoint.load()
        state = None if saved is None else State.from_arrays(source.space, *saved)

        def after_iteration(now: State) -> None:
            if checkpoint.due:
                checkpoint.save(*now.to_arrays())
            how.get("on_iteration", ignore)(now)

        return files_of(shrink(problem, how.get("call", run_here), state, after_iteration))

    return run(out, parameters, work, how.get("force", False), writes=WRITES)
