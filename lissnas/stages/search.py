"""The search stage: find the best networks of a shrunk space within cost limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Unpack

from lissnas import artifacts
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.oracles.base import Oracle
from lissnas.oracles.direction import stated
from lissnas.plots import figures
from lissnas.searchers import History, Limits, evolutionary_search, top
from lissnas.spaces import Archs, Space

HISTORY = "history.parquet"
TOP = "top.json"
WRITES = (HISTORY, TOP, "history.png", "metrics.json")
"""Names of the files of a result."""


class SearchOracle(NamedTuple):
    """What scores the networks of a search; more is better, so scores of a minimized metric are negated."""

    scores: Oracle
    sha256: str
    """Digest of the data that the scores depend on."""
    metric: str
    minimize: bool = False


def limits_of(params: Params) -> Limits:
    """Return the cost limits of a configuration, in multiply-adds and parameters."""
    s = params.search
    return Limits(
        None if s.max_mflops is None else 1e6 * s.max_mflops, None if s.max_mparams is None else 1e6 * s.max_mparams
    )


@remote_out(WRITES)
def search_stage(
    params: Params,
    space: Space,
    members: Archs,
    oracle: SearchOracle,
    seed: int,
    out: Path,
    truth: Benchmark | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Search `members` for the networks with the best `oracle` values; resumes after the last generation."""
    limits = limits_of(params)
    limits.keep(space, members)  # raises for limits that no member meets, before anything is written
    parameters = {
        "space": space.name,
        "benchmark": None if truth is None else truth.name,
        "networks_sha256": artifacts.sha256(space.key(members).tobytes()),
        "oracle_sha256": oracle.sha256,
        "seed": seed,
        "search": params.search.model_dump(mode="json"),
    }

    def work() -> dict[str, bytes]:
        checkpoint = artifacts.Checkpoint(out, parameters)
        sign, on_generation = -1 if oracle.minimize else 1, how.get("on_generation", ignore)

        def watch(history: History) -> None:
            on_generation(replace(history, sign=sign))

        arguments = space, members, oracle.scores, params.search, limits, seed
        history = how.get("call", run_here)(evolutionary_search, *arguments, checkpoint, watch)
        return _files(params, space, replace(history, sign=sign), oracle, truth)

    return run(out, parameters, work, how.get("force", False), writes=WRITES)


def _files(
    params: Params, space: Space, history: History, oracle: SearchOracle, truth: Benchmark | None
) -> dict[str, bytes]:
    best = top(space, history, params.search.top)
    costs = space.costs(history.rows)
    columns: dict[str, Any] = {
        "arch": space.format(history.rows),
        "score": history.values,
        "generation": history.generation,
        **costs,
    }
    metrics: dict[str, Any] = {
        "space": space.name,
        **stated(oracle.metric, oracle.minimize),
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
        "history.png": figures.png(figures.history(columns, int(history.best(1)[0]), title)),
        "metrics.json": artifacts.to_json(metrics),
    }
