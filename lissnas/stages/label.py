"""The label stage: train networks, here or by a user's program, and log each label immediately."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.journal import LOG
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import PARAMETERS, Outcome, run
from lissnas.config import MIN_LABELS, Params
from lissnas.core.errors import InvalidArchitecture, LissnasError, UserError
from lissnas.core.rng import stream
from lissnas.oracles.command import split_command
from lissnas.oracles.direction import stated
from lissnas.oracles.label_collection import Attempt, LabelFailed, LabelLog, Runner, collect, one_by_one
from lissnas.oracles.label_table import metric_of
from lissnas.oracles.program import OracleFailed, run_program
from lissnas.oracles.reuse import Reuse
from lissnas.oracles.training_worker import _train, depends_on, setup_of
from lissnas.predictors.accuracy import Predictor, tau
from lissnas.shrinkers.description import check
from lissnas.spaces import Space

LABELS = "labels.csv"
ATTEMPTS = "attempts.csv"
METRIC = "accuracy"
MAX_SHARE = 0.02
"""The share of the time that may go into fits of predictors for the record."""
WRITES = (LABELS, ATTEMPTS, "metrics.json")
"""Names of the files of a result."""


@remote_out(WRITES)
def label_stage(
    params: Params,
    space: Space,
    seed: int,
    out: Path,
    archs: Sequence[str] | None = None,
    runner: Runner | None = None,
    on_attempt: Callable[[Attempt], None] = lambda one: None,
    program: str | None = None,
    reuse: Reuse | None = None,
    record: Recorder = NO_RECORDER,
) -> Outcome:
    """Label `archs`, or `label.networks` architectures drawn uniformly, and write the labels to `out`.

    Labels are validation accuracies of networks trained here or, for any space, the answers of a `program` that gets
    one architecture per call. Each attempt is appended to `labels.jsonl` in `out`; the same command resumes from it,
    and labels of further architectures with the same parameters are added to existing ones. Networks that failed
    `label.attempts` times have no label and are listed in `metrics.json`; the next run tries them again. `runner`
    executes the trainings; the default uses child processes.
    """
    check(params, space, program)
    reuse = reuse or Reuse()
    names = draw(space, params.label.networks, seed) if archs is None else canonicalize(space, archs)
    depends = depends_on(params, space, seed, program)
    of_names: dict[str, Any] = {name: value for name, value in depends.items() if name in ("space", "names")}
    earlier = _extendable(out, of_names if reuse.adopt else depends)
    names = list(dict.fromkeys([*earlier.get("archs", ()), *names]))
    parameters = {**depends, "archs": names, "attempts": params.label.attempts, "time_limit": params.label.time_limit}
    attempts, tasks = params.label.attempts, artifacts.tasks_of(out)

    def work() -> dict[str, bytes]:
        with LabelLog.opened(out / LOG, depends, reuse) as log:
            learning = _LearningCurve(params, space, seed, log, record)

            def watch(one: Attempt) -> None:
                on_attempt(one)
                learning.add(one)

            if program is None:
                _train(setup_of(params, space.name, seed, tasks, depends), attempts, names, log, runner, watch)
            else:
                labeller = partial(label_by_program, split_command(program, "--program"), params.label.time_limit)
                collect(names, labeller, log, attempts, runner or one_by_one, watch)
            reuse.used(names)
            return _results(log, names, space)

    retries = bool(earlier) and not reuse.keep_failed and bool(artifacts.read_json(out / "metrics.json")["failed"])
    extends = bool(earlier) and (earlier != parameters or retries)
    recorded: dict[str, Any] = {"writes": WRITES, "record": record, "summary": _summary}
    return run(out, parameters, work, force=reuse.force, timed=[ATTEMPTS], extends=extends, **recorded)


class _LearningCurve:
    """Records the best label and the predictor's cross-validated tau by number of labels."""

    def __init__(self, params: Params, space: Space, seed: int, log: LabelLog, record: Recorder) -> None:
        self._params, self._space, self._seed, self._record = params, space, seed, record
        self._values = {arch: value for arch in log.attempts if (value := log.value(arch)) is not None}
        self._next, self._due, self._started = float(MIN_LABELS), 0.0, time.monotonic()

    def add(self, one: Attempt) -> None:
        """Record an attempt; the predictor is fitted whenever a quarter of labels was added and it is cheap."""
        if one.value is None or not self._record.active:
            return
        self._values[one.arch] = one.value
        n, values, best = len(self._values), list(self._values.values()), max if self._space.maximize else min
        curve = {"labels/best": best(values), "labels/mean": float(np.mean(values))}
        started = time.monotonic()
        if n >= self._next and started >= self._due and np.ptp(values) > 0:
            found, self._next = np.array(values), 1.25 * n
            fitted = Predictor.fit(
                self._space, self._space.parse(list(self._values)), found, self._params.predictor, self._seed, 1
            )
            if fitted.out_of_fold is not None:
                curve["labels/tau"] = tau(fitted.out_of_fold, found)
            self._due = started + (time.monotonic() - started) / MAX_SHARE
        self._record.metrics(curve, n)


