"""The supernet stage: train shared weights for all networks of a shrunk space."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.config import Params, TrainingConfig
from lissnas.config.resolve import image_parameters, recipe_of
from lissnas.core.errors import UnknownName, UserError
from lissnas.core.rng import stream
from lissnas.nets import images, parallel, probe, samplers
from lissnas.nets.base import Supernet
from lissnas.nets.build import names, supernet
from lissnas.nets.files import SUPERNET_ABOUT, SUPERNET_WEIGHTS, describe_supernet, networks_of, weights
from lissnas.nets.training import Progress, compute_on, train
from lissnas.oracles.direction import stated
from lissnas.plots import figures
from lissnas.spaces import Archs, Space
from lissnas.spaces.choices import ChoiceSpace

PROBES = 3
"""Paths whose accuracy is recorded during the training."""
CURRICULUM = 10_000
"""Size of the sample that represents the whole space in a curriculum."""
WRITES = (SUPERNET_WEIGHTS, SUPERNET_ABOUT, "training.csv", "training.png", "metrics.json")
"""Names of the files of a result."""


def check_space(space: Space) -> None:
    """Raise UnknownName if a space has no supernet."""
    if space.name not in names():
        raise UnknownName("space with networks", space.name, names())


@remote_out(WRITES)
def supernet_stage(
    params: Params, space: Space, members: Archs | None, seed: int, out: Path, **how: Unpack[How]
) -> Outcome:
    """Train a supernet along paths of `members` (None: the whole space); resumes an interrupted run.

    Under `torchrun`, the first process leads; the others join its training and publish nothing.
    """
    check_space(space)
    if members is not None:
        # Sorted by key: the weights must not depend on the order of the set.
        members = members[np.unique(space.key(members), return_index=True)[1]]
    settings = params.supernet
    recipe = recipe_of(params, settings.recipe, "supernet.recipe")
    parameters = {
        "space": space.name,
        **networks_of(space, members),
        "seed": seed,
        "supernet": settings.model_dump(mode="json"),
        "recipe": recipe.model_dump(mode="json"),
        "images": image_parameters(params),
    }
    checkpoint = artifacts.Checkpoint(out, parameters)
    arguments = params, space, members, seed, recipe, checkpoint, partial(how.get("on_training", ignore), "supernet")
    if not parallel.leads():
        for _ in parallel.announced():
            train_supernet(*arguments)
        return Outcome(out, {}, reused=False)

    def work() -> dict[str, bytes]:
        model, log = how.get("call", run_here)(train_supernet, *arguments, record)
        return _files(space, members, seed, model, log, images.about(params.images, recipe))

    record = how.get("record", NO_RECORDER)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=_summary)


def _summary(record: Recorder, outcome: Outcome) -> None:
    """Record the training."""
    for row in outcome.csv("training.csv"):
        record.metrics({"loss": row["loss"], "rate": row["rate"]}, int(row["step"]))
    record.artifact(outcome.folder / "training.csv")


def train_supernet(
    params: Params,
    space: Space,
    members: Archs | None,
    seed: int,
    recipe: TrainingConfig,
    checkpoint: artifacts.Checkpoint | None,
    watch: Callable[[Progress], None],
    record: Recorder = NO_RECORDER,
) -> tuple[Supernet, list[Progress]]:
    """Build and train the supernet of `members` (None: the whole space); return it and the progress reports."""
    settings = params.supernet
    data = images.load(params.images, recipe)
    width, stride = settings.width or 1, settings.stem_stride
    model = supernet(
        space.name, members, width=width, stem_stride=stride, classes=data.classes, shots=settings.shots, seed=seed
    )
    sampler = sampler_of(settings.sampler, space, members, seed)
    if recipe.curriculum:
        if members is None:
            members = space.sample_distinct(min(CURRICULUM, space.size()), stream(seed, "curriculum"))
        middle = members[np.argsort(_size(space, members), kind="stable")[len(members) // 2]][None]
        sampler = samplers.curriculum(space, members, middle, sampler, recipe.steps, recipe.curriculum, seed)
    reports: list[Progress] = []
    parallel.announce(0)
    drawn = stream(seed, "probe").integers(len(members), size=PROBES) if members is not None else None
    paths = space.sample_distinct(PROBES, stream(seed, "probe")) if members is None else members[drawn]
    observed = probe.recorded(watch, record, model, data, recipe, paths)
    train(model, data, recipe, seed, sampler, checkpoint, observed, compute_on(params.torch), reports)
    return model, reports


def _files(
    space: Space,
    members: Archs | None,
    seed: int,
    model: Supernet,
    log: list[Progress],
    more: dict[str, str],
) -> dict[str, bytes]:
    curve = [vars(progress) for progress in log]
    about = describe_supernet(model, members)
    n = about["networks"]
    last = curve[-1]["loss"] if curve else float("nan")
    return {
        SUPERNET_WEIGHTS: weights(model),
        SUPERNET_ABOUT: artifacts.to_json(about),
        "training.csv": artifacts.to_csv(curve),
        "training.png": figures.png(figures.training(curve, f"{space.name}: supernet of {figures.big(n)} networks")),
        "metrics.json": artifacts.to_json(
            {
                "space": space.name,
                **stated("training loss", minimize=True),
                "networks": n,
                "seed": seed,
                "loss": last,
                **more,
            }
        ),
    }


def sampler_of(name: str, space: Space, members: Archs | None, seed: int) -> samplers.Sampler:
    """Return the sampler of a name over the paths of `members` (None: the whole space)."""
    whole = members is None or len(members) == space.size()
    if name == "fair" and whole and isinstance(space, ChoiceSpace) and space.free:
        return samplers.fair_product(space.possible(), seed)
    if members is None:
        if name == "uniform":
            return samplers.uniform(space, seed)
        raise UserError(
            f"supernet.sampler: {name} needs a list of networks of {space.name}; give --subspace or use uniform"
        )
    if name == "uniform":
        return samplers.over_set(members, seed)
    if name == "balanced":
        return samplers.balanced(members, _size(space, members).astype(np.float64), seed)
    return samplers.fair_set(space, members, int(space.slots(members).max()) + 1, seed)


def _size(space: Space, members: Archs) -> Any:
    costs = space.costs(members)
    if "params" not in costs:
        raise UserError(f"space {space.name} has no parameter counts, which the sampler or curriculum requires")
    return costs["params"]
