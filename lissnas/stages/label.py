"""The label stage: networks trained, here or by a program of the user's, and their labels kept as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.journal import LOG
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import PARAMETERS, Outcome, run
from lissnas.config import Params
from lissnas.core.errors import InvalidArchitecture, LissnasError, UserError
from lissnas.core.rng import stream
from lissnas.oracles.command import OracleFailed, run_program, split_command
from lissnas.oracles.label_collection import Attempt, LabelFailed, LabelLog, Runner, collect, one_by_one
from lissnas.oracles.label_table import metric_of
from lissnas.oracles.training_worker import _train, depends_on, setup_of
from lissnas.shrinkers.description import check
from lissnas.spaces import Space
from lissnas.spaces.declared import Declared

LABELS, ATTEMPTS = "labels.csv", "attempts.csv"
METRIC = "accuracy"


@remote_out
def label_stage(
    params: Params,
    space: Space,
    seed: int,
    out: Path,
    archs: Sequence[str] | None = None,
    runner: Runner | None = None,
    on_attempt: Callable[[Attempt], None] = lambda one: None,
    program: str | None = None,
) -> Outcome:
    """Label `archs`, or `label.networks` drawn uniformly, and leave the labels in `out`.

    Labels are validation accuracies of networks trained here or, for any space, what a `program` answers that is
    given one network at a time. `labels.jsonl` in `out` has each attempt as soon as it is made; the same command goes
    on from it, and other networks that are labelled alike are added to what is there. Networks that failed
    `label.attempts` times have no label; `metrics.json` lists them. `runner` says where to train, in processes of
    this one if not given.
    """
    check(params, space, program)
    names = drawn(space, params.label.networks, seed) if archs is None else canonical(space, archs)
    depends = depends_on(params, space, seed, program)
    theirs = _labelled_alike(out, depends)
    names = list(dict.fromkeys([*theirs.get("archs", ()), *names]))
    parameters = {**depends, "archs": names, "attempts": params.label.attempts, "time_limit": params.label.time_limit}
    attempts, tasks = params.label.attempts, artifacts.tasks_of(out)

    def work() -> dict[str, bytes]:
        with LabelLog.opened(out / LOG, depends) as log:
            if program is None:
                _train(setup_of(params, space.name, seed, tasks, depends), attempts, names, log, runner, on_attempt)
            else:
                asked = partial(label_by_program, split_command(program, "--program"), params.label.time_limit)
                collect(names, asked, log, attempts, runner or one_by_one, on_attempt)
            return _results(log, names, space)

    added = bool(theirs) and theirs != parameters
    return run(out, parameters, work, force=False, timed=[ATTEMPTS], extends=added)


def drawn(space: Space, n: int, seed: int) -> list[str]:
    """Return so many distinct architectures, uniform over the space."""
    return space.format(space.sample_distinct(n, stream(seed, "label", space.name)))


def canonical(space: Space, archs: Sequence[str]) -> list[str]:
    """Return the names of the networks that are meant, each once; raises UserError for what is none."""
    try:
        names = space.format(space.parse(archs))
    except InvalidArchitecture as error:
        raise UserError(f"not of space {space.name}: {error}") from None
    if not names:
        raise UserError("no architectures are given: there is nothing to label")
    return list(dict.fromkeys(names))


def label_by_program(command: Sequence[str], seconds: float, arch: str) -> float:
    """Return what a program answers that is given one network; raises LabelFailed."""
    try:
        value = float(run_program(command, [arch], seconds)[0])
    except OracleFailed as failure:
        raise LabelFailed(str(failure)) from None
    if math.isnan(value):
        raise LabelFailed("the program says that it failed")
    return value


def _results(log: LabelLog, names: Sequence[str], space: Space) -> dict[str, bytes]:
    values = {name: value for name in names if (value := log.value(name)) is not None}
    failed = [name for name in names if name not in values]
    if not values:
        last = log.attempts[names[-1]][-1].error
        raise LissnasError(f"all {len(names)} trainings failed, the last one: {last}")
    metrics = {
        "space": space.name,
        "networks": len(names),
        "labels": len(values),
        "failed": failed,
        "mean": float(np.mean(list(values.values()))),
        "sd": float(np.std(list(values.values()))),
        "min": min(values.values()),
        "max": max(values.values()),
    }
    attempts = [vars(one) for name in names for one in log.attempts[name]]
    metric = metric_of(space) if isinstance(space, Declared) else METRIC
    return {
        LABELS: artifacts.to_csv([{"arch": name, metric: value} for name, value in values.items()]),
        "metrics.json": artifacts.to_json(metrics),
        ATTEMPTS: artifacts.to_csv(attempts),
    }


def _labelled_alike(out: Path, depends: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the labels in `out` if they are a function of the same, to add to them; else nothing."""
    manifest = artifacts.read_manifest(out) or {}
    if PARAMETERS not in manifest:
        return {}
    theirs: dict[str, Any] = json.loads(artifacts.read_verified(out, PARAMETERS, manifest))
    return theirs if all(theirs.get(name) == value for name, value in depends.items()) else {}
