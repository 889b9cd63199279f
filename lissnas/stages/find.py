"""The best network for a number of trainings: a guided search of a space or shrunk space, from the labels so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator

from lissnas import artifacts
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import Outcome, ignore, run
from lissnas.config import Params, PredictorConfig
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.label_table import Labels
from lissnas.plots import figures
from lissnas.predictors.ranks import normal_scores
from lissnas.searchers import History, Search
from lissnas.searchers.base import Searched, space_of
from lissnas.searchers.guided import BATCH, FIRST, Evidence, candidates, propose
from lissnas.shrinkers.labelling import SEARCH, UNIFORM
from lissnas.shrinkers.problem import Source
from lissnas.spaces import Archs, FloatArray
from lissnas.spaces.subspace import Subspace
from lissnas.stages.ranked import N_BEST, best_row, or_none
from lissnas.stages.search import BEST, HISTORY

if TYPE_CHECKING:
    import pandas as pd

WRITES = (HISTORY, BEST, "history.png", "metrics.json")
"""Names of the files of a result."""
GIVEN = "given"
"""The kind of a network that was labelled from the start; the others are uniform, or proposed by the search."""


@dataclass(frozen=True)
class SearchResult:
    """Networks with a value, in order of evaluation, and the best ones, unlabelled ones included.

    Example:
        >>> import lissnas
        >>> found = lissnas.search("nas_bench_macro", lissnas.benchmark("nas_bench_macro"), n=30)
        >>> found.to_pandas().columns.tolist(), len(found.best)
        (['arch', 'value', 'round', 'kind', 'predicted'], 10)
    """

    source: Source
    history: History
    """Given labels first, as generation 0; values are higher is better, NaN for failed trainings."""
    kinds: list[str]
    predicted: FloatArray
    """Expected values given all labels, in the metric's unit; NaN if there are too few."""
    best: list[dict[str, Any]]
    """At most ten, best first: `arch, score, label, predicted, supernet, costs, reason`."""

    def to_pandas(self) -> pd.DataFrame:
        """Return the networks as `arch, value, round, kind, predicted`, in the metric's unit."""
        import pandas as pd

        return pd.DataFrame(self.columns())

    def columns(self) -> dict[str, Any]:
        """Return the columns of `history.parquet`."""
        return {
            "arch": self.source.space.format(self.history.rows),
            "value": self.source.sign * self.history.scores,
            "round": self.history.generation,
            "kind": self.kinds,
            "predicted": self.predicted,
        }


def find(
    source: Source,
    searched: Searched,
    n: int,
    params: Params,
    seed: int,
    history: History | None = None,
    on_batch: Callable[[History], None] = ignore,
) -> SearchResult:
    """Evaluate `n` more networks of a space or subspace by the source's oracle; rank all that is known.

    Given labels are learned from, those outside the subspace too. `history` continues an earlier search. Raises
    UserError without labels if nothing can be evaluated.
    """
    space, trees = source.space, params.predictor
    start, outside = _given(searched, source.labels)
    n_given = len(start.rows)
    if n and source.oracle is None:
        raise UserError(f"--n: nothing evaluates networks of {space.name}: give --oracle-command, or leave --n out")
    if not n and source.labels is None:
        raise UserError(f"neither labels nor evaluations of {space.name}: give --labels, or an oracle and --n")

    def by_all(searched: Searched, history: History, n: int, rng: Generator) -> Archs:
        known = evidence(history, outside)
        return propose(searched, known, n, rng, trees) if len(known.rows) >= FIRST else history.rows[:0]

    if n:
        assert source.oracle is not None
        search, rng = Search(by_all, BATCH), stream(seed, "search network")
        start = search(searched, source.oracle, n + len(start.rows), rng, history or start, on_batch)
    order = np.arange(len(start.rows))
    kinds = np.where(order < n_given, GIVEN, np.where(order < FIRST - len(outside[0]), UNIFORM, SEARCH))
    known = evidence(start, outside)
    best, predicted = _best(source, searched, start, known, trees, seed)
    return SearchResult(source, start, [str(kind) for kind in kinds], predicted, best)


def evidence(history: History, outside: tuple[Archs, FloatArray]) -> Evidence:
    """Return what a search knows: its history, and labels outside the subspace."""
    rows, values = np.concatenate([history.rows, outside[0]]), np.concatenate([history.scores, outside[1]])
    return Evidence(rows, values, history.rows[:0])


