"""The label stage: networks of a space trained from scratch, their accuracies kept as they arrive."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from lissnas import spaces, store
from lissnas.config import Params, label_images
from lissnas.errors import InvalidArchitecture, LissnasError, UserError
from lissnas.labelling import Attempt, LabelLog, Runner, collect, one_by_one
from lissnas.rng import stream
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared
from lissnas.stages.base import PARAMETERS, Outcome, need_torch, run
from lissnas.trainer import checkpoint_of, setup_of, train_label, trainer_of

LOG = "labels.jsonl"
LABELS, ATTEMPTS = "labels.csv", "attempts.csv"
METRIC = "accuracy"
SEED = 0
"""Of the trainings of an oracle: its labels are of one seed, whatever the shrink's."""


def label_stage(
    params: Params,
    space_name: str,
    seed: int,
    out: Path,
    archs: Sequence[str] | None = None,
    runner: Runner | None = None,
    on_attempt: Callable[[Attempt], None] = lambda one: None,
) -> Outcome:
    """Train `archs`, or `label.networks` drawn uniformly, and leave their validation accuracies in `out`.

    `labels.jsonl` there has each attempt as soon as it is made; the same command goes on from it, and
    other networks of the same parameters are added to it. Networks that failed `label.attempts` times
    have no label; `metrics.json` lists them. `runner` says where to train, in processes of this one if not given.
    """
    space = spaces.get(space_name)
    check(params, space)
    names = drawn(space, params.label.networks, seed) if archs is None else canonical(space, archs)
    depends = depends_on(params, space_name, seed)
    parameters = {**depends, "archs": names, "attempts": params.label.attempts, "time_limit": params.label.time_limit}
    setup = setup_of(params, space_name, seed, out.parent / f".{out.name}.tasks", depends)

    def work() -> dict[str, bytes]:
        with LabelLog.opened(out / LOG, depends) as log:
            _collect(setup, params.label.attempts, names, log, runner, on_attempt)
            return _results(log, names, space_name)

    outcome = run(out, parameters, work, _grows(out, parameters, depends), [ATTEMPTS])
    shutil.rmtree(setup["checkpoints"], ignore_errors=True)
    return outcome


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
        need_torch("training")
        if isinstance(space, Declared) or space.name not in spaces.names():
            raise UserError(f"networks of {space.name} can't be built here; train them by a program: --oracle-command")
        check(params, space)
        return cls(params, space, folder)

    @property
    def about(self) -> str:
        """What its labels are a function of, beside the architecture."""
        return f"training {store.digest(depends_on(self.params, self.space.name, SEED))}"

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` validation accuracies in percent."""
        names = self.space.format(archs)
        depends = depends_on(self.params, self.space.name, SEED)
        setup = setup_of(self.params, self.space.name, SEED, self.folder / "tasks", depends)
        with LabelLog.opened(self.folder / LOG, depends) as log:
            _collect(setup, self.params.label.attempts, names, log, None, lambda one: None)
            found = [log.value(name) for name in names]
        return np.array([math.nan if value is None else value for value in found])


def depends_on(params: Params, space_name: str, seed: int) -> dict[str, Any]:
    """Return what a label is a function of, beside the architecture."""
    settings = params.label
    return {
        "space": space_name,
        "seed": seed,
        "width": settings.width,
        "stem_stride": settings.stem_stride,
        "recipe": params.recipes[settings.recipe].model_dump(mode="json"),
        "images": label_images(params).model_dump(mode="json", exclude={"download"}),
    }


def check(params: Params, space: Space) -> None:
    """Raise for what training can't do, before anything is written: space, recipe, device, images, batches."""
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


def read_archs(path: Path) -> list[str]:
    """Return the column `arch` of a CSV file as text; raises UserError where there is none."""
    as_text = csv.ConvertOptions(include_columns=["arch"], column_types={"arch": pa.string()})
    try:
        column = csv.read_csv(path, convert_options=as_text)["arch"]
    except (OSError, pa.ArrowInvalid, KeyError) as error:
        raise UserError(f"{path}: no CSV file with a column arch ({str(error).splitlines()[0]})") from None
    return [str(name) for name in column.to_pylist()]


def _collect(
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


def _results(log: LabelLog, names: Sequence[str], space_name: str) -> dict[str, bytes]:
    values = {name: value for name in names if (value := log.value(name)) is not None}
    failed = [name for name in names if name not in values]
    if not values:
        last = log.attempts[names[-1]][-1].error
        raise LissnasError(f"all {len(names)} trainings failed, the last one: {last}")
    metrics = {
        "space": space_name,
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
        LABELS: store.to_csv([{"arch": name, METRIC: value} for name, value in values.items()]),
        "metrics.json": store.to_json(metrics),
        ATTEMPTS: store.to_csv(attempts),
    }


def _grows(out: Path, parameters: Mapping[str, Any], depends: Mapping[str, Any]) -> bool:
    """Say whether `out` holds other networks' labels that are a function of the same, to add to them."""
    try:
        theirs = store.read_json(out / PARAMETERS)
    except (OSError, ValueError):
        return False
    return theirs != parameters and all(theirs.get(name) == value for name, value in depends.items())
