"""Suggestions of networks to train next: uniform at first, then from the space shrunk by the labels so far.

`suggest` returns one batch for given labels; a `Study` is an ask/tell interface that maintains the label file.
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
from lissnas.oracles.direction import is_minimized
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
from lissnas.shrinkers.problem import Problem, Source, get_space
from lissnas.shrinkers.shrunk import Shrunk
from lissnas.shrinkers.strategies import SEARCH_SIZE, strategy_of
from lissnas.spaces import Archs, FloatArray, IntArray, Keys, Space
from lissnas.spaces.base import is_in
from lissnas.spaces.subspace import Subspace

BEST_EVERY = 5
"""One suggestion in 5 is among the best predicted; the others are random members, more informative (measured)."""
MAX_SUGGEST_SIZE = SEARCH_SIZE
"""Maximum size of the space that suggestions are drawn from; the shrinker too collects its labels at this size."""
WIDER = 2
"""Informative suggestions come from a space this many times larger than the shrunk one, whose outer half locates its
border: the next space's mean improves by .002 to .009 standard deviations (NAS-Bench-Macro, TransNAS)."""
LIKELY_BEST = "likely best"
"""The kind of a suggestion with a high prediction."""
INFORMATIVE = "informative"
"""The kind of a random member of the (wider) shrunk space."""
UNIFORM = "uniform"
"""The kind of a random member of the full space."""
DONE = "ok"
"""The status of a row with a label."""
FILE = "labels.csv"
"""The file of a study's requests and labels."""
ORIGINAL = "labels.original.csv"
"""The copy of a file that isn't plain CSV (decimal commas, comments, ...), before the study rewrites it."""


@dataclass(frozen=True)
class Batch:
    """Distinct networks to train next, in random order, so that any prefix is a mix too."""

    archs: Archs
    names: list[str]
    kinds: list[str]
    """The kind of each network: likely best, informative, or uniform."""

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"<Batch of {self.describe()}>"

    def describe(self) -> str:
        """Return the number of networks of each kind as one line."""
        count = Counter(self.kinds)
        parts = ", ".join(f"{count[kind]:,} {kind}" for kind in (LIKELY_BEST, INFORMATIVE, UNIFORM) if count[kind])
        return f"{len(self):,} networks: {parts}"


def suggest(
    space: Space, labels: Labels | None, n: int, params: Params | None = None, seed: int = 0, threads: int = 0
) -> Batch:
    """Return the next `n` networks to label, fewer if fewer are left.

    Networks that are labelled, failed, or wait for a label (`Labels.unlabelled`) are excluded. With few labels the
    suggestions are uniform. Later the labels shrink the space; one suggestion in five is among the best predicted,
    selected like the shrinker's seed architectures, and the others are random members of the shrunk space and its
    surroundings (`WIDER`), stratified. Raises UserError if no network is left.
    """
    known = labels if labels is not None else no_labels(space)
    checked = params if params is not None else default_params()
    ready = has_enough_labels(space, known, n, checked)
    result = shrink_by_labels(space, known, checked, seed, threads, _suggest_size(space, checked)) if ready else None
    return _batch(space, known, n, seed, result)


def has_enough_labels(space: Space, labels: Labels, n: int, params: Params) -> bool:
    """Return whether the uniform share of the label budget is collected and the labels are not all equal.

    The budget is `shrink.labels`, by default the number of labels including the next `n`.
    """
    have = len(labels.values)
    given = params.shrink.labels or config.benchmark_settings(params, space.name).labels
    budget = label_budget(params, space.name, space.size()) if given is not None else have + n
    first = max(MIN_LABELS, math.ceil(params.shrink.elite.first_labels * budget))
    return have >= first and float(np.ptp(labels.values)) > 0