def _given(searched: Searched, labels: Labels | None) -> tuple[History, tuple[Archs, FloatArray]]:
    """Return given labels of members as a history, and the others."""
    if labels is None:
        none = History.empty(space_of(searched))
        return none, (none.rows, none.scores)
    member = searched.contains(labels.archs) if isinstance(searched, Subspace) else np.ones(len(labels.archs), bool)
    history = History(labels.archs[member], labels.values[member], np.zeros(int(member.sum()), np.int64))
    return history, (labels.archs[~member], labels.values[~member])


def _best(
    source: Source, searched: Searched, history: History, known: Evidence, trees: PredictorConfig, seed: int
) -> tuple[list[dict[str, Any]], FloatArray]:
    """Return the ten best networks, evaluated ones by their value and others by the posterior, and the predictions."""
    space, at = source.space, history.known()
    rows, values = history.rows[at], history.scores[at]
    scores, labels = normal_scores(values) if len(values) else values, values
    predicted, expected = np.full(len(history.rows), np.nan), np.full(len(rows), np.nan)
    if known.informative and len(known.rows) >= FIRST:
        posterior = known.posterior(space, trees, seed)
        predicted = posterior.value(posterior.mean(space.encode(history.rows)))
        others, mean = candidates(searched, known, posterior, stream(seed, "best"))
        everything = np.sort(known.values[~np.isnan(known.values)])
        scores = np.interp(values, everything, normal_scores(everything))
        rows, scores = np.concatenate([rows, others]), np.concatenate([scores, mean])
        labels = np.concatenate([values, np.full(len(others), np.nan)])
        expected = np.concatenate([predicted[at], posterior.value(mean)])
    order = np.argsort(-scores, kind="stable")[:N_BEST]
    sign, costs, best = source.sign, space.costs(rows[order]), []
    for j, (i, name) in enumerate(zip(order.tolist(), space.format(rows[order]), strict=True)):
        label, value = or_none(sign * labels[i]), or_none(sign * expected[i])
        paid, reason = (
            {cost: int(column[j]) for cost, column in costs.items()},
            "prediction" if label is None else "label",
        )
        score = sign * float(expected[i]) if label is None else label
        best.append(best_row(name, score, paid, reason, label, value))
    return best, sign * predicted


@remote_out(WRITES)
def find_stage(
    params: Params,
    source: Source,
    searched: Searched,
    n: int,
    seed: int,
    out: Path,
    on_batch: Callable[[History], None] = ignore,
    force: bool = False,
) -> Outcome:
    """Search for the best network by `n` evaluations and write history, best networks and picture; resumes."""
    members = searched if isinstance(searched, Subspace) else None
    parameters = {
        "space": source.space.name,
        "source_sha256": source.digest,
        "subspace_sha256": None if members is None else _digest(members),
        "n": n,
        "seed": seed,
        "predictor": params.predictor.model_dump(mode="json"),
    }

    def work() -> dict[str, bytes]:
        checkpoint = artifacts.Checkpoint(out, parameters)
        saved = checkpoint.load()
        earlier = saved and History(saved[0]["rows"], saved[0]["scores"], saved[0]["generation"])

        def after_batch(history: History) -> None:
            checkpoint.save({"rows": history.rows, "scores": history.scores, "generation": history.generation}, {})
            on_batch(replace(history, sign=source.sign))

        found = find(source, searched, n, params, seed, earlier, after_batch)
        if not found.best:
            raise UserError(f"all evaluations of {source.space.name} failed")
        columns = found.columns()
        metrics: dict[str, Any] = {
            "space": source.space.name,
            **source.stated,
            "evaluated": len(found.kinds) - found.kinds.count(GIVEN),
            "labels": len(found.history.known()),
            "failed": len(found.kinds) - len(found.history.known()),
            "best": found.best[0]["arch"],
            "best_score": found.best[0]["score"],
            "best_reason": found.best[0]["reason"],
            "notes": [*source.notes],
        }
        if source.truth is not None:
            value = float(source.truth(source.space.parse([found.best[0]["arch"]]))[0])
            metrics |= {"best_true": value, "best_rank": source.truth.rank_of(value), "full_size": source.space.size()}
        known = found.history.known()
        kinds = [found.kinds[i] for i in known.tolist()]
        title = f"{source.name}: {len(known):,} networks with a value"
        picture = figures.search_curve(columns["value"][known], kinds, title, source.metric, source.minimize)
        return {
            HISTORY: artifacts.to_parquet(columns),
            BEST: artifacts.to_json(found.best),
            "history.png": figures.png(picture),
            "metrics.json": artifacts.to_json(metrics),
        }

    return run(out, parameters, work, force, writes=WRITES)


def _digest(members: Subspace) -> str:
    rows = members.members if members.balls is None else members.balls.centres
    return artifacts.sha256(members.space.key(rows).tobytes())
