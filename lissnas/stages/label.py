"""The label stage: networks trained, here or by a program of the user's, and their labels kept as they come."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import spaces, store
from lissnas.config import Params, label_images, label_width
from lissnas.errors import InvalidArchitecture, LissnasError, UserError
from lissnas.label_rows import metric_of
from lissnas.labelling import LOG, Attempt, LabelFailed, LabelLog, Runner, collect, one_by_one
from lissnas.redaction import without_passwords
from lissnas.remote import anywhere
from lissnas.rng import stream
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared
from lissnas.stages.base import PARAMETERS, Outcome, need_torch, run
from lissnas.trainer import checkpoint_of, setup_of, train_label, trainer_of
from lissnas.user_oracles import OracleFailed, ask_program, split_command

LABELS, ATTEMPTS = "labels.csv", "attempts.csv"
METRIC = "accuracy"
SEED = 0
"""Of the trainings of an oracle: its labels are of one seed, whatever the shrink's."""


@anywhere
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
    attempts, tasks = params.label.attempts, store.tasks_of(out)

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


@dataclass(frozen=True)
class TrainingOracle:
    """An oracle that trains networks from scratch by `params.label`, NaN where the trainings of one failed.

    Every label is in a log in `folder` before the next training starts.
    """

    params: Params
    space: Space
    folder: Path

    @classmethod
    def of(cls, params: Params, space: Space, folder: Path) -> TrainingOracle:
        """Return the oracle, once it is checked that it can train; raises UserError."""
        check(params, space, None, "--oracle-command")
        return cls(params, space, folder)

    @property
    def about(self) -> str:
        """What its labels are a function of, beside the architecture."""
        return f"training {store.digest(depends_on(self.params, self.space, SEED))}"

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` validation accuracies in percent."""
        names = self.space.format(archs)
        depends = depends_on(self.params, self.space, SEED)
        setup = setup_of(self.params, self.space.name, SEED, self.folder / "tasks", depends)
        with LabelLog.opened(self.folder / LOG, depends) as log:
            _train(setup, self.params.label.attempts, names, log, None, lambda one: None)
            found = [log.value(name) for name in names]
        return np.array([math.nan if value is None else value for value in found])


def depends_on(params: Params, space: Space, seed: int, program: str | None = None) -> dict[str, Any]:
    """Return what a label is a function of, beside the architecture."""
    if program is not None:
        declared = {"declaration": store.sha256(space.text.encode())} if isinstance(space, Declared) else {}
        return {"space": space.name, "program": without_passwords(program), **declared}
    settings = params.label
    return {
        "space": space.name,
        "seed": seed,
        "width": label_width(params, space.name),
        "stem_stride": settings.stem_stride,
        "recipe": params.recipes[settings.recipe].model_dump(mode="json"),
        "images": label_images(params).model_dump(mode="json", exclude={"download"}),
    }


def check(params: Params, space: Space, program: str | None, option: str = "--program") -> None:
    """Raise for what can't be labelled, before anything is written: space, recipe, device, images, batches, program."""
    if program is not None:
        split_command(program, option)
        return
    if isinstance(space, Declared) or space.name not in spaces.names():
        raise UserError(f"networks of {space.name} can't be built here; train them by a program: {option}")
    need_torch("training")
    # torch takes seconds to load: only what trains needs it.
    from lissnas.nets import images
    from lissnas.nets.build import published_scale
    from lissnas.nets.training import check_batches, compute_on
    from lissnas.stages.supernet import recipe_of

    published_scale(space.name)  # there is one where networks can be built
    compute_on(params.torch)
    recipe = recipe_of(params, params.label.recipe, "label.recipe")
    check_batches(recipe, images.load(label_images(params), recipe))


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


def _train(
    setup: dict[str, Any],
    attempts: int,
    names: Sequence[str],
    log: LabelLog,
    runner: Runner | None,
    on_attempt: Callable[[Attempt], None],
) -> None:
    def watch(one: Attempt) -> None:
        # Its state goes once the label is safe: before that, a run that is ended takes it up again.
        if (state := checkpoint_of(setup, one.arch)) is not None:
            state.clear()
        on_attempt(one)

    if runner is not None:
        collect(names, partial(train_label, setup), log, attempts, runner, watch)
        return
    with closing(trainer_of(setup)) as trainer:
        collect(names, trainer, log, attempts, one_by_one, watch)


def label_by_program(command: Sequence[str], seconds: float, arch: str) -> float:
    """Return what a program answers that is given one network; raises LabelFailed."""
    try:
        value = float(ask_program(command, [arch], seconds)[0])
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
        LABELS: store.to_csv([{"arch": name, metric: value} for name, value in values.items()]),
        "metrics.json": store.to_json(metrics),
        ATTEMPTS: store.to_csv(attempts),
    }


def _labelled_alike(out: Path, depends: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the labels in `out` if they are a function of the same, to add to them; else nothing."""
    manifest = store.read_manifest(out) or {}
    if PARAMETERS not in manifest:
        return {}
    remedy = f"Delete {out / store.MANIFEST}: labels are in {LOG}, and none is trained again."
    theirs: dict[str, Any] = json.loads(store.read_verified(out, PARAMETERS, manifest, remedy))
    return theirs if all(theirs.get(name) == value for name, value in depends.items()) else {}
