"""The search stage: find the best networks of a shrunk space within cost limits."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.oracles.base import Oracle
from lissnas.plots import figures
from lissnas.searchers.evolution import History, Limits, evolutionary_search, top
from lissnas.spaces import Archs, FloatArray, IntArray, Space

HISTORY = "history.parquet"
TOP = "top.json"


def limits_of(params: Params) -> Limits:
    """Return the cost limits of a configuration, in multiply-adds and parameters."""
    s = params.search
    return Limits(
        None if s.max_mflops is None else 1e6 * s.max_mflops, None if s.max_mparams is None else 1e6 * s.max_mparams
    )


@remote_out
def search_stage(
    params: Params,
    space: Space,
    members: Archs,
    oracle: Oracle,
    oracle_sha256: str,
    seed: int,
    out: Path,
    truth: Benchmark | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Search `members` for the networks with the highest `oracle` values; resumes after the last generation."""
    limits = limits_of(params)
    limits.keep(space, members)  # raises for limits that no member meets, before anything is written
    parameters = {
        "space": space.name,
        "benchmark": None if truth is None else truth.name,
        "networks_sha256": artifacts.sha256(space.key(members).tobytes()),
        "oracle_sha256": oracle_sha256,
        "seed": seed,
        "search": params.search.model_dump(mode="json"),
    }

    record = how.get("record", NO_RECORDER)

    def work() -> dict[str, bytes]:
        checkpoint = artifacts.Checkpoint(out, parameters)
        arguments = space, members, oracle, params.search, limits, seed

        def watch(history: History) -> None:
            _record_generation(record, history.scores, history.generation, int(history.generation[-1]))
            how.get("on_generation", ignore)(history)

        history = how.get("call", run_here)(evolutionary_search, *arguments, checkpoint, watch)
        return _files(params, space, history, truth)

    return run(out, parameters, work, how.get("force", False), record=record, summary=partial(_summary, limits))


def _record_generation(record: Recorder, scores: FloatArray, generation: IntArray, number: int) -> None:
    """Record the best score so far, the median of a generation, and how many networks are evaluated."""
    so_far = generation <= number
    record.metrics(
        {
            "generation/best": scores[so_far].max(),
            "generation/median": np.median(scores[generation == number]),
            "generation/evaluated": int(so_far.sum()),
        },
        number,
    )


def _summary(limits: Limits, record: Recorder, outcome: Outcome) -> None:
    """Record the search by generation, and its limits."""
    history = outcome.table(HISTORY)
    scores, generation = history["score"].to_numpy(), history["generation"].to_numpy()
    for number in np.unique(generation):
        _record_generation(record, scores, generation, int(number))
    limited = [f"{name}<={limit:g}" for name, limit in vars(limits).items() if limit is not None]
    record.tags({"limits": ", ".join(limited)} if limited else {})
    for name in (TOP, HISTORY):
        record.artifact(outcome.folder / name)


def _files(params: Params, space: Space, history: History, truth: Benchmark | None) -> dict[str, bytes]:
    best = top(space, history, params.search.top)
    costs = space.costs(history.rows)
    columns: dict[str, Any] = {
        "arch": space.format(history.rows),
        "score": history.scores,
        "generation": history.generation,
        **costs,
    }
    metrics: dict[str, Any] = {
        "space": space.name,
        "evaluated": len(history.rows),
        "best_score": best[0]["score"],
        **{f"best_{name}": best[0][name] for name in costs},
    }
    if truth is not None:
        values = truth(history.rows[history.best(params.search.top)])
        metrics |= {
            "best_true": float(values[0]),
            "best_rank": truth.rank_of(float(values[0])),
            "top_max_true": float(values.max()),
            "top_best_rank": truth.rank_of(float(values.max())),
            "full_size": len(truth.values),
        }
    title = f"{space.name}: {len(history.rows):,} networks evaluated"
    return {
        HISTORY: artifacts.to_parquet(columns),
        TOP: artifacts.to_json(best),
        "history.png": figures.png(figures.history(columns, title)),
        "metrics.json": artifacts.to_json(metrics),
    }
