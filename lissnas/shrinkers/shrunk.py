"""What the loop of the method ends with: the last state, and which of its rows are the shrunk space."""

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
"""Architectures that represent a union of balls."""


@dataclass(frozen=True)
class Shrunk:
    """A shrunk space: `members` are rows of the archive of `state`, best predicted first.

    If the space is a union of `balls`, members are what its centers were chosen from.
    """

    problem: Problem
    state: State
    members: IntArray
    balls: Balls | None = None

    @property
    def subspace(self) -> Subspace:
        """The shrunk space itself, best predicted first."""
        if self.balls is not None:
            return Subspace(self.problem.space, balls=self.balls)
        return Subspace(self.problem.space, listed=self.state.archive.rows[self.members])

    @property
    def size(self) -> int:
        """How many architectures the shrunk space has; measured if it is a union of balls."""
        return len(self.members) if self.balls is None else self.balls.size.value

    @cached_property
    def sampled_values(self) -> FloatArray:
        """Predicted values of the members; of a uniform sample if they are too many to list."""
        if self.balls is None:
            return self.state.values(self.members)
        assert self.state.predictor is not None
        rows = self.balls.sample(N_SAMPLED, stream(self.problem.params.seed, "judge balls"))
        return self.state.predictor.value(self.state.predictor.score(rows, self.problem.threads))
