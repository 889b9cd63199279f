"""The networks of a shrunk space ranked by all evidence: their labels, the predictor, and what a search evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts
from lissnas.config import MIN_LABELS, Params
from lissnas.oracles.direction import MINIMIZE
from lissnas.oracles.label_table import Labels, read_labels
from lissnas.predictors import Predictor
from lissnas.predictors.ranks import normal_scores
from lissnas.searchers import History
from lissnas.searchers.fusion import Fused, fuse
from lissnas.spaces import Archs, FloatArray, IntArray, Space
from lissnas.spaces.base import is_in

LABELS = "labels.parquet"
N_BEST = 10
"""Networks in `best.json`."""


def labels_in(subspace: Path, space: Space) -> Labels | None:
    """Return the labels that a finished shrink paid for; None if there are too few to predict by, or none."""
    folder = subspace if subspace.is_dir() else subspace.parent
    manifest = artifacts.read_manifest(folder) or {}
    if LABELS not in manifest:
        return None
    artifacts.read_verified(folder, LABELS, manifest)
    about = artifacts.read_json(folder / "metrics.json")
    minimize = about.get("direction") == MINIMIZE
    found = read_labels(folder / LABELS, space, "value", min_labels=0, minimize=minimize)
    found = replace(found, metric=about.get("metric", found.metric))
    enough = len(found.values) >= MIN_LABELS and float(np.ptp(found.values)) > 0
    return found if enough else None


class Ranking:
    """Members of a shrunk space with label, prediction and score; the predictor is fitted to the labels."""

    def __init__(self, params: Params, space: Space, members: Archs, labels: Labels, seed: int) -> None:
        self.space, self.members, self.labels = space, members, labels
        self.predictor = Predictor.fit(space, labels.archs, labels.values, params.predictor, seed)
        keys, known = space.key(members), space.key(labels.archs)
        order = np.argsort(known)
        self.labelled: IntArray = np.flatnonzero(is_in(keys, known[order]))
        self.label_of: IntArray = order[np.searchsorted(known[order], keys[self.labelled])]
        """For each labelled member, the index of its label."""
        self._keys = keys

    @property
    def n_outside(self) -> int:
        """Number of labelled networks that are no members: the predictor learns from them."""
        return len(self.labels.values) - len(self.labelled)

    def fused(self, history: History | None) -> tuple[Fused, FloatArray, FloatArray]:
        """Return the fused scores, the predictions (cross-validated if labelled), and the evaluations of `history`."""
        model = self.predictor
        assert model.out_of_fold is not None
        predicted, evaluated = model.score(self.members), np.full(len(self.members), np.nan)
        if history is not None:
            order = np.argsort(self._keys)
            at = order[np.searchsorted(self._keys[order], self.space.key(history.rows))]
            evaluated[at] = history.scores
        target = normal_scores(self.labels.values)[self.label_of]
        found = fuse(predicted, evaluated, self.labelled, target, model.out_of_fold[self.label_of])
        predicted[self.labelled] = model.out_of_fold[self.label_of]
        return found, predicted, evaluated

    def best(self, history: History | None, k: int) -> tuple[list[dict[str, Any]], Fused]:
        """Return the `k` best as `arch, score, label, predicted, supernet, costs, reason`, best first; and all scores.

        `score`, `label` and `predicted` are in the metric's unit, `supernet` in that of the history.
        """
        found, predicted, evaluated = self.fused(history)
        at = np.argsort(-found.scores, kind="stable")[:k]
        sign = -1.0 if self.labels.negated else 1.0
        labels = np.full(len(self.members), np.nan)
        labels[self.labelled] = self.labels.measured[self.label_of]
        scores, values = (sign * self.predictor.value(s[at]) for s in (found.scores, predicted))
        scores = np.where(np.isnan(labels[at]), scores, labels[at])
        costs = self.space.costs(self.members[at])
        rows = []
        for i, name in enumerate(self.space.format(self.members[at])):
            label, other = or_none(labels[at[i]]), or_none(evaluated[at[i]])
            both = found.weight > 0 and other is not None
            reason = "label" if label is not None else "prediction and supernet" if both else "prediction"
            paid = {cost: int(value[i]) for cost, value in costs.items()}
            rows.append(best_row(name, float(scores[i]), paid, reason, label, float(values[i]), other))
        return rows, found


def best_row(
    arch: str,
    score: float,
    costs: Mapping[str, int],
    reason: str,
    label: float | None = None,
    predicted: float | None = None,
    supernet: float | None = None,
) -> dict[str, Any]:
    """Return a row of `best.json`; values that are not known are None."""
    known = {"label": label, "predicted": predicted, "supernet": supernet}
    return {"arch": arch, "score": score, **known, "costs": costs, "reason": reason}


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with its costs as further columns."""
    return {name: value for name, value in row.items() if name != "costs"} | dict(row["costs"])


def or_none(value: float) -> float | None:
    """Return the value, None for NaN."""
    return None if np.isnan(value) else float(value)