def _summary(record: Recorder, outcome: Outcome) -> None:
    """Record the labels."""
    for name in (LABELS, ATTEMPTS):
        record.artifact(outcome.folder / name)


def draw(space: Space, n: int, seed: int) -> list[str]:
    """Return `n` distinct architectures, drawn uniformly from the space."""
    return space.format(space.sample_distinct(n, stream(seed, "label", space.name)))


def canonicalize(space: Space, archs: Sequence[str]) -> list[str]:
    """Return the distinct canonical names of architectures; raises UserError for an invalid one."""
    try:
        names = space.format(space.parse(archs))
    except InvalidArchitecture as error:
        raise UserError(f"not of space {space.name}: {error}") from None
    if not names:
        raise UserError("no architectures to label: the list is empty")
    return list(dict.fromkeys(names))


def label_by_program(command: Sequence[str], limit: float | None, arch: str) -> float:
    """Return the answer of a program for one architecture; raises LabelFailed."""
    try:
        value = float(run_program(command, [arch], limit)[0])
    except OracleFailed as failure:
        raise LabelFailed(str(failure)) from None
    if math.isnan(value):
        raise LabelFailed("the program reported a failure")
    return value


def _results(log: LabelLog, names: Sequence[str], space: Space) -> dict[str, bytes]:
    values = {name: value for name in names if (value := log.value(name)) is not None}
    failed = [name for name in names if name not in values]
    if not values:
        last = log.attempts[names[-1]][-1].error
        raise LissnasError(f"all {len(names)} trainings failed; error of the last one: {last}")
    metric, minimize = (metric_of(space), not space.maximize) if space.metric_name else (METRIC, False)
    metrics = {
        "space": space.name,
        **stated(metric, minimize),
        "networks": len(names),
        "labels": len(values),
        "failed": failed,
        "mean": float(np.mean(list(values.values()))),
        "sd": float(np.std(list(values.values()))),
        "min": min(values.values()),
        "max": max(values.values()),
    }
    attempts = [vars(one) for name in names for one in log.attempts[name]]
    return {
        LABELS: artifacts.to_csv([{"arch": name, metric: value} for name, value in values.items()]),
        "metrics.json": artifacts.to_json(metrics),
        ATTEMPTS: artifacts.to_csv(attempts),
    }


def _extendable(out: Path, depends: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the labels in `out` if they agree with `depends`, else an empty dictionary."""
    manifest = artifacts.read_manifest(out) or {}
    if PARAMETERS not in manifest:
        return {}
    found: dict[str, Any] = json.loads(artifacts.read_verified(out, PARAMETERS, manifest))
    return found if all(found.get(name) == value for name, value in depends.items()) else {}
