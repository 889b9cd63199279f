"""Which networks to train next: uniform ones at first, then from the space that the labels shrink it to.

`suggest` answers once, for a file of labels; a `Study` asks and tells, and keeps the file itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from lissnas import artifacts, benchmarks, config
from lissnas.config import MIN_LABELS, Params, label_budget
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.oracles.label_table import (
    FAILED,
    STATUS,
    Labels,
    header_of,
    metric_of,
    read_labels,
    read_rows,
    rows_of,
    to_csv,
)
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem, Source
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.strategies import SEARCH_SIZE, strategy_of
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import is_in
from lissnas.spaces.subspace import Subspace

BEST_EVERY = 5
"""One network in so many is of the best predicted; the others are random members, which teach more (measured)."""
MOST = SEARCH_SIZE
"""Networks of the space that suggestions are drawn from: the shrinker too collects its labels while it is small."""
WIDER = 2
"""Informative ones are members of the best so many times the shrunk space, whose outer half says where it ends:
the next space's mean is the better for it, by .002 to .009 standard deviations (NAS-Bench-Macro, TransNAS)."""
LIKELY_BEST, INFORMATIVE, UNIFORM = "likely best", "informative", "uniform"
"""Why a network is suggested: a high prediction, a random member of the (wider) shrunk space, a random one of all."""
DONE = "ok"
"""The status of a row that has its label."""
FILE = "labels.csv"
"""Where a study keeps all that it asked and was told."""


@dataclass(frozen=True)
class Batch:
    """Networks to train next, all different, in random order; any first part of it is a mix as well."""

    archs: Archs
    names: list[str]
    kinds: list[str]
    """Why each one: likely best, informative, or uniform."""

    def __len__(self) -> int:
        return len(self.names)

    def describe(self) -> str:
        """Say in a line how many there are of each kind."""
        count = Counter(self.kinds)
        parts = ", ".join(f"{count[kind]:,} {kind}" for kind in (LIKELY_BEST, INFORMATIVE, UNIFORM) if count[kind])
        return f"{len(self):,} networks: {parts}"


def suggest(
    space: Space, labels: Labels | None, n: int, params: Params | None = None, seed: int = 0, threads: int = 0
) -> Batch:
    """Return the next `n` networks worth a label; fewer where fewer are left.

    None is labelled already, has failed, or waits for its label (`Labels.unlabelled`). While labels are
    few they are uniform. Then the labels shrink the space, and one in five is of the best predicted,
    chosen as the shrinker chooses seeds; the others are random members of the shrunk space and its
    surroundings (`WIDER`), spread over its strata. Raises UserError where no network is left.
    """
    known = labels if labels is not None else no_labels(space)
    checked = params if params is not None else default_params()
    ready = enough(space, known, n, checked)
    result = shrunk_by(space, known, checked, seed, threads, _drawn_from(space, checked)) if ready else None
    return _batch(space, known, n, seed, result)


def enough(space: Space, labels: Labels, n: int, params: Params) -> bool:
    """Return whether labels are more than the share that is drawn uniformly, and say anything.

    It is a share of the budget (`shrink.labels`); where there is none, of the labels that there will be
    with the next `n`.
    """
    have = len(labels.values)
    own = params.shrink.labels or config.own_settings(params, space.name).labels
    budget = label_budget(params, space.name, space.size()) if own is not None else have + n
    first = max(MIN_LABELS, math.ceil(params.shrink.elite.first_labels * budget))
    return have >= first and float(np.ptp(labels.values)) > 0


def shrunk_by(
    space: Space, labels: Labels, params: Params, seed: int, threads: int = 0, size: int | None = None
) -> Shrunk:
    """Return what labels shrink a space to, by the variant `elite`; nobody is asked for more.

    To `size` networks, if given, in place of the target. Raises UserError where labels are too few to learn from, or
    all the same.
    """
    if len(labels.values) < MIN_LABELS:
        raise UserError(f"{len(labels.values)} networks of {space.name} have a label, at least {MIN_LABELS} are needed")
    elite = params.model_copy(update={"shrink": params.shrink.model_copy(update={"variant": "elite"})})
    source = Source(space.name, space, labels.metric, _digest(space, labels), labels=labels)
    problem = Problem.of(source, elite, seed, threads)
    if size is not None:
        problem = replace(problem, params=problem.params.model_copy(update={"target_size": size}))
    return shrink(problem)


def _drawn_from(space: Space, params: Params) -> int | None:
    """Return the size of the space to draw suggestions from, where the target is larger; None where it isn't."""
    target = params.shrink.target_size or config.own_settings(params, space.name).target_size
    return MOST if target is not None and target > MOST else None


def no_labels(space: Space, metric: str | None = None) -> Labels:
    """Return the labels of a study that begins."""
    none = np.empty((0, space.genome_len), np.int8)
    return Labels(none, np.empty(0), np.empty(0, np.int64), metric_of(space, metric), {})