def shrink_by_labels(
    space: Space, labels: Labels, params: Params, seed: int, threads: int = 0, size: int | None = None
) -> Shrunk:
    """Return the space shrunk by the variant `elite` from the given labels only.

    `size` replaces the target size. Raises UserError if there are too few labels, or all are equal.
    """
    if len(labels.values) < MIN_LABELS:
        raise UserError(f"{len(labels.values)} networks of {space.name} have a label, at least {MIN_LABELS} are needed")
    elite = params.model_copy(update={"shrink": params.shrink.model_copy(update={"variant": "elite"})})
    source = Source(space.name, space, labels.metric, _digest(space, labels), labels=labels, minimize=labels.negated)
    problem = Problem.of(source, elite, seed, threads)
    if size is not None:
        problem = replace(problem, params=problem.params.model_copy(update={"target_size": size}))
    return shrink(problem)


def _suggest_size(space: Space, params: Params) -> int | None:
    """Return the size of the space to draw suggestions from, None for the target size."""
    target = params.shrink.target_size or config.benchmark_settings(params, space.name).target_size
    return MAX_SUGGEST_SIZE if target is not None and target > MAX_SUGGEST_SIZE else None


def no_labels(space: Space, metric: str | None = None, minimize: bool | None = None) -> Labels:
    """Return the empty labels of a new study; raises UserError if the direction of the metric isn't stated."""
    none = np.empty((0, space.genome_len), np.int8)
    name = metric_of(space, metric)
    negated = is_minimized(space, name, minimize)
    return Labels(none, np.empty(0), np.empty(0, np.int64), name, {}, negated)


def default_params() -> Params:
    """Return the parameters of ./params.yaml, or the built-in values if there is no such file."""
    return config.load(None, {}, benchmarks.names())


