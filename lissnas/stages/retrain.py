"""The retrain stage: train the best networks of a search from scratch and export the best one."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from lissnas import artifacts, spaces
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.config.resolve import image_parameters, recipe_of
from lissnas.core.errors import UserError
from lissnas.nets import images, parallel, probe
from lissnas.nets.base import Network
from lissnas.nets.build import network
from lissnas.nets.files import ABOUT, WEIGHTS, describe_network, portable, weights
from lissnas.nets.probe import accuracy
from lissnas.nets.training import Progress, compute_on, train
from lissnas.oracles.direction import stated
from lissnas.stages.search import TOP
from lissnas.stages.supernet import check_space

EXPORTED = "network.pt2"
WRITES = (WEIGHTS, ABOUT, EXPORTED, "retrained.csv", "metrics.json")
"""Names of the files of a result."""
DATA_SETS = {"packaged": "CIFAR-10", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
"""The data set of images, as metrics of benchmarks name it."""


@remote_out(WRITES)
def retrain_stage(
    params: Params,
    space_name: str,
    found: Path,
    seed: int,
    out: Path,
    truth: Benchmark | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Train the best networks of the search in `found` from scratch, and export the one that `choose` selects.

    Test accuracy is only reported. Raises UserError if `found` holds no search.
    """
    space = spaces.get(space_name)
    check_space(space)
    manifest = artifacts.verify(found)
    if TOP not in manifest:
        raise UserError(f"{found} holds no result of a search; give the output folder of a search")
    top = json.loads(artifacts.read_verified(found, TOP, manifest))[: params.retrain.networks]
    if len(top) < 1:
        raise UserError("retrain.networks: expected at least 1, found 0")
    recipe = recipe_of(params, params.retrain.recipe, "retrain.recipe")
    archs = [str(b["arch"]) for b in top]
    labelled = same_task(params, truth) and any(b.get("label") is not None for b in top)
    parameters = {
        "space": space_name,
        "benchmark": None if truth is None else truth.name,
        "archs": archs,
        "seed": seed,
        "recipe": recipe.model_dump(mode="json"),
        "images": image_parameters(params),
        "width": params.supernet.width,
        "stem_stride": params.supernet.stem_stride,
        **({"labels": [b.get("label") for b in top]} if labelled else {}),
    }

    def checkpoint_of(arch: str) -> artifacts.Checkpoint:
        return artifacts.Checkpoint(tasks / arch, {**parameters, "task": arch})

    tasks = artifacts.tasks_of(out)
    if not parallel.leads():
        for number in parallel.announced():
            retrain(params, space_name, archs[number], seed, checkpoint_of(archs[number]), ignore)
        return Outcome(out, {}, reused=False)

    def work() -> dict[str, bytes]:
        rows: list[dict[str, Any]] = []
        models: list[Network] = []
        for number, arch in enumerate(archs):
            parallel.announce(number)
            watch = partial(how.get("on_training", ignore), arch)
            child = _child(record, space_name, arch, seed)
            arguments = params, space_name, arch, seed, checkpoint_of(arch), watch, child
            row, model = how.get("call", run_here)(retrain, *arguments)
            child.finish()
            if truth is not None:
                row["true"] = float(truth(space.parse([arch]))[0])
            rows.append({**row, "label": top[number].get("label")} if labelled else row)
            models.append(model)
        n_images = images.load(params.images, recipe).n_of("validation")
        at, why = choose(rows, n_images) if labelled else (_best(rows), "validation accuracy")
        chosen = rows[at]
        about = stated("accuracy on validation images, %", minimize=False)
        metrics = {"space": space_name, **about, "networks": len(rows), **chosen, "chosen_by": why}
        metrics |= images.about(params.images, recipe_of(params, params.retrain.recipe, "retrain.recipe"))
        if truth is not None:
            metrics["rank"] = truth.rank_of(chosen["true"])
            metrics["full_size"] = len(truth.values)
        return {
            **exported(models[at], params.images.side, chosen),
            "retrained.csv": artifacts.to_csv(rows),
            "metrics.json": artifacts.to_json(metrics),
        }

    record = how.get("record", NO_RECORDER)
    summary = partial(_summary, parameters)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=summary)