def default_params() -> Params:
    """Return ./params.yaml, or the built-in values where there is none."""
    return config.load(None, {}, benchmarks.names())


@dataclass
class Study:
    """Ask for networks, tell what they are worth, again and again; all of it is in a file of labels.

    The file is `labels.csv` in the study's folder: a row a network that was asked for, its metric empty
    until it is told; then a row a label. Each change is on disk before a call returns, so a study that is
    opened again goes on where it was, whatever ended it. What is asked for is a function of the space, the
    parameters, the seed, and what is in the file, in any order of rows.
    """

    path: Path
    space: Space
    seed: int
    params: Params
    metric: str
    threads: int = 0
    _shrunk: dict[int | None, tuple[str, Shrunk]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(
        cls,
        folder: Path | str,
        space: Space,
        seed: int = 0,
        params: Params | None = None,
        metric: str | None = None,
        threads: int = 0,
    ) -> Study:
        """Start a study, or resume the one in `folder`; writes nothing yet.

        A `labels.csv` that was put there counts as told. `metric` names its column, else the space does.
        Raises ConfigError for a file that isn't labels of this space.
        """
        params = default_params() if params is None else params
        study = cls(Path(folder) / FILE, space, seed, params, metric_of(space, metric), threads)
        study.labels  # noqa: B018  # reads it whole: better now than after the first training
        return study

    @property
    def labels(self) -> Labels:
        """All that was told: the mean of each network's labels, higher better, and which ones have none."""
        if not self.path.exists():
            return no_labels(self.space, self.metric)
        return read_labels(self.path, self.space, self.metric, least=0)

    @property
    def pending(self) -> list[str]:
        """Networks that were asked for and have neither a value nor failed yet, in the order they were asked for."""
        return self.space.format(_pending(self.space, self.labels)[0])

    @property
    def best(self) -> tuple[str, float]:
        """The best network that was told, and its mean value in the metric's unit; raises UserError if none was."""
        labels = self.labels
        if not len(labels.values):
            raise UserError(f"no network of {self.space.name} has a value yet")
        at = int(np.argmax(labels.values))
        value = float(labels.values[at])
        return self.space.format(labels.archs[at : at + 1])[0], -value if labels.negated else value

    def ask(self, n: int) -> Batch:
        """Return the next `n` networks worth a label (`suggest`), and note that they were asked for.

        They are not asked for again, not even after the process was ended: `pending` has those that nobody
        told about. Raises UserError where no network is left.
        """
        with artifacts.locked(self.path):
            labels = self.labels
            ready = enough(self.space, labels, n, self.params)
            result = self._result(labels, _drawn_from(self.space, self.params)) if ready else None
            batch = _batch(self.space, labels, n, self.seed, result)
            self._append(batch.archs, [""] * len(batch), [""] * len(batch))
        return batch

    def tell(self, archs: Archs | Sequence[str], values: Sequence[float] | FloatArray) -> None:
        """Note what networks are worth, in the metric's unit; NaN for a training that failed.

        Networks are given by name or as rows, asked for or not. A value for one that has one already is a
        repeated measurement: the mean counts. One that failed is not asked for again; a value that
        is told later replaces the failure. Raises UserError, with nothing noted, for what can't be used.
        """
        rows = self._rows(archs)
        told = np.asarray(values, np.float64)
        if told.shape != (len(rows),):
            raise UserError(f"values: expected {len(rows)}, one a network, found an array of shape {told.shape}")
        names = self.space.format(rows)
        if np.isinf(told).any():
            at = int(np.argmax(np.isinf(told)))
            raise UserError(f"values: {told[at]} for {names[at]} is not finite; NaN says that a training failed")
        with artifacts.locked(self.path):
            valued = {*self.space.format(self.labels.archs), *(n for n, v in zip(names, told, strict=True) if v == v)}
            for name, value in zip(names, told.tolist(), strict=True):
                if math.isnan(value) and name in valued:
                    raise UserError(f"values: {name} is told to have failed, and to have a value as well")
            self._append(
                rows,
                ["" if math.isnan(value) else repr(value) for value in told.tolist()],
                [FAILED if math.isnan(value) else DONE for value in told.tolist()],
            )

    def shrunk(self) -> Subspace:
        """Return the space that all labels so far shrink it to; raises UserError while they are too few."""
        return self._result(self.labels).subspace

    def _result(self, labels: Labels, size: int | None = None) -> Shrunk:
        """Return the shrink by these labels, made once."""
        digest = _digest(self.space, labels)
        if size not in self._shrunk or self._shrunk[size][0] != digest:
            self._shrunk[size] = digest, shrunk_by(self.space, labels, self.params, self.seed, self.threads, size)
        return self._shrunk[size][1]

    def _rows(self, archs: Archs | Sequence[str]) -> Archs:
        """Return networks in the form that is kept; raises UserError, InvalidArchitecture."""
        if isinstance(archs, np.ndarray):
            if archs.dtype != np.int8:
                raise UserError(f"archs: expected names, or a matrix of int8, found one of {archs.dtype}")
            self.space.key(archs)  # refuses what is no network
            return self.space.canonical(archs)
        if isinstance(archs, str) or not all(isinstance(name, str) for name in archs):
            raise UserError("archs: expected a list of names, or a matrix of int8")
        return self.space.parse(list(archs))

    def _append(self, archs: Archs, values: Sequence[str], status: Sequence[str]) -> None:
        """Add rows to the file, which is replaced as a whole."""
        if not len(archs):
            return
        header, rows = read_rows(self.path) if self.path.exists() else (header_of(self.space, self.metric), [])
        for row, value, outcome in zip(rows_of(self.space, archs), values, status, strict=True):
            rows.append(row | {self.metric: value, STATUS: outcome})
        artifacts.write(self.path, to_csv([*header, *({STATUS} - {*header})], rows))


def _batch(space: Space, labels: Labels, n: int, seed: int, result: Shrunk | None) -> Batch:
    """Return `n` networks that were never labelled or asked for: uniform ones, or by a shrink."""
    if n < 1:
        raise UserError(f"n: expected at least one network, found {n}")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: {seed} is not in 0 to 2^32 - 1")
    taken = _taken(space, labels)
    left = space.size() - len(taken)
    if left < 1:
        counts = zip(map(len, _pending(space, labels)), ("wait for a label", "failed"), strict=True)
        but = ", ".join(f"{n:,} {what}" for n, what in counts if n)
        raise UserError(f"every network of {space.name} is labelled" + (f", or was asked for ({but})" if but else ""))
    n = min(n, left)
    rng = stream(seed, "suggest", len(taken))
    archs, kinds = np.empty((0, space.genome_len), np.int8), list[str]()
    if result is not None:
        top, members = _chosen(result, taken, n, rng)
        archs = result.state.archive.rows[np.concatenate([top, members])]
        kinds = [LIKELY_BEST] * len(top) + [INFORMATIVE] * len(members)
    if more := n - len(archs):
        taken = np.concatenate([taken, space.key(archs)])
        archs = np.concatenate([archs, space.sample_distinct(more, rng, without=taken)])
        kinds += [UNIFORM] * more
    order = rng.permutation(n)
    return Batch(archs[order], space.format(archs[order]), [kinds[i] for i in order.tolist()])


def _chosen(result: Shrunk, taken: Keys, n: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return up to `n` rows of a shrink's state that are not `taken`: likely best ones, and informative ones."""
    state, strategy = result.state, strategy_of(result.problem.params)
    archive = state.archive
    free = ~is_in(archive.keys, taken)
    members = result.members[free[result.members]]
    # Counted over all batches, so that one network at a time comes to the same mix as many.
    likely = (len(taken) + n) // BEST_EVERY - len(taken) // BEST_EVERY
    top = strategy.top(state, members, likely)
    free[top] = False
    wide = strategy.top(state, np.arange(len(archive)), WIDER * len(result.members), strict=True)
    wide = wide[free[wide]]
    others = _spread(wide, archive.stratum[wide].astype(np.int64), min(n - len(top), len(wide)), rng)
    if short := n - len(top) - len(others):  # that is used up: the best of the rest that was seen
        free[others] = False
        others = np.concatenate([others, strategy.top(state, np.flatnonzero(free), short)])
    return top, others


def _spread(rows: IntArray, stratum: IntArray, k: int, rng: np.random.Generator) -> IntArray:
    """Return `k` random rows, each as likely as any other, from every stratum its share."""
    order = np.lexsort((rng.random(len(rows)), stratum))
    at = np.floor((np.arange(k) + rng.random()) * len(rows) / max(k, 1)).astype(np.int64)
    return rows[order[np.minimum(at, len(rows) - 1)]] if k else rows[:0]


def _taken(space: Space, labels: Labels) -> Keys:
    """Return the sorted keys of all networks that were labelled, asked for, or failed."""
    return np.unique(np.concatenate([space.key(a) for a in (labels.archs, *labels.unlabelled.values())]))


def _pending(space: Space, labels: Labels) -> tuple[Archs, Archs]:
    """Return the networks that wait for a label, and those that failed, without a label, in the order of their rows."""
    none, known = labels.archs[:0], space.key(labels.archs)
    found = []
    for archs in (labels.unlabelled.get("failed", none), labels.unlabelled.get("empty", none)):
        keys = space.key(archs)
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        found.append(archs[first & ~is_in(keys, np.sort(known))])
        known = np.concatenate([known, keys])
    return found[1], found[0]


def _digest(space: Space, labels: Labels) -> str:
    return artifacts.sha256(space.key(labels.archs).tobytes() + labels.values.tobytes())
