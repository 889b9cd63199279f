"""What follows a shrink: a supernet on the shrunk space, a search in it, the best networks retrained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas import artifacts
from lissnas.artifacts.remote import fetched
from lissnas.artifacts.stage_run import Outcome, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, TrainingConfig
from lissnas.config.resolve import recipe_of
from lissnas.core.errors import InvalidArchitecture, UserError, first_line
from lissnas.core.memory_limit import memory_for
from lissnas.nets import images
from lissnas.nets.evaluation import supernet_judge
from lissnas.nets.training import Progress, check_batches, compute_on
from lissnas.oracles.base import Oracle
from lissnas.predictors.accuracy import Predictor, predictor_in
from lissnas.searchers.evolution import History
from lissnas.spaces import Archs, Space
from lissnas.stages.retrain import retrain_stage
from lissnas.stages.search import limits_of, search_stage
from lissnas.stages.supernet import check_space, supernet_stage

MEMBERS = "subspace.parquet"
NAMES = 1 << 17
"""Names that are read at once."""


@dataclass(frozen=True)
class Watch:
    """Who is told about progress: steps of a training, and generations of a search."""

    on_training: Callable[[str, Progress], None] = lambda what, progress: None
    on_generation: Callable[[History], None] = lambda history: None


def read_members(path: Path, space: Space) -> Archs:
    """Return the members of a shrunk space from its `subspace.parquet`, or the folder that has it.

    Verified where a manifest lies beside it. Raises UserError for another space's, or an empty one.
    """
    path = fetched(path)
    path = path / MEMBERS if path.is_dir() else path
    if not path.exists():
        raise UserError(f"{path}: no such file; give the subspace.parquet of a finished shrink")
    manifest = artifacts.read_manifest(path.parent) or {}
    data = artifacts.read_verified(path.parent, path.name, manifest) if path.name in manifest else path.read_bytes()
    if "subspace.json" in manifest:
        about = json.loads(artifacts.read_verified(path.parent, "subspace.json", manifest))
        if about["space"] != space.name:
            raise UserError(f"{path} is a part of space {about['space']!r}, not of {space.name!r}")
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        kind = file.schema_arrow.field("arch").type
        if not pa.types.is_string(kind):
            raise UserError(f"{path} is no shrunk space: its column arch holds {kind}, not a name in each row")
        parts = [np.empty((0, space.genome_len), np.int8)]
        with memory_for(len(data)):
            # Names take many times the memory of rows.
            for batch in file.iter_batches(NAMES, columns=["arch"], use_threads=False):
                if batch["arch"].null_count:
                    raise UserError(f"{path} is no shrunk space: not every row of its column arch is a name")
                parts.append(_parsed(space, batch["arch"].to_pylist(), sum(map(len, parts))))
            members = np.concatenate(parts)
    except InvalidArchitecture as error:
        raise UserError(f"{path} is not of space {space.name}: {error}") from None
    except MemoryError:
        raise UserError(f"{path} is no shrunk space: it takes more memory than one of its size") from None
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no shrunk space ({first_line(error)})") from None
    if not len(members):
        raise UserError(f"{path} is empty: there is nothing to search")
    return members


def _parsed(space: Space, names: list[str], before: int) -> Archs:
    """Return rows of names of which so many came before; raises InvalidArchitecture, counted from the first of all."""
    try:
        return space.parse(names)
    except InvalidArchitecture as error:
        raise InvalidArchitecture(before + error.row, error.reason) from None


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
    call: Callable[..., Any] = run_here,
    watch: Watch | None = None,
    force: bool = False,
) -> tuple[Outcome, Outcome | None]:
    """Search a shrunk space, and retrain the best; return what search and retraining left.

    The supernet is trained in `out`/supernet unless a trained one is given; the retrained networks
    lie in `out`/best. All that can be wrong is checked before anything is trained. `truth` is the table
    of the space, where there is one: it ranks what was found, and judges when it is asked to.
    """
    watch = watch or Watch()
    members = read_members(subspace, space)
    limits_of(params).keep(space, members)
    if trains(params):
        check(params, space)
    if params.search.oracle == "supernet" and supernet is None:
        supernet = out / "supernet"
        supernet_stage(params, space, members, seed, supernet, call, lambda p: watch.on_training("supernet", p), force)
    oracle, digest = judge_of(params, space, truth, members, subspace, supernet)
    found = search_stage(params, space, members, oracle, digest, seed, out, truth, call, watch.on_generation, force)
    if not params.retrain.networks:
        return found, None
    best = retrain_stage(params, space.name, out, seed, out / "best", truth, call, watch.on_training, force)
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
