"""The shrink stage: a source's space in, the files of a shrunk space out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lissnas import artifacts
from lissnas.artifacts.remote import anywhere
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.config import Params
from lissnas.shrinkers.lissnas import Call, plain_call, shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import files_of
from lissnas.shrinkers.state import State
from lissnas.stages.locality import read_threshold

STATE_FORMAT = 2
"""Of checkpoints: a state that another version left is not resumed, the shrink starts from scratch."""


@anywhere
def shrink_stage(
    params: Params,
    source: Source,
    seed: int,
    out: Path,
    call: Call = plain_call,
    on_iteration: Callable[[State], None] | None = None,
    force: bool = False,
    threads: int = 0,
    locality: Path | None = None,
) -> Outcome:
    """Shrink a source's space into the files of a shrink; resumes an interrupted run.

    `locality` is the folder of a locality stage, whose threshold distance caps the edits.

    Raises ConfigError for numbers that don't fit the space, and UserError for a folder that is in
    use or holds the result of other parameters.
    """
    distance = None if locality is None else read_threshold(locality, source.space.name)
    problem = Problem.of(source, params, seed, threads, distance)
    parameters = problem.params.model_dump(mode="json")

    def work() -> dict[str, bytes]:
        checkpoint = artifacts.Checkpoint(out, {**parameters, "format": STATE_FORMAT})
        saved = checkpoint.load()
        state = None if saved is None else State.from_arrays(source.space, *saved)

        def after_iteration(now: State) -> None:
            if checkpoint.due:
                checkpoint.save(*now.to_arrays())
            if on_iteration is not None:
                on_iteration(now)

        return files_of(shrink(problem, call, state, after_iteration))

    return run(out, parameters, work, force)
