"""The shrink stage: shrink the space of a source and write the result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import pyarrow.parquet as pq

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.config import Params
from lissnas.predictors.recorded import predictor_model
from lissnas.shrinkers.alone import check_method, shrink_alone
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.plugin import identity
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.result import WRITES, files_of
from lissnas.shrinkers.state import State
from lissnas.stages.locality import read_threshold

FILES = ("iterations.parquet", "subspace.parquet", "subspace.json")
"""Files of a result that are recorded, in addition to those of every stage."""
BY_LABELS = ("mean_predicted", "best_predicted", "mean_true", "max_true", "p_good")
"""Columns of `iterations.parquet` that are recorded by number of labels too."""
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

    record = how.get("record", NO_RECORDER)

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
            _record_iterations(record, now.records[-1:])
            how.get("on_iteration", ignore)(now)

        return files_of(shrink(problem, how.get("call", run_here), state, after_iteration))

    summary = partial(_summary, source)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=summary)


def _record_iterations(record: Recorder, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record curves by iteration and by number of labels."""
    for row in rows:
        curve = {f"iteration/{name}": value for name, value in row.items() if name != "iteration"}
        record.metrics(curve, row["iteration"])
        record.metrics({f"labels/{name}": row[name] for name in BY_LABELS if name in row}, row["labels"])


def _summary(source: Source, record: Recorder, outcome: Outcome) -> None:
    """Record what a result holds: curves, spaces and predictor."""
    folder, metrics = outcome.folder, outcome.metrics
    if (folder / "iterations.parquet").exists():
        _record_iterations(record, outcome.table("iterations.parquet").to_pylist())
    for name in FILES:
        if (folder / name).exists():
            record.artifact(folder / name)
    if (members := folder / "subspace.parquet").exists():
        schema = {field.name: str(field.type) for field in pq.read_schema(members)}
        shrunk = {"name": f"shrunk {source.name}", "context": "shrunk space", "source": str(members)}
        record.dataset({**shrunk, "digest": artifacts.sha256(members.read_bytes()), "schema": schema})
    full = {"name": f"full {source.name}", "context": "full space", "source": source.space.source or source.name}
    record.dataset({**full, "digest": source.digest, "schema": {"arch": "string", source.metric: "double"}})
    if (model := folder / "predictor.ubj").exists():  # missing if a surrogate was queried directly
        record.model(predictor_model(record, model, metrics.get("tau")))
