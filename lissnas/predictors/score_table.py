"""Scores of all architectures of a space that can be listed, looked up by key."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from lissnas.predictors.accuracy import Scorer
from lissnas.spaces import Archs, FloatArray, Keys, Space


@dataclass(frozen=True)
class ScoreTable:
    """A scorer whose answers were computed once, so that many methods can query it at no cost.

    Answers equal those of `scorer`, whose scores do not depend on the batch.
    """

    space: Space
    scorer: Scorer
    keys: Keys
    """Sorted."""
    scores: FloatArray
    seconds: float
    """Time that `scorer` took for one architecture, on average."""

    @classmethod
    def of(cls, space: Space, scorer: Scorer, threads: int = 0) -> ScoreTable:
        """Score every architecture of the space."""
        archs = space.enumerate()
        started = time.perf_counter()
        scores = scorer.score(archs, threads)
        seconds = (time.perf_counter() - started) / len(archs)
        keys = space.key(archs)
        order = np.argsort(keys)
        return cls(space, scorer, keys[order], scores[order], seconds)

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return `(n,)` scores; `threads` is ignored."""
        return self.scores[np.searchsorted(self.keys, self.space.key(archs))]

    def value(self, scores: FloatArray) -> FloatArray:
        """Convert `(n,)` scores to the metric's unit."""
        return self.scorer.value(scores)
