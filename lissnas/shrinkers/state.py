"""All that a shrink has seen, and where it is: what the steps of the method pass on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lissnas.metrics.quality import good_threshold, share_good
from lissnas.predictors.accuracy import Predictor, Scorer
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import Strata
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import BoolArray

ITERATION_COLUMNS = (
    "iteration",
    "size",
    "seen",
    "queries",
    "labels",
    "mean_predicted",
    "best_predicted",
    "turnover",
    "p_good",
    "shrink_index",
    "mean_true",
    "max_true",
)
"""Columns of the record of the iterations, in order; the last two where there is a table."""


Scores: TypeAlias = NDArray[np.float32]
Small: TypeAlias = NDArray[np.int8]
Stratum: TypeAlias = NDArray[np.int16]
Index: TypeAlias = NDArray[np.int32]


UNLABELLED, FAILED = -1, -2
"""In place of the round in which a network was labelled: never asked for, asked for in vain."""
BY_ROW = ("rows", "keys", "scores", "labels", "label_round", "seed", "distance", "stratum", "expanded")
"""Fields of the state with an entry a row."""
BY_INDEX = ("current", "previous", "seeds", "children", "reference")
"""Fields that point at rows."""
REFERENCE = 10_000
"""Rows of the first sample that stand for the full space where there is no table."""


@dataclass(frozen=True)
class State:
    """Rows seen so far, in the order they were seen, and the current space as indices into them."""

    # As narrow as they can be: there may be tens of millions of rows.
    rows: Archs
    keys: Keys
    scores: Scores = field(default_factory=lambda: np.empty(0, np.float32))  # NaN: not predicted yet
    labels: FloatArray = field(default_factory=lambda: np.empty(0, np.float64))  # NaN: not labelled
    label_round: Small = field(default_factory=lambda: np.empty(0, np.int8))  # or UNLABELLED, FAILED
    seed: Index = field(default_factory=lambda: np.empty(0, np.int32))  # made from; itself if sampled
    distance: Small = field(default_factory=lambda: np.empty(0, np.int8))  # edits from the seed
    stratum: Stratum = field(default_factory=lambda: np.empty(0, np.int16))
    expanded: BoolArray = field(default_factory=lambda: np.empty(0, np.bool_))  # has been a seed
    current: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # the space, best first
    previous: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    seeds: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    expanding: int = 0  # how many of the seeds had their neighbours drawn in this iteration
    children: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    given: int = 0
    """Rows that were labelled from the start: the first ones."""
    n_first: int = 0
    """Where the first, uniform sample ends, which comes after them."""
    reference: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    """A uniform sample that stands for the full space where there is no table."""
    forgotten: int = 0
    """Rows that were scored and dropped, so that the rest fits in memory."""
    target: int | None = None
    capacity: int = 0
    rounds: int = 0
    iteration: int = -1
    stop: str = ""
    """Why the method stopped; empty while it goes on."""
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    predictor: Scorer | None = None
    strata: Strata | None = None

    @classmethod
    def empty(cls, space: Space) -> State:
        """Return the state before anything was seen."""
        return cls(np.empty((0, space.genome_len), np.int8), np.empty(0, np.uint64))

    @property
    def queries(self) -> int:
        """Distinct architectures sent to the predictor; one forgotten and found again counts twice."""
        return int(np.isfinite(self.scores).sum()) + self.forgotten

    @property
    def seen(self) -> int:
        """Rows that were drawn, those that were forgotten among them."""
        return len(self.rows) + self.forgotten

    @property
    def uniform(self) -> IntArray:
        """The first, uniform sample; the labelled networks where those are all there are."""
        return np.arange(self.given if self.n_first > self.given else 0, self.n_first)

    @property
    def n_labels(self) -> int:
        """Architectures whose true value is known."""
        return int((self.label_round >= 0).sum())

    @property
    def n_asked(self) -> int:
        """Architectures whose true value was asked for, in vain too: what a budget of labels pays for."""
        return int((self.label_round != UNLABELLED).sum())

    def extended(self, problem: Problem, rows: Archs, keys: Keys, seed: IntArray | None, distance: IntArray) -> State:
        """Return the state with new rows at the end; `seed` None means that they were sampled."""
        n, more = len(self.rows), len(rows)
        at = np.arange(n, n + more)
        stratum = np.zeros(more, np.int16)
        if self.strata is not None and more:
            stratum = self.strata.of_each(problem.space, rows).astype(np.int16)
        new: dict[str, Any] = {
            "rows": rows,
            "keys": keys,
            "scores": np.full(more, np.nan, np.float32),
            "labels": np.full(more, np.nan),
            "label_round": np.full(more, UNLABELLED, np.int8),
            "seed": (at if seed is None else seed).astype(np.int32),
            "distance": distance.astype(np.int8),
            "stratum": stratum,
            "expanded": np.zeros(more, bool),
        }
        longer: dict[str, Any] = {name: np.concatenate([getattr(self, name), new[name]]) for name in BY_ROW}
        return replace(self, **longer)

    def keeping(self, keep: BoolArray) -> State:
        """Return the state with the rows where `keep` holds; all that it points at must be among them."""
        place = np.cumsum(keep) - 1
        parts: dict[str, Any] = {name: getattr(self, name)[keep] for name in BY_ROW}
        parts |= {name: place[getattr(self, name)] for name in BY_INDEX}
        parts["seed"] = place[parts["seed"]].astype(np.int32)
        dropped = int((~keep & np.isfinite(self.scores)).sum())
        return replace(self, forgotten=self.forgotten + dropped, **parts)

    def values(self, at: IntArray) -> FloatArray:
        """Return the predicted values of rows in the metric's unit."""
        assert self.predictor is not None
        return self.predictor.value(self.scores[at].astype(np.float64))

    def record(self, problem: Problem, turnover: float) -> State:
        """Return the state with this iteration's record, which replaces an earlier one of it."""
        predicted = self.values(self.current)
        truth = problem.truth
        # Judged by the truth where it is known, else by the prediction, against a uniform sample.
        full = truth.values if truth else self.values(self.reference)
        judged = truth.look_up(self.keys[self.current]) if truth else predicted
        threshold = good_threshold(full)
        p_good = share_good(judged, threshold)
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "size": len(self.current),
            "seen": self.seen,
            "queries": self.queries,
            "labels": self.n_labels,
            "mean_predicted": float(predicted.mean()),
            "best_predicted": float(predicted.max()),
            "turnover": turnover,
            "p_good": p_good,
            "shrink_index": p_good - share_good(full, threshold),
        }
        if truth:
            row |= {"mean_true": float(judged.mean()), "max_true": float(judged.max())}
        kept = tuple(r for r in self.records if r["iteration"] != self.iteration)
        return replace(self, records=(*kept, row))

    # -- checkpoints -----------------------------------------------------------------------------
    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the state as arrays, and as what JSON can say of the rest."""
        arrays: dict[str, NDArray[Any]] = {}
        about: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                arrays[f.name] = value
            elif isinstance(value, Predictor):
                model, sidecar = value.dump()
                arrays["predictor"] = np.frombuffer(model, np.uint8)
                about["sidecar"] = sidecar
            elif isinstance(value, Strata):
                arrays |= {f"strata.{k}": v for k, v in value.to_arrays().items()}
            elif value is not None and f.name != "predictor":  # a surrogate is the problem's, not the state's
                about[f.name] = value
        return arrays, about

    @classmethod
    def from_arrays(cls, space: Space, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> State:
        """Return the state that `to_arrays` was called on."""
        plain: dict[str, Any] = {k: v for k, v in arrays.items() if k != "predictor" and not k.startswith("strata.")}
        strata = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("strata.")}
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items() if k != "sidecar"}
        model = None
        if "predictor" in arrays:
            model = Predictor.load(space, arrays["predictor"].tobytes(), json.dumps(about["sidecar"]))
        return cls(**plain, **rest, predictor=model, strata=Strata.from_arrays(strata) if strata else None)
