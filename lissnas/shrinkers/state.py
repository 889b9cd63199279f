"""All that a shrink has seen, and where it is: what the steps of the method pass on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lissnas.benchmarks import Benchmark
from lissnas.config import ShrinkParams
from lissnas.oracles import Oracle
from lissnas.predictor import Predictor
from lissnas.quality import good_threshold, share_good
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


@dataclass(frozen=True)
class Problem:
    """What a shrink is given, the same for all its steps.

    `oracle` gives labels, sparingly asked. `truth` is a complete table, where there is one; it is only
    reported against, never read by the method.
    """

    space: Space
    oracle: Oracle
    params: ShrinkParams
    truth: Benchmark | None = None
    point: float = 1.0
    """What a tolerance of one percent point is in the metric's unit."""
    threads: int = 0
    predictor: Predictor | None = None
    """One that is fitted already; then no labels are asked for, and it stays as it is."""
    locality: bool = True
    """False is the ablation of Appendix H.2: uniform draws stand in for neighbours."""


@dataclass(frozen=True)
class State:
    """Rows seen so far, in the order they were seen, and the current space as indices into them."""

    rows: Archs
    keys: Keys
    scores: FloatArray = field(default_factory=lambda: np.empty(0))  # NaN: not predicted yet
    labels: FloatArray = field(default_factory=lambda: np.empty(0))  # NaN: not labelled
    label_round: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # -1: not labelled
    seed: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # made from; itself if sampled
    distance: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # edits from the seed
    stratum: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    expanded: BoolArray = field(default_factory=lambda: np.empty(0, bool))  # has been a seed
    current: IntArray = field(default_factory=lambda: np.empty(0, np.int64))  # the space, best first
    previous: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    seeds: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    children: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    n_first: int = 0
    """Rows of the first, uniform sample: the first ones."""
    target: int | None = None
    capacity: int = 0
    rounds: int = 0
    iteration: int = -1
    stop: str = ""
    """Why the method stopped; empty while it goes on."""
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    predictor: Predictor | None = None
    strata: Strata | None = None

    @classmethod
    def empty(cls, space: Space) -> State:
        """Return the state before anything was seen."""
        return cls(np.empty((0, space.genome_len), np.int8), np.empty(0, np.uint64))

    @property
    def queries(self) -> int:
        """Distinct architectures sent to the predictor."""
        return int(np.isfinite(self.scores).sum())

    @property
    def n_labels(self) -> int:
        """Architectures whose true value was asked for."""
        return int((self.label_round >= 0).sum())

    def extended(self, problem: Problem, rows: Archs, seed: IntArray | None, distance: IntArray) -> State:
        """Return the state with new rows at the end; `seed` None means that they were sampled."""
        n, more = len(self.rows), len(rows)
        at = np.arange(n, n + more)
        stratum = np.zeros(more, np.int64)
        if self.strata is not None and more:
            stratum = self.strata.of_each(problem.space, rows)
        new: dict[str, Any] = {
            "rows": rows,
            "keys": problem.space.key(rows),
            "scores": np.full(more, np.nan),
            "labels": np.full(more, np.nan),
            "label_round": np.full(more, -1),
            "seed": at if seed is None else seed,
            "distance": distance,
            "stratum": stratum,
            "expanded": np.zeros(more, bool),
        }
        longer: dict[str, Any] = {name: np.concatenate([getattr(self, name), v]) for name, v in new.items()}
        return replace(self, **longer)

    def values(self, at: IntArray) -> FloatArray:
        """Return the predicted values of rows in the metric's unit."""
        assert self.predictor is not None
        return self.predictor.value(self.scores[at])

    def record(self, problem: Problem, turnover: float) -> State:
        """Return the state with this iteration's record, which replaces an earlier one of it."""
        predicted = self.values(self.current)
        truth = problem.truth
        # Judged by the truth where it is known, else by the prediction, against a uniform sample.
        full = truth.values if truth else self.values(np.arange(self.n_first))
        judged = truth.look_up(self.keys[self.current]) if truth else predicted
        threshold = good_threshold(full)
        p_good = share_good(judged, threshold)
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "size": len(self.current),
            "seen": len(self.rows),
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
            elif value is not None:
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
