"""What follows a shrink: a supernet on the shrunk space, a search in it, the best networks retrained."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

from lissnas.artifacts.stage_run import How, Outcome
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, TrainingConfig
from lissnas.config.resolve import recipe_of
from lissnas.core.errors import UserError
from lissnas.nets import images
from lissnas.nets.evaluation import supernet_judge
from lissnas.nets.training import check_batches, compute_on
from lissnas.oracles.base import Oracle
from lissnas.predictors.accuracy import Predictor, predictor_in
from lissnas.spaces import Archs, Space
from lissnas.spaces.members import read_members
from lissnas.stages.retrain import retrain_stage
from lissnas.stages.search import limits_of, search_stage
from lissnas.stages.supernet import check_space, supernet_stage


def trains(params: Params) -> bool:
    """Return whether a search trains anything: a supernet that judges, or the best networks."""
    return params.retrain.networks > 0 or params.search.oracle == "supernet"


def check_settings(params: Params, space: Space) -> dict[str, TrainingConfig]:
    """Return the recipes by the leaf of params.yaml that names them; raises UserError for what no machine can train."""
    check_space(space)
    if params.retrain.networks > params.search.top:
        raise UserError(
            f"retrain.networks: {params.retrain.networks} are more than the {params.search.top} that search.top keeps"
        )
    leaves = {"supernet.recipe": params.supernet.recipe}
    if params.retrain.networks:
        leaves["retrain.recipe"] = params.retrain.recipe
    return {leaf: recipe_of(params, name, leaf) for leaf, name in leaves.items()}


def check(params: Params, space: Space) -> None:
    """Raise for what training can't do here, before anything is written: settings, device, images, batches."""
    recipes = check_settings(params, space)
    compute_on(params.torch)
    for recipe in recipes.values():
        check_batches(recipe, images.load(params.images, recipe))


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
    """Search a shrunk space, and retrain the best; return what search and retraining left.

    The supernet is trained in `out`/supernet unless a trained one is given; the retrained networks
    lie in `out`/best. All that can be wrong is checked before anything is trained. `truth` is the table
    of the space, where there is one: it ranks what was found, and judges when it is asked to.
    """
    members = read_members(subspace, space)
    limits_of(params).keep(space, members)
    if trains(params):
        check(params, space)
    if params.search.oracle == "supernet" and supernet is None:
        supernet = out / "supernet"
        supernet_stage(params, space, members, seed, supernet, **how)
    oracle, digest = judge_of(params, space, truth, members, subspace, supernet)
    found = search_stage(params, space, members, oracle, digest, seed, out, truth, **how)
    if not params.retrain.networks:
        return found, None
    best = retrain_stage(params, space.name, out, seed, out / "best", truth, **how)
    return found, best


def judge_of(
    params: Params, space: Space, truth: Benchmark | None, members: Archs, subspace: Path, supernet: Path | None
) -> tuple[Oracle, str]:
    """Return who judges, `search.oracle`, and a digest of what its answers are a function of.

    Raises UserError where a supernet or a table is to judge and there is none.
    """
    kind = params.search.oracle
    if kind == "table":
        if truth is None:
            raise UserError(f"search.oracle is table, and {space.name} has none; take supernet or predictor")
        return truth, truth.sha256
    if kind == "predictor":
        model: Predictor = predictor_in(subspace if subspace.is_dir() else subspace.parent, space)
        return (lambda archs: model.value(model.score(archs))), str(model.dump()[1]["model_sha256"])
    if supernet is None:
        raise UserError("search.oracle is supernet: give the folder of a trained one (--supernet), or another oracle")
    return supernet_judge(params, space, members, supernet)
