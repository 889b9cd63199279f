"""The search stage: find the best networks of a shrunk space within cost limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.base import Oracle
from lissnas.oracles.direction import stated
from lissnas.oracles.label_table import Labels
from lissnas.plots import figures
from lissnas.searchers import History, Limits, evolutionary_search, top
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import is_in
from lissnas.stages.ranked import N_BEST, Ranking, best_row, flat

HISTORY = "history.parquet"
TOP = "top.json"
BEST = "best.json"
WRITES = (HISTORY, TOP, BEST, "history.png", "metrics.json")
"""Names of the files of a result."""
MAX_PAIRS = 40
"""Labelled members that are evaluated too, so that the weight of the evaluations can be found; more don't help."""


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
    labels: Labels | None = None,
    **how: Unpack[How],
) -> Outcome:
    """Search `members` for the best networks; resumes after the last generation.

    Evolution finds those with the best `oracle` values. With `labels`, all members are ranked by their labels and by
    what predicts them: the predictor, and the oracle's values (`searchers.fusion`).
    """
    limits = limits_of(params)
    inside = limits.keep(space, members)  # raises for limits that no member meets, before anything is written
    parameters = {
        "space": space.name,
        "benchmark": None if truth is None else truth.name,
        "networks_sha256": artifacts.sha256(space.key(members).tobytes()),
        "oracle_sha256": oracle.sha256,
        "seed": seed,
        "search": params.search.model_dump(mode="json"),
    }
    if labels is not None:
        parameters["labels_sha256"] = labels.digest(space)

    record, sign = how.get("record", NO_RECORDER), -1 if oracle.minimize else 1

    def work() -> dict[str, bytes]:
        checkpoint, call = artifacts.Checkpoint(out, parameters), how.get("call", run_here)
        ranking = None if labels is None else Ranking(params, space, inside, labels, seed)
        if ranking is not None and params.search.by == "labels":
            at = ranking.labelled
            if not len(at):
                raise UserError("search.by: no member of the shrunk space within the limits has a label")
            rows, values = inside[at], ranking.labels.values[ranking.label_of]
            history = History(rows, values, np.zeros(len(at), np.int64), -1 if ranking.labels.negated else 1)
            return _files(params, space, history, oracle, truth, Ranking(params, space, rows, ranking.labels, seed))
        on_generation = how.get("on_generation", ignore)

        def watch(history: History) -> None:
            _record_generation(record, sign * history.scores, history.generation, int(history.generation[-1]), sign)
            on_generation(replace(history, sign=sign))

        history = call(
            *(evolutionary_search, space, inside, oracle.scores, params.search, limits, seed, checkpoint, watch)
        )
        if ranking is not None:
            history = call(evaluate_labelled, space, ranking, history, oracle.scores, seed)
        return _files(params, space, replace(history, sign=sign), oracle, truth, ranking)

    summary = partial(_summary, limits, sign)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=summary)


def _record_generation(record: Recorder, scores: FloatArray, generation: IntArray, number: int, sign: int) -> None:
    """Record the best score so far, the median of a generation, and how many networks are evaluated."""
    so_far = generation <= number
    record.metrics(
        {
            "generation/best": sign * (sign * scores[so_far]).max(),
            "generation/median": np.median(scores[generation == number]),
            "generation/evaluated": int(so_far.sum()),
        },
        number,
    )


def _summary(limits: Limits, sign: int, record: Recorder, outcome: Outcome) -> None:
    """Record the search by generation, and its limits."""
    history = outcome.table(HISTORY)
    scores, generation = history["score"].to_numpy(), history["generation"].to_numpy()
    for number in np.unique(generation):
        _record_generation(record, scores, generation, int(number), sign)
    limited = [f"{name}<={limit:g}" for name, limit in vars(limits).items() if limit is not None]
    record.tags({"limits": ", ".join(limited)} if limited else {})
    for name in (TOP, BEST, HISTORY):
        record.artifact(outcome.folder / name)


def evaluate_labelled(space: Space, ranking: Ranking, history: History, oracle: Oracle, seed: int) -> History:
    """Return the history with labelled members evaluated too, up to `MAX_PAIRS` of them."""
    rows = ranking.members[ranking.labelled]
    new = rows[~is_in(space.key(rows), np.sort(space.key(history.rows)))]
    n = max(0, MAX_PAIRS - (len(rows) - len(new)))
    chosen = new[stream(seed, "labelled").permutation(len(new))[:n]]
    return history.evaluated(space, oracle, chosen, int(history.generation.max()) + 1) if len(chosen) else history


def _files(
    params: Params,
    space: Space,
    history: History,
    oracle: SearchOracle,
    truth: Benchmark | None,
    ranking: Ranking | None,
) -> dict[str, bytes]:
    k = max(params.search.top, N_BEST)
    found: dict[str, Any] = {}
    about = stated(oracle.metric, oracle.minimize)
    if ranking is None:
        rows = [_by_oracle(row, params.search.by) for row in top(space, history, k)]
    else:
        rows, fused = ranking.best(None if params.search.by == "labels" else history, k)
        labelled = {"labels": len(ranking.labelled), "labels_outside": ranking.n_outside}
        about = stated(ranking.labels.metric, ranking.labels.negated)
        found = {"supernet_weight": fused.weight, **labelled, **ranking.predictor.member_metrics()}
    best = rows[: params.search.top]
    costs = space.costs(history.rows)
    columns: dict[str, Any] = {
        "arch": space.format(history.rows),
        "score": history.values,
        "generation": history.generation,
        **costs,
    }
    metrics: dict[str, Any] = {
        "space": space.name,
        **about,
        "by": params.search.by,
        "evaluated": len(history.rows),
        "best": best[0]["arch"],
        "best_score": best[0]["score"],
        "best_reason": best[0]["reason"],
        **{f"best_{name}": value for name, value in best[0]["costs"].items()},
        **found,
    }
    if truth is not None:
        values = truth(space.parse([row["arch"] for row in best]))
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
        TOP: artifacts.to_json([flat(row) for row in best]),
        BEST: artifacts.to_json(rows[:N_BEST]),
        "history.png": figures.png(figures.history(columns, int(history.best(1)[0]), title)),
        "metrics.json": artifacts.to_json(metrics),
    }


def _by_oracle(row: Mapping[str, Any], by: str) -> dict[str, Any]:
    """Return a row of `best.json` for a network that is ranked by one evaluation alone."""
    costs = {name: value for name, value in row.items() if name not in ("arch", "score")}
    columns = {"predictor": "predicted", "supernet": "supernet"}
    known = {columns[by]: row["score"]} if by in columns else {}
    return best_row(row["arch"], row["score"], costs, by, **known)
