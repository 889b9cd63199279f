"""The shrink stage: a benchmark's space in, the files of a shrunk space out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.remote import anywhere
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, shrink_params
from lissnas.core.rng import stream
from lissnas.metrics.quality import good_threshold, share_good, shrink_index, top_kept
from lissnas.plots import figures
from lissnas.predictors.accuracy import Predictor, out_of_fold, tau_interval
from lissnas.shrinkers.lissnas import Call, ShrinkResult, plain_call, shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.state import FAILED, ITERATION_COLUMNS, REFERENCE, State
from lissnas.spaces import FloatArray
from lissnas.spaces.declared import DeclaredSpace
from lissnas.stages.locality import read_threshold

WEAK_TAU = 0.2
"""A predictor whose tau may be lower is said to be weak: 50 labels of NAS-Bench-101 give .45, noise 0."""
ROW_GROUP = 1 << 20
"""Members that are written at once."""


@anywhere
def shrink_stage(
    params: Params,
    source: Source,
    seed: int,
    out: Path,
    call: Call = plain_call,
    on_iteration: Callable[[State], None] | None = None,
    force: bool = False,
    threads: int = 0,
    locality: Path | None = None,
) -> Outcome:
    """Shrink a source's space into the files of a shrink; goes on where an earlier run was ended.

    `locality` is the folder of a locality stage, whose threshold distance caps the edits.

    Raises ConfigError for numbers that don't fit the space, and UserError for a folder that is in
    use or holds the result of other parameters.
    """
    space = source.space
    known = None if source.oracle is not None else 0 if source.labels is None else len(source.labels.values)
    p = shrink_params(params, source.name, seed, space.size(), source.digest, known)
    if locality is not None:
        p = p.model_copy(update={"locality_distance": read_threshold(locality, space.name)})
    labels = None if source.labels is None else (source.labels.archs, source.labels.values)
    problem = Problem(space, source.oracle, p, source.truth, source.point, threads, source.scorer, labels)
    parameters = p.model_dump(mode="json")

    def work() -> dict[str, bytes]:
        checkpoint = artifacts.Checkpoint(out, parameters)
        saved = checkpoint.load()
        state = None if saved is None else State.from_arrays(space, *saved)

        def after_iteration(now: State) -> None:
            if checkpoint.due:
                checkpoint.save(*now.to_arrays())
            if on_iteration is not None:
                on_iteration(now)

        return shrink_files(shrink(problem, call, state, after_iteration), source)

    return run(out, parameters, work, force)


def shrink_files(result: ShrinkResult, source: Source) -> dict[str, bytes]:
    """Return the files of a shrink, all functions of its parameters."""
    state = result.state
    sizes = f"{figures.big(source.space.size())} to {figures.big(result.size)}"
    title = f"{source.name}, seed {result.problem.params.seed}: {sizes} architectures"
    assert state.predictor is not None
    columns = {n: [r[n] for r in state.records] for n in ITERATION_COLUMNS if n in state.records[0]}
    labelled = np.flatnonzero(state.label_round >= 0)
    unit = source.metric if source.truth is not None else f"predicted {source.metric}"
    files = {
        "subspace.json": artifacts.to_json(result.subspace.describe()),
        "subspace.parquet": _members(result),
        "iterations.parquet": artifacts.to_parquet(columns),
        "metrics.json": artifacts.to_json(shrink_metrics(result, source)),
        "labels.parquet": artifacts.to_parquet(
            {
                "arch": source.space.format(state.rows[labelled]),
                "value": state.labels[labelled],
                "round": state.label_round[labelled].astype(np.int64),
            }
        ),
        "iterations.png": figures.png(figures.iterations(state.records, title, source.metric)),
        "edf.png": figures.png(figures.error_distributions(_distributions(result), title, unit)),
    }
    if isinstance(state.predictor, Predictor):
        model, sidecar = state.predictor.dump()
        files |= {"predictor.ubj": model, "predictor.json": artifacts.to_json(sidecar)}
    return files


def _members(result: ShrinkResult) -> bytes:
    """Return the table of the members, or of the centres of balls."""
    state, space = result.state, result.problem.space
    if result.balls is not None:
        assert state.predictor is not None
        centres, radii = result.balls.centres, result.balls.radii
        predicted = state.predictor.value(state.predictor.score(centres, result.problem.threads))
        return artifacts.to_parquet({"arch": space.format(centres), "predicted": predicted, "radius": radii})
    parts = np.array_split(result.members, max(1, -(-len(result.members) // ROW_GROUP)))
    return artifacts.to_parquet_parts(
        {
            "arch": space.format(state.rows[part]),
            "predicted": state.values(part),
            "distance": state.distance[part].astype(np.int64),
            "seed": space.format(state.rows[state.seed[part]]),
        }
        for part in parts
    )


def _distributions(result: ShrinkResult) -> dict[str, FloatArray]:
    """Return the values of the full space, the first sample and the shrunk space: true where there is a table."""
    state, truth = result.state, result.problem.truth
    if truth is None:
        shrunk = np.sort(result.sampled_values)
        return {
            "uniform sample": state.values(state.reference),
            "shrunk space": shrunk[:: -(-len(shrunk) // REFERENCE)],
        }
    return {
        "full space": truth.values,
        "first sample": truth.look_up(state.keys[state.reference]),
        "shrunk space": truth.look_up(state.keys[result.members]),
    }


def shrink_metrics(result: ShrinkResult, source: Source) -> dict[str, Any]:
    """Return what `metrics.json` says of a shrunk space: by the table where there is one, else by prediction."""
    state, params, size = result.state, result.problem.params, source.space.size()
    capped = []
    if params.max_edits < params.method.max_edits:
        capped = [f"neighbours are at most {params.max_edits} edits away, the threshold distance of this space"]
    found: dict[str, Any] = {
        "benchmark": source.name,
        "seed": params.seed,
        "variant": params.variant,
        "size": result.size,
        "full_size": size,
        "reduction": size / result.size,
        "queries": state.queries,
        "labels": state.n_labels,
        "iterations": state.iteration,
        "stop": state.stop,
    }
    if source.truth is not None:
        judged, notes = _judged_by_table(result, source.truth), list[str]()
        found["mean_predicted"] = float(state.values(result.members).mean())
    else:
        judged, notes = _judged_by_prediction(result, source)
    return found | judged | {"notes": [*source.notes, *state.notes, *capped, *notes]}


def _judged_by_table(result: ShrinkResult, truth: Benchmark) -> dict[str, Any]:
    values = truth.look_up(result.state.keys[result.members])
    threshold = good_threshold(truth.values)
    p, p_full = share_good(values, threshold), share_good(truth.values, threshold)
    return {
        "mean_true": float(values.mean()),
        "max_true": float(values.max()),
        "full_mean_true": float(truth.values.mean()),
        "full_max_true": truth.best,
        "kept_best": bool(values.max() == truth.best),
        "top10_kept": top_kept(values, truth.values),
        "p_good": p,
        "shrink_index": p - p_full,
        "shrink_index_10_2": shrink_index(p, p_full, 10, 2),
    }


def _judged_by_prediction(result: ShrinkResult, source: Source) -> tuple[dict[str, Any], list[str]]:
    """Return metrics where no table is, and notes on how far they can be trusted."""
    state, problem = result.state, result.problem
    full, values = state.values(state.reference), result.sampled_values
    threshold = good_threshold(full)
    p, p_full = share_good(values, threshold), share_good(full, threshold)
    found: dict[str, Any] = {
        "mean_predicted": float(values.mean()),
        "best_predicted": float(values.max()),
        "full_mean_predicted": float(full.mean()),
        "full_best_predicted": float(full.max()),
        "p_good": p,
        "shrink_index": p - p_full,
        "shrink_index_10_2": shrink_index(p, p_full, 10, 2),
    }
    notes = []
    if isinstance(source.space, DeclaredSpace) and not source.space.size_exact:
        fewest, most, confidence = source.space.size_interval(stream(0, "size", source.space.name))
        found |= {"full_size_low": fewest, "full_size_high": most}
        notes.append(
            f"{source.space.size():,} is the number of descriptions; {fewest:.4g} to {most:.4g} of them are different "
            f"networks ({100 * confidence:g} %)"
        )
    elif not source.space.size_exact:
        notes.append(
            f"{source.space.size():,} is the number of descriptions; some are the same network, also in what is left"
        )
    if failed := int((state.label_round == FAILED).sum()):
        notes.append(f"{failed:,} networks were to be labelled and gave no value; they are left out")
    labelled = np.flatnonzero(state.label_round >= 0)
    if len(labelled) and problem.predictor is None:
        settings, seed = problem.params.predictor, problem.params.seed
        rows, known, rng = state.rows[labelled], state.labels[labelled], stream(seed, "target")
        scores = out_of_fold(source.space, rows, known, settings, seed, rng, problem.threads)
        tau, low, high = tau_interval(scores, known)
        found |= {"tau": tau, "tau_low": low, "tau_high": high}
        if low < WEAK_TAU:
            notes.append(
                f"the predictor is too weak to trust: its cross-validated tau is {tau:.2f}, and may be as low as "
                f"{low:.2f} (95 %); collect more labels (`lissnas suggest`), or look for what is wrong with them"
            )
    return found, notes
