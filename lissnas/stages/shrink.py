"""The shrink stage: a benchmark's space in, the files of a shrunk space out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import store
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, shrink_params
from lissnas.errors import UserError
from lissnas.predictor import Predictor
from lissnas.quality import good_threshold, share_good, shrink_index, top_kept
from lissnas.report import figures
from lissnas.shrinkers.lissnas import Call, ShrinkResult, plain_call, shrink
from lissnas.shrinkers.state import ITERATION_COLUMNS, Problem, State
from lissnas.spaces import Space
from lissnas.stages.base import Outcome, run
from lissnas.stages.locality import read_threshold


def shrink_stage(
    params: Params,
    benchmark: Benchmark,
    seed: int,
    out: Path,
    call: Call = plain_call,
    on_iteration: Callable[[State], None] | None = None,
    force: bool = False,
    threads: int = 0,
    locality: Path | None = None,
) -> Outcome:
    """Shrink a benchmark's space into the files of a shrink; goes on where an earlier run was ended.

    `locality` is the folder of a locality stage, whose threshold distance caps the edits.

    Raises ConfigError for numbers that don't fit the space, and UserError for a folder that is in
    use or holds the result of other parameters.
    """
    p = shrink_params(params, benchmark.name, seed, benchmark.space.size(), benchmark.sha256)
    if locality is not None:
        p = p.model_copy(update={"locality_distance": read_threshold(locality, benchmark.space.name)})
    problem = Problem(benchmark.space, benchmark, p, benchmark, benchmark.point, threads)
    parameters = p.model_dump(mode="json")

    def work() -> dict[str, bytes]:
        checkpoint = store.Checkpoint(out, parameters)
        state = None
        if force:
            checkpoint.clear()
        elif (saved := checkpoint.load()) is not None:
            state = State.from_arrays(benchmark.space, *saved)

        def after_iteration(now: State) -> None:
            checkpoint.save(*now.to_arrays())
            if on_iteration is not None:
                on_iteration(now)

        return shrink_files(shrink(problem, call, state, after_iteration), benchmark)

    return run(out, parameters, work, force)


def shrink_files(result: ShrinkResult, benchmark: Benchmark) -> dict[str, bytes]:
    """Return the files of a shrink, all functions of its parameters."""
    problem, state, space = result.problem, result.state, result.problem.space
    assert state.predictor is not None
    members = result.members
    labelled = np.flatnonzero(state.label_round >= 0)
    values = benchmark.look_up(state.keys[members])
    title = f"{benchmark.name}, seed {problem.params.seed}: {space.size():,} to {len(members):,} architectures"
    distributions = {
        "full space": benchmark.values,
        "first sample": benchmark.look_up(state.keys[: state.n_first]),
        "shrunk space": values,
    }
    model, sidecar = state.predictor.dump()
    columns = {n: [r[n] for r in state.records] for n in ITERATION_COLUMNS if n in state.records[0]}
    return {
        "subspace.json": store.to_json(result.subspace.describe()),
        "subspace.parquet": store.to_parquet(
            {
                "arch": space.format(state.rows[members]),
                "predicted": state.values(members),
                "distance": state.distance[members],
                "seed": space.format(state.rows[state.seed[members]]),
            }
        ),
        "iterations.parquet": store.to_parquet(columns),
        "metrics.json": store.to_json(shrink_metrics(result, benchmark)),
        "labels.parquet": store.to_parquet(
            {
                "arch": space.format(state.rows[labelled]),
                "value": state.labels[labelled],
                "round": state.label_round[labelled],
            }
        ),
        "predictor.ubj": model,
        "predictor.json": store.to_json(sidecar),
        "iterations.png": figures.png(figures.iterations(state.records, title, benchmark.metric)),
        "edf.png": figures.png(figures.error_distributions(distributions, title, benchmark.metric)),
    }


def shrink_metrics(result: ShrinkResult, benchmark: Benchmark) -> dict[str, Any]:
    """Return what `metrics.json` says of a shrunk space, against the benchmark's table."""
    state, params, size = result.state, result.problem.params, benchmark.space.size()
    values = benchmark.look_up(state.keys[result.members])
    threshold = good_threshold(benchmark.values)
    capped = []
    if params.max_edits < params.method.max_edits:
        capped = [f"neighbours are at most {params.max_edits} edits away, the threshold distance of this space"]
    p, p_full = share_good(values, threshold), share_good(benchmark.values, threshold)
    return {
        "benchmark": benchmark.name,
        "seed": params.seed,
        "variant": params.variant,
        "size": len(result.members),
        "full_size": size,
        "reduction": size / len(result.members),
        "queries": state.queries,
        "labels": state.n_labels,
        "iterations": state.iteration,
        "stop": state.stop,
        "notes": [*state.notes, *capped],
        "mean_predicted": float(state.values(result.members).mean()),
        "mean_true": float(values.mean()),
        "max_true": float(values.max()),
        "full_mean_true": float(benchmark.values.mean()),
        "full_max_true": benchmark.best,
        "kept_best": bool(values.max() == benchmark.best),
        "top10_kept": top_kept(values, benchmark.values),
        "p_good": p,
        "shrink_index": p - p_full,
        "shrink_index_10_2": shrink_index(p, p_full, 10, 2),
    }


def predictor_in(folder: Path, space: Space) -> Predictor:
    """Return the predictor that a shrink left in its folder, once verified; raises UserError, DamagedFile."""
    remedy = "Make it again: the shrink's command with --force"
    manifest = store.verify(folder, remedy)
    if "predictor.ubj" not in manifest:
        raise UserError(f"{folder} holds no predictor; give the folder of a finished shrink")
    model, sidecar = (store.read_verified(folder, f"predictor.{end}", manifest, remedy) for end in ("ubj", "json"))
    return Predictor.load(space, model, sidecar)
