"""Output of the loop: the last state, and which of its rows form the shrunk space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lissnas.core.rng import stream
from lissnas.shrinkers.problem import Problem
from lissnas.shrinkers.state import State
from lissnas.spaces import FloatArray, IntArray
from lissnas.spaces.balls import Balls
from lissnas.spaces.subspace import Subspace

N_SAMPLED = 10_000
"""Architectures sampled to represent a union of balls."""


@dataclass(frozen=True)
class Shrunk:
    """A shrunk space: `members` are rows of the archive of `state`, best predicted first.

    If the space is a union of `balls`, members are the candidates for its centers.
    """

    problem: Problem
    state: State
    members: IntArray
    balls: Balls | None = None

    @property
    def subspace(self) -> Subspace:
        """The shrunk space, best predicted first."""
        if self.balls is not None:
            return Subspace(self.problem.space, balls=self.balls)
        return Subspace(self.problem.space, listed=self.state.archive.rows[self.members])

    @property
    def size(self) -> int:
        """Number of architectures in the shrunk space; estimated for a large union of balls."""
        return len(self.members) if self.balls is None else self.balls.size.value

    @cached_property
    def sampled_values(self) -> FloatArray:
        """Predicted values of the members, or of a uniform sample of a union of balls."""
        if self.balls is None:
            return self.state.values(self.members)
        assert self.state.predictor is not None
        rows = self.balls.sample(N_SAMPLED, stream(self.problem.params.seed, "judge balls"))
        return self.state.predictor.value(self.state.predictor.score(rows, self.problem.threads))
