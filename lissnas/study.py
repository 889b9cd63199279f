"""Studies: ask for networks to train, tell their values; the state is a label file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np

from lissnas import artifacts
from lissnas.config import MIN_LABELS, Goal, Params
from lissnas.core.errors import UserError, unknown_name
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
from lissnas.shrinkers.labelling import Batch, Policy, default_params, evidence, no_labels, unlabelled
from lissnas.shrinkers.problem import get_space
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.subspace import Subspace

DONE = "ok"
"""The status of a row with a label."""
FILE = "labels.csv"
"""The file of a study's requests and labels."""
ORIGINAL = "labels.original.csv"
"""The copy of a file that isn't plain CSV (decimal commas, comments, ...), before the study rewrites it."""


class Best(NamedTuple):
    """The best labelled network of a study, and the one with the highest label, which noise may have favored."""

    name: str
    """The network with the best expected value, given all labels."""
    value: float
    """Its expected value, in the metric's unit."""
    measured_name: str
    """The network with the best label: the mean of its labels."""
    measured: float


@dataclass
class Study:
    """An ask/tell study: `ask` for networks to train, `tell` their values; its state is a label file.

    The file is `labels.csv` in the study's folder, with one row per requested network (its metric empty) and one row
    per label. Each change is on disk before a call returns, so a study resumes when it is opened again, even after
    a crash. Suggestions depend only on the space, the goal, the parameters, the seed, and the rows of the file; with
    the goal `both` also on the order of the labels. A study may be re-opened with another goal.

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
    goal: Goal = "both"

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
        goal: Goal | None = None,
    ) -> Study:
        """Start a study, or resume the one in `folder`; writes no file yet.

        `space` is a `Space`, the path of a space.yaml, or the name of a space.
        Labels of an existing `labels.csv` are used. `metric` is its column, by default the space's metric; `minimize`
        states whether less of it is better, if the space doesn't declare that. `goal` is what the labels are for
        (`Policy`), by default that of the parameters, else `both`.
        Raises ConfigError if the file is not a label table of this space.
        """
        space = get_space(str(space)) if isinstance(space, Path | str) else space
        params = default_params() if params is None else params
        goal = goal or params.shrink.goal or "both"
        if goal not in get_args(Goal):
            raise UserError(unknown_name("goal", goal, get_args(Goal)))
        study = cls(Path(folder) / FILE, space, seed, params, metric_of(space, metric), threads, minimize, goal)
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
        return self.space.format(unlabelled(self.space, self.labels)[0])

    @cached_property
    def policy(self) -> Policy:
        """What chooses the networks to label next."""
        return Policy(self.space, self.params, self.goal, self.seed, self.threads)

    @property
    def best(self) -> Best:
        """The labelled network with the best expected value, next to the one with the best label.

        The expected value is the posterior mean given all labels, repeated ones included. With fewer than 20 labels,
        or equal ones, it is the label itself. Raises UserError without labels.
        """
        labels = self.labels
        if not len(labels.values):
            raise UserError(f"no network of {self.space.name} has a value yet")
        known, expected = evidence(self.space, labels), labels.values
        if len(labels.values) >= MIN_LABELS and known.informative:
            posterior = known.posterior(self.space, self.params.predictor, self.seed)
            expected = posterior.value(posterior.mean(self.space.encode(labels.archs)))
        names, sign = self.space.format(labels.archs), -1.0 if labels.negated else 1.0
        at, highest = int(np.argmax(expected)), int(np.argmax(labels.values))
        return Best(names[at], sign * float(expected[at]), names[highest], float(labels.measured[highest]))

    def ask(self, n: int) -> Batch:
        """Return the next `n` networks to label (`Policy.next`), and record them as requested.

        They are never suggested again, even after a crash; `pending` lists those without a result. Raises UserError
        if no network is left.
        """
        with artifacts.locked(self.path):
            batch = self.policy.next(self.labels, n)
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
        return self.policy.shrunk(self.labels).subspace

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
