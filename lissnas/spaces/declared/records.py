"""What a space.yaml says, as records: positions by number, choices by number, numbers exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

Match: TypeAlias = tuple[tuple[int, frozenset[int]], ...]
"""Positions, ascending, and the choices of each: holds where every position has one of its choices."""


@dataclass(frozen=True)
class Position:
    """A position, its choices as typed, and, where all of them are numbers, these."""

    name: str
    choices: tuple[str, ...]
    numbers: tuple[Decimal, ...] | None


@dataclass(frozen=True)
class Ordered:
    """The numbers at these positions don't decrease."""

    line: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Forbid:
    """These choices don't occur together."""

    line: int
    match: Match


@dataclass(frozen=True)
class IfThen:
    """Where `match` holds, each position of `then` has one of its choices."""

    line: int
    match: Match
    then: Match


@dataclass(frozen=True)
class AtMost:
    """A cost is at most `value`."""

    line: int
    cost: str
    value: Decimal


Constraint: TypeAlias = Ordered | Forbid | IfThen | AtMost


@dataclass(frozen=True)
class Inactive:
    """Where `match` holds, these positions don't matter."""

    line: int
    match: Match
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Exchange:
    """Groups of positions whose choices may change places without changing the network."""

    line: int
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Cost:
    """A sum over active positions; positions that are not named cost nothing."""

    base: Decimal
    by_choice: Mapping[int, tuple[Decimal, ...]]

    @property
    def scale(self) -> int:
        """The power of ten that makes every number of it a whole one."""
        numbers = [self.base, *(n for prices in self.by_choice.values() for n in prices)]
        return int(10 ** max(0, *(-int(n.normalize().as_tuple().exponent) for n in numbers)))

    @property
    def highest(self) -> Fraction:
        """The sum of the highest prices."""
        return Fraction(self.base) + sum(Fraction(max(prices, default=0)) for prices in self.by_choice.values())


@dataclass(frozen=True)
class Metric:
    """What the labels measure, and whether more of it is better."""

    name: str
    maximize: bool


@dataclass(frozen=True)
class Cell:
    """A cell of at most so many vertices and edges, with operations on vertices or on edges."""

    vertices: int
    max_edges: int
    ops: tuple[str, ...]
    on_edges: bool
    line: int


@dataclass(frozen=True)
class Declaration:
    """What a space.yaml says, once it is known to make sense."""

    name: str
    metric: Metric
    cell: Cell | None = None
    positions: tuple[Position, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    inactive: tuple[Inactive, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    costs: Mapping[str, Cost] = field(default_factory=dict)
