"""The steps after a shrink: train a supernet on the shrunk space, search it, retrain the best networks."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from lissnas import artifacts
from lissnas.artifacts.remote import check_out
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.benchmarks import Benchmark
from lissnas.config import MIN_LABELS, Params, TrainingConfig
from lissnas.config.resolve import recipe_of
from lissnas.core.errors import UserError
from lissnas.nets import images
from lissnas.nets.evaluation import supernet_oracle
from lissnas.nets.training import check_batches, compute_on
from lissnas.oracles.direction import MINIMIZE
from lissnas.oracles.label_table import Labels
from lissnas.predictors.accuracy import Predictor, predictor_in
from lissnas.spaces import Archs, Space
from lissnas.spaces.members import read_members
from lissnas.stages import retrain, search
from lissnas.stages import supernet as supernet_
from lissnas.stages.ranked import labels_in
from lissnas.stages.retrain import retrain_stage
from lissnas.stages.search import SearchOracle, limits_of, search_stage
from lissnas.stages.supernet import check_space, supernet_stage


def trains(params: Params) -> bool:
    """Return whether a search trains anything: a supernet, or the best networks."""
    return params.retrain.networks > 0 or needs_supernet(params)


def needs_supernet(params: Params) -> bool:
    """Return whether a search evaluates networks by a supernet."""
    return params.search.by in ("all", "supernet")


def check_settings(params: Params, space: Space) -> dict[str, TrainingConfig]:
    """Return the recipes by the parameter that names them; raises UserError for invalid settings."""
    check_space(space)
    if params.retrain.networks > params.search.top:
        raise UserError(f"retrain.networks: {params.retrain.networks} is more than search.top ({params.search.top})")
    leaves = {"supernet.recipe": params.supernet.recipe}
    if params.retrain.networks:
        leaves["retrain.recipe"] = params.retrain.recipe
    return {leaf: recipe_of(params, name, leaf) for leaf, name in leaves.items()}


def check(params: Params, space: Space) -> None:
    """Check settings, device, images and batches before anything is written; raises UserError."""
    recipes = check_settings(params, space)
    compute_on(params.torch)
    for recipe in recipes.values():
        check_batches(recipe, images.load(params.images, recipe))


def check_places(out: Path) -> None:
    """Raise UserError, before any work, if files of a user are in the way of the results of a search in `out`."""
    for place, writes in ((out, search.WRITES), (out / "supernet", supernet_.WRITES), (out / "best", retrain.WRITES)):
        check_out(place, writes)


def one_shot(
    params: Params,
    space: Space,
    truth: Benchmark | None,
    subspace: Path,
    seed: int,
    out: Path,
    supernet: Path | None = None,
    **how: Unpack[How],
) -> tuple[Outcome, Outcome | None]:
    """Search a shrunk space and retrain the best networks; return the outcomes of search and retraining.

    The supernet is trained in `out`/supernet unless `supernet` is given; retrained networks are in `out`/best.
    All input is checked before anything is trained. `truth` is the table of the space, if any: it ranks the
    networks found, and evaluates them if `search.by` is `table`.
    """
    check_places(out)
    members = read_members(subspace, space)
    limits_of(params).keep(space, members)
    if trains(params):
        check(params, space)
    if needs_supernet(params) and supernet is None:
        supernet = out / "supernet"
        supernet_stage(params, space, members, seed, supernet, **how)
    oracle = oracle_of(params, space, truth, members, subspace, supernet)
    labels = labels_of(params, subspace, space)
    found = search_stage(params, space, members, oracle, seed, out, truth, labels, **how)
    if not params.retrain.networks:
        return found, None
    best = retrain_stage(params, space.name, out, seed, out / "best", truth, **how)
    return found, best


def oracle_of(
    params: Params, space: Space, truth: Benchmark | None, members: Archs, subspace: Path, supernet: Path | None
) -> SearchOracle:
    """Return the oracle that `search.by` names.

    Raises UserError if the supernet or table is missing.
    """
    kind = params.search.by
    if kind == "table":
        if truth is None:
            raise UserError(f"search.by: {space.name} has no table; use all, labels, predictor or supernet")
        return SearchOracle(truth, truth.sha256, truth.metric, truth.minimize)
    if kind in ("labels", "predictor"):
        folder = subspace if subspace.is_dir() else subspace.parent
        model: Predictor = predictor_in(folder, space)
        return SearchOracle(lambda archs: model.value(model.score(archs)), model.sha256(), *_predicted(folder))
    if supernet is None:
        raise UserError(f"search.by: {kind} requires a trained supernet: give --supernet, or choose another one")
    return SearchOracle(*supernet_oracle(params, space, members, supernet), "accuracy in the supernet, %")


def _predicted(shrunk: Path) -> tuple[str, bool]:
    """Return the name of the metric that a shrink's predictor predicts, and whether it is minimized."""
    metrics = artifacts.read_json(shrunk / "metrics.json")
    metric, direction = metrics.get("metric", "metric"), metrics.get("direction")
    return f"predicted {metric}", direction == MINIMIZE


def labels_of(params: Params, subspace: Path, space: Space) -> Labels | None:
    """Return the labels of a shrunk space, if `search.by` uses them; raises UserError if it needs them."""
    if params.search.by not in ("all", "labels"):
        return None
    labels = labels_in(subspace, space)
    if labels is None and params.search.by == "labels":
        raise UserError(f"search.by: labels requires at least {MIN_LABELS} labels in the shrink of {subspace}")
    return labels