def _child(record: Recorder, space: str, arch: str, seed: int) -> Recorder:
    """Return the child run of a network."""
    return record.child(f"retrain {arch}", {"arch": arch, "benchmark": space, "seed": seed}, stage="network")


def _summary(parameters: Mapping[str, Any], record: Recorder, outcome: Outcome) -> None:
    """Record the accuracy of each network, and the exported one as a version in the model registry."""
    for row in outcome.csv("retrained.csv"):
        child = _child(record, parameters["space"], str(row["arch"]), parameters["seed"])
        child.metrics({name: row[name] for name in ("validation", "test", "true") if name in row})
        child.finish()
    for name in (WEIGHTS, ABOUT, "retrained.csv"):
        record.artifact(outcome.folder / name)
    about, space = outcome.json(ABOUT), spaces.get(parameters["space"])
    costs = {name: int(values[0]) for name, values in space.costs(space.parse([about["arch"]])).items()}
    held_out = {"set": "test", **{name: parameters["images"][name] for name in ("source", "folder", "side")}}
    version = {
        "name": f"lissnas-network-{about['space']}",
        "metric": "test accuracy, %",
        "value": about["test"],
        "held_out": held_out,
        "about": f"The best network found in {about['space']}, trained from scratch; test accuracy in percent",
    }
    record.metrics(costs)
    tags = {**costs, **{name: about[name] for name in ("arch", "validation", "test", "width")}}
    model = {"name": "network", "flavor": "pytorch", "file": outcome.folder / EXPORTED, "side": about["side"]}
    record.model({**model, "tags": tags, "register": version})


def same_task(params: Params, truth: Benchmark | None) -> bool:
    """Return whether the labels of a benchmark and the accuracy of retrained networks are of the same data set."""
    return truth is not None and truth.metric.split()[0] == DATA_SETS.get(params.images.source)


def choose(rows: Sequence[Mapping[str, Any]], n_images: int) -> tuple[int, str]:
    """Return the index of the network to export, and what was decisive; `rows` are in the order of the search.

    A label comes from a longer training than the one made here: the network with the best label is chosen, of those
    whose validation accuracy is within two standard errors (of a difference, `n_images` each) of the highest.
    """
    best = rows[_best(rows)]["validation"] / 100
    margin = 200 * math.sqrt(2 * best * (1 - best) / n_images)
    close = [i for i, row in enumerate(rows) if row["validation"] >= 100 * best - margin and row["label"] is not None]
    if not close:
        return _best(rows), "validation accuracy"
    return max(close, key=lambda i: float(rows[i]["label"])), "label"


def _best(rows: Sequence[Mapping[str, Any]]) -> int:
    return max(range(len(rows)), key=lambda i: float(rows[i]["validation"]))


def retrain(
    params: Params,
    space_name: str,
    arch: str,
    seed: int,
    checkpoint: artifacts.Checkpoint,
    watch: Callable[[Progress], None],
    record: Recorder = NO_RECORDER,
) -> tuple[dict[str, Any], Network]:
    """Train one network from scratch; return its accuracies and the network."""
    recipe = recipe_of(params, params.retrain.recipe, "retrain.recipe")
    data = images.load(params.images, recipe)
    row, width, stride = spaces.get(space_name).parse([arch])[0], params.supernet.width, params.supernet.stem_stride
    model = network(space_name, row, width=width or 1, stem_stride=stride, classes=data.classes, seed=seed)
    observed = probe.recorded(watch, record, model, data, recipe)
    train(model, data, recipe, seed, None, checkpoint, observed, compute_on(params.torch))
    model.cpu()
    sets = ("validation", "test")
    return {"arch": arch} | {name: accuracy(model, data.batches(name, recipe.batch_size)) for name in sets}, model


def exported(model: Network, side: int, row: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a trained network: weights, description and torch.export program."""
    about = describe_network(model, side, {name: row[name] for name in ("validation", "test")})
    return {WEIGHTS: weights(model), ABOUT: artifacts.to_json(about), EXPORTED: portable(model, side)}
