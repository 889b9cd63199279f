"""State of a shrink, passed between the steps of the method: its archive and the variables of the loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lissnas.config import MIN_LABELS
from lissnas.core.errors import UserError
from lissnas.metrics.quality import good_metrics
from lissnas.predictors.accuracy import Predictor, Scorer
from lissnas.shrinkers.archive import Archive
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.selection import Strata
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import BoolArray

ITERATION_COLUMNS = (
    *("iteration", "size", "seen", "queries", "labels", "mean_predicted", "best_predicted"),
    *("turnover", "p_good", "shrink_index", "mean_true", "max_true"),
)
"""Columns of `iterations.parquet`, in order; the last two only with a table."""
INDICES = ("current", "previous", "seeds", "children", "reference", "searched")
"""Fields of the state that are row indices of the archive."""
REFERENCE = 10_000
"""Rows of the first sample that represent the full space without a table."""


def _no_rows() -> IntArray:
    return np.empty(0, np.int64)


def _no_scores() -> FloatArray:
    return np.empty(0)


@dataclass(frozen=True)
class State:
    """Archive, current space as row indices, and variables of the loop."""

    archive: Archive
    current: IntArray = field(default_factory=_no_rows)
    """The current space, best first."""
    previous: IntArray = field(default_factory=_no_rows)
    seeds: IntArray = field(default_factory=_no_rows)
    expanding: int = 0
    """Number of seeds whose neighbors were drawn in this iteration."""
    children: IntArray = field(default_factory=_no_rows)
    given: int = 0
    """Number of rows that were labelled from the start; they are the first rows."""
    n_first: int = 0
    """End of the first, uniform sample, which follows them."""
    reference: IntArray = field(default_factory=_no_rows)
    """A uniform sample that represents the full space without a table."""
    searched: IntArray = field(default_factory=_no_rows)
    """Rows that a search for the best network requested labels of."""
    forgotten: int = 0
    """Number of scored rows that were dropped to limit memory."""
    target: int | None = None
    capacity: int = 0
    rounds: int = 0
    iteration: int = -1
    stop: str = ""
    """Why the method stopped; empty while it runs."""
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    predictor: Scorer | None = None
    strata: Strata | None = None
    cross_validated: FloatArray = field(default_factory=_no_scores)
    """Out-of-fold scores of the labelled rows; empty while labels are collected."""

    @property
    def queries(self) -> int:
        """Number of architectures scored by the predictor; one that was dropped and found again counts twice."""
        return int(np.isfinite(self.archive.scores).sum()) + self.forgotten

    @property
    def seen(self) -> int:
        """Number of rows drawn, including dropped ones."""
        return len(self.archive) + self.forgotten

    @property
    def uniform(self) -> IntArray:
        """Rows of the first, uniform sample; those labelled from the start if there are no others."""
        return np.arange(self.given if self.n_first > self.given else 0, self.n_first)

    @property
    def n_labels(self) -> int:
        """Number of labelled architectures."""
        return len(self.archive.labelled)

    def extend(self, problem: Problem, rows: Archs, keys: Keys, parent: IntArray | None, distance: IntArray) -> State:
        """Return the state with new rows appended to its archive; `parent` None means that they were sampled."""
        return replace(self, archive=self.archive.extend(problem.space, rows, keys, parent, distance, self.strata))

    def keep(self, which: BoolArray) -> State:
        """Return the state with the masked rows of its archive, which have to include those of `INDICES`."""
        archive, index = self.archive.keep(which)
        dropped = int((~which & np.isfinite(self.archive.scores)).sum())
        moved: dict[str, Any] = {name: index[getattr(self, name)] for name in INDICES}
        return replace(self, archive=archive, forgotten=self.forgotten + dropped, **moved)

    def values(self, at: IntArray) -> FloatArray:
        """Return the predicted values of rows, in the metric's unit."""
        assert self.predictor is not None
        return self.predictor.value(self.archive.scores[at].astype(np.float64))

    def fit(self, problem: Problem, full: bool = True) -> State:
        """Return the state with a predictor fitted to all labelled rows; cross-validated only if `full`."""
        labelled, params = self.archive.labelled, problem.params
        rows, labels = self.archive.rows[labelled], self.archive.labels[labelled]
        like = self.predictor if isinstance(self.predictor, Predictor) and not full else None
        model = Predictor.fit(problem.space, rows, labels, params.predictor, params.seed, problem.threads, like)
        return replace(
            self, predictor=model, cross_validated=_no_scores() if model.out_of_fold is None else model.out_of_fold
        )

    def turnover(self) -> float:
        """Return the share of the current space that was not in the previous one; 0 for an empty one."""
        return float(1 - np.isin(self.current, self.previous).mean()) if len(self.current) else 0.0

    def record(self, problem: Problem, turnover: float) -> State:
        """Return the state with the record of its iteration; replaces an earlier record of it."""
        kept = tuple(r for r in self.records if r["iteration"] != self.iteration)
        return replace(self, records=(*kept, measure(self, problem, turnover)))

    # -- checkpoints -----------------------------------------------------------------------------
    def to_arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the arrays of the state, and the other fields as a JSON-serializable dict."""
        arrays: dict[str, NDArray[Any]] = self.archive.columns()
        about: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                arrays[f.name] = value
            elif isinstance(value, Predictor):
                model, kernel, sidecar = value.dump()
                arrays |= {"predictor": np.frombuffer(model, np.uint8), "kernel": np.frombuffer(kernel, np.uint8)}
                about["sidecar"] = sidecar
            elif isinstance(value, Strata):
                arrays |= {f"strata.{k}": v for k, v in value.to_arrays().items()}
            elif value is not None and f.name not in ("archive", "predictor"):  # a surrogate belongs to the problem
                about[f.name] = value
        return arrays, about

    @classmethod
    def from_arrays(cls, space: Space, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> State:
        """Restore a state from the output of `to_arrays`."""
        columns: dict[str, Any] = {f.name: arrays[f.name] for f in fields(Archive)}
        indices: dict[str, Any] = {name: arrays[name] for name in INDICES}
        strata = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("strata.")}
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in about.items() if k != "sidecar"}
        model = None
        if "predictor" in arrays:
            model = Predictor.load(space, arrays["predictor"].tobytes(), arrays["kernel"].tobytes(), about["sidecar"])
        parts = Strata.from_arrays(strata) if strata else None
        scores = arrays["cross_validated"]
        return cls(Archive(**columns), **indices, **rest, predictor=model, strata=parts, cross_validated=scores)


def measure(state: State, problem: Problem, turnover: float) -> dict[str, Any]:
    """Return the row of `iterations.parquet` for the current space.

    Values are those of the table, or else predictions, compared with a uniform sample; they are in the metric's sign.
    """
    predicted, truth = state.values(state.current), problem.truth
    full = truth.values if truth else state.values(state.reference)
    values = truth.look_up(state.archive.keys[state.current]) if truth else predicted
    if truth is None and isinstance(state.predictor, Predictor) and np.ptp(full) == 0:
        raise UserError(
            f"the predictor learned nothing from {state.n_labels:,} labels: all its predictions are "
            f"{problem.source.sign * full[0]:g}. Check that the values belong to the networks, or collect more labels "
            "(`lissnas suggest`)"
        )
    good, sign = good_metrics(values, full), problem.source.sign
    row: dict[str, Any] = {
        "iteration": state.iteration,
        "size": len(state.current),
        "seen": state.seen,
        "queries": state.queries,
        "labels": state.n_labels,
        "mean_predicted": sign * float(predicted.mean()),
        "best_predicted": sign * float(predicted.max()),
        "turnover": turnover,
        "p_good": good["p_good"],
        "shrink_index": good["shrink_index"],
    }
    if truth:
        row |= {"mean_true": sign * float(values.mean()), "max_true": sign * float(values.max())}
    return row


def uniform_labels(problem: Problem) -> int:
    """Return the number of labels for the first, uniform sample: a share of them, at least `MIN_LABELS`."""
    labels = problem.params.labels
    return max(math.ceil(problem.params.method.first_labels * labels), min(labels, MIN_LABELS))


def labels_due(state: State, problem: Problem) -> bool:
    """Return whether label budget and label rounds remain."""
    params = problem.params
    due = state.archive.n_requested < params.labels and state.rounds <= params.method.label_rounds
    return due and problem.predictor is None and problem.source.oracle is not None