@dataclass
class Study:
    """An ask/tell study: `ask` for networks to train, `tell` their values; its state is a label file.

    The file is `labels.csv` in the study's folder, with one row per requested network (its metric empty) and one row
    per label. Each change is on disk before a call returns, so a study resumes when it is opened again, even after
    a crash. Suggestions depend only on the space, the parameters, the seed, and the rows of the file in any order.

    Example:
        >>> import lissnas
        >>> study = lissnas.Study.open("my_study", lissnas.space("nas_bench_macro"))
        >>> batch = study.ask(30)
        >>> print(batch.describe())
        30 networks: 30 uniform
        >>> study.tell(batch.names, [name.count("2") for name in batch.names])  # your training
        >>> len(study.labels.values), study.pending
        (30, [])
    """

    path: Path
    space: Space
    seed: int
    params: Params
    metric: str
    threads: int = 0
    minimize: bool | None = None
    _shrunk: dict[int | None, tuple[str, Shrunk]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Study {self.path}: {self.space.name}>"

    @classmethod
    def open(
        cls,
        folder: Path | str,
        space: Space | Path | str,
        seed: int = 0,
        params: Params | None = None,
        metric: str | None = None,
        threads: int = 0,
        minimize: bool | None = None,
    ) -> Study:
        """Start a study, or resume the one in `folder`; writes no file yet.

        `space` is a `Space`, the path of a space.yaml, or the name of a space.
        Labels of an existing `labels.csv` are used. `metric` is its column, by default the space's metric; `minimize`
        states whether less of it is better, if the space doesn't declare that.
        Raises ConfigError if the file is not a label table of this space.
        """
        space = get_space(str(space)) if isinstance(space, Path | str) else space
        params = default_params() if params is None else params
        study = cls(Path(folder) / FILE, space, seed, params, metric_of(space, metric), threads, minimize)
        study.labels  # noqa: B018  # validates the file before the first training
        return study

    @property
    def labels(self) -> Labels:
        """All recorded labels: the mean for each network, and the networks without a label.

        `measured` are the means in the metric's sign, `values` are higher is better.
        """
        if not self.path.exists():
            return no_labels(self.space, self.metric, self.minimize)
        return read_labels(self.path, self.space, self.metric, min_labels=0, minimize=self.minimize)

    @property
    def pending(self) -> list[str]:
        """Names of requested networks without a value or failure, in the order of the requests."""
        return self.space.format(_pending(self.space, self.labels)[0])

    @property
    def best(self) -> tuple[str, float]:
        """The best labelled network and its mean value in the metric's unit; raises UserError without labels."""
        labels = self.labels
        if not len(labels.values):
            raise UserError(f"no network of {self.space.name} has a value yet")
        at = int(np.argmax(labels.values))
        return self.space.format(labels.archs[at : at + 1])[0], float(labels.measured[at])

    def ask(self, n: int) -> Batch:
        """Return the next `n` networks to label (`suggest`), and record them as requested.

        They are never suggested again, even after a crash; `pending` lists those without a result. Raises UserError
        if no network is left.
        """
        with artifacts.locked(self.path):
            labels = self.labels
            ready = has_enough_labels(self.space, labels, n, self.params)
            result = self._result(labels, _suggest_size(self.space, self.params)) if ready else None
            batch = _batch(self.space, labels, n, self.seed, result)
            self._append(batch.archs, [""] * len(batch), [""] * len(batch))
        return batch

    def tell(self, archs: Archs | Sequence[str], values: Sequence[float] | FloatArray) -> None:
        """Record the values of networks in the metric's unit, NaN for a failed training.

        Networks are names or rows, requested or not. Repeated values of a network are averaged. A failed network is
        not suggested again; a later value replaces the failure. Raises UserError for invalid input and records
        nothing then.
        """
        rows = self._rows(archs)
        try:
            given = np.asarray(values, np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(f"values: expected one number per network: {error}") from None
        if given.shape != (len(rows),):
            raise UserError(f"values: expected {len(rows)}, one per network, got an array of shape {given.shape}")
        names = self.space.format(rows)
        if np.isinf(given).any():
            at = int(np.argmax(np.isinf(given)))
            raise UserError(f"values: {given[at]} for {names[at]} is not finite; use NaN for a failed training")
        with artifacts.locked(self.path):
            valued = {*self.space.format(self.labels.archs), *(n for n, v in zip(names, given, strict=True) if v == v)}
            for name, value in zip(names, given.tolist(), strict=True):
                if math.isnan(value) and name in valued:
                    raise UserError(f"values: {name} has both a value and NaN (failed); give one of them")
            self._append(
                rows,
                ["" if math.isnan(value) else repr(value) for value in given.tolist()],
                [FAILED if math.isnan(value) else DONE for value in given.tolist()],
            )

    def shrunk(self) -> Subspace:
        """Return the space shrunk by all labels so far; raises UserError if there are too few."""
        return self._result(self.labels).subspace

    def _result(self, labels: Labels, size: int | None = None) -> Shrunk:
        """Return the shrink by these labels, cached by their digest."""
        digest = _digest(self.space, labels)
        if size not in self._shrunk or self._shrunk[size][0] != digest:
            self._shrunk[size] = (
                digest,
                shrink_by_labels(self.space, labels, self.params, self.seed, self.threads, size),
            )
        return self._shrunk[size][1]

    def _rows(self, archs: Archs | Sequence[str]) -> Archs:
        """Return networks as canonical rows; raises UserError, InvalidArchitecture."""
        if isinstance(archs, np.ndarray):
            if archs.dtype != np.int8:
                raise UserError(f"archs: expected names or a matrix of int8, got one of {archs.dtype}")
            self.space.key(archs)  # refuses invalid rows
            return self.space.canonicalize(archs)
        if isinstance(archs, str) or not all(isinstance(name, str) for name in archs):
            raise UserError("archs: expected a list of names or a matrix of int8")
        return self.space.parse(list(archs))

    def _append(self, archs: Archs, values: Sequence[str], status: Sequence[str]) -> None:
        """Append rows to the file, which is rewritten atomically."""
        if not len(archs):
            return
        header, rows, plain = header_of(self.space, self.metric), list[dict[str, str]](), True
        if self.path.exists():
            header, rows, plain = read_rows(self.path, self.space, self.metric)
        if not plain and not (original := self.path.with_name(ORIGINAL)).exists():
            artifacts.write(original, self.path.read_bytes())
        for row, value, outcome in zip(rows_of(self.space, archs), values, status, strict=True):
            rows.append(row | {self.metric: value, STATUS: outcome})
        artifacts.write(self.path, to_csv([*header, *({STATUS} - {*header})], rows))


def _batch(space: Space, labels: Labels, n: int, seed: int, result: Shrunk | None) -> Batch:
    """Return `n` networks that were never labelled or requested: from a shrink, if given, else uniform."""
    if n < 1:
        raise UserError(f"n: expected at least one network, got {n}")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed: {seed} is not in 0 to 2^32 - 1")
    taken = _taken(space, labels)
    left = space.size() - len(taken)
    if left < 1:
        counts = zip(map(len, _pending(space, labels)), ("wait for a label", "failed"), strict=True)
        rest = ", ".join(f"{n:,} {what}" for n, what in counts if n)
        raise UserError(f"every network of {space.name} is labelled" + (f" or requested ({rest})" if rest else ""))
    n = min(n, left)
    rng = stream(seed, "suggest", len(taken))
    archs, kinds = np.empty((0, space.genome_len), np.int8), list[str]()
    if result is not None:
        top, members = _select(result, taken, n, rng)
        archs = result.state.archive.rows[np.concatenate([top, members])]
        kinds = [LIKELY_BEST] * len(top) + [INFORMATIVE] * len(members)
    if more := n - len(archs):
        taken = np.concatenate([taken, space.key(archs)])
        archs = np.concatenate([archs, space.sample_distinct(more, rng, without=taken)])
        kinds += [UNIFORM] * more
    order = rng.permutation(n)
    return Batch(archs[order], space.format(archs[order]), [kinds[i] for i in order.tolist()])


def _select(result: Shrunk, taken: Keys, n: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """Return the archive indices of up to `n` networks that are not `taken`: likely best and informative ones."""
    state, strategy = result.state, strategy_of(result.problem.params)
    archive = state.archive
    free = ~is_in(archive.keys, taken)
    members = result.members[free[result.members]]
    # Counted over all batches, so that batches of one give the same mix as large ones.
    likely = (len(taken) + n) // BEST_EVERY - len(taken) // BEST_EVERY
    top = strategy.top(state, members, likely)
    free[top] = False
    wide = strategy.top(state, np.arange(len(archive)), WIDER * len(result.members), strict=True)
    wide = wide[free[wide]]
    others = _spread(wide, archive.stratum[wide].astype(np.int64), min(n - len(top), len(wide)), rng)
    if short := n - len(top) - len(others):  # fill up with the best of the other evaluated networks
        free[others] = False
        others = np.concatenate([others, strategy.top(state, np.flatnonzero(free), short)])
    return top, others


def _spread(rows: IntArray, stratum: IntArray, k: int, rng: np.random.Generator) -> IntArray:
    """Return `k` random rows with equal probability, in proportion from each stratum."""
    order = np.lexsort((rng.random(len(rows)), stratum))
    at = np.floor((np.arange(k) + rng.random()) * len(rows) / max(k, 1)).astype(np.int64)
    return rows[order[np.minimum(at, len(rows) - 1)]] if k else rows[:0]


def _taken(space: Space, labels: Labels) -> Keys:
    """Return the sorted keys of all networks that are labelled, requested, or failed."""
    return np.unique(np.concatenate([space.key(a) for a in (labels.archs, *labels.unlabelled.values())]))


def _pending(space: Space, labels: Labels) -> tuple[Archs, Archs]:
    """Return the networks that wait for a label and those that failed, both without labelled ones, in row order."""
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
