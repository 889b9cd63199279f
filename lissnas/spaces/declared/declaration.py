"""The pydantic models of a space.yaml. Positions and choices are indices, numbers are exact decimals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lissnas.core.errors import short, unknown_name
from lissnas.spaces.declared.fields import (
    AnyGroup,
    AnyMatch,
    Group,
    Index,
    Name,
    Number,
    Price,
    Problem,
    Sized,
    Sortable,
    Text,
    Texts,
    number,
    raise_problems,
    whole_number,
)

MAX_CHOICES = 127
"""Choices of a position: rows are int8."""
MAX_GROUPS = 12
"""Groups of positions in one exchange."""
MAX_VERTICES = 7
"""Vertices of a cell."""
BASE = "base"
"""Key in `costs` of the cost of every network."""
RESERVED = ("arch", "status", BASE)
"""Names with another meaning in a label file or in `costs`."""


class Plain(BaseModel):
    """A mapping with known keys, and the line of its declaration."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    _line: int = PrivateAttr(0)

    @property
    def line(self) -> int:
        """The line of its first key, counted from 1."""
        return self._line

    def declared_in(self, line: int) -> None:
        """Set the line."""
        self._line = line


class Metric(Plain):
    """The metric of the labels and its direction."""

    name: Text
    direction: Literal["maximize", "minimize"]

    @field_validator("name")
    @classmethod
    def _free(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"a metric can't be called {name!r}")
        return name


class Position(Plain):
    """A position and its choices as texts."""

    name: Text
    choices: Texts

    @property
    def numbers(self) -> tuple[Decimal, ...] | None:
        """The choices as numbers, or None if any is not a number."""
        exact = tuple(n for n in map(number, self.choices) if n is not None)
        return exact if len(exact) == len(self.choices) else None

    @field_validator("name")
    @classmethod
    def _free(cls, name: str, info: ValidationInfo[Index]) -> str:
        if name in (*RESERVED, info.context.metric):
            raise ValueError(f"a position can't be called {name!r}, which means something else in labels")
        return name

    @field_validator("choices")
    @classmethod
    def _several(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        if len(choices) == 1:
            raise ValueError("1 choice, at least 2 are needed; remove a position without alternatives")
        if len(choices) > MAX_CHOICES:
            raise ValueError(f"{len(choices)} choices, at most {MAX_CHOICES} are possible")
        first: dict[Decimal, str] = {}
        equal = []
        for i, (text, value) in enumerate(zip(choices, map(number, choices), strict=True)):
            if value is not None and first.setdefault(value, text) != text:
                equal.append(((i,), f"{short(repr(text))} is the same number as {short(repr(first[value]))}"))
        if all(number(text) is not None for text in choices):
            raise_problems(equal)
        what = "contains '|', which separates choices in names of architectures"
        raise_problems([((i,), f"{short(repr(c))} {what}") for i, c in enumerate(choices) if "|" in c])
        return choices


class Limit(Plain):
    """An upper bound of a cost."""

    cost: Text
    value: Number

    @field_validator("cost")
    @classmethod
    def _known(cls, name: str, info: ValidationInfo[Index]) -> str:
        if name not in info.context.costs:
            raise ValueError(unknown_name("cost", name, info.context.costs or ("none",)))
        return name


class Constraint(Plain):
    """A constraint on all networks: exactly one of four kinds of rule."""

    ordered: Sortable = ()
    """The numbers at these positions are non-decreasing."""
    forbid: AnyMatch = ()
    """These choices don't occur together."""
    if_: AnyMatch = Field((), alias="if")
    """If this matches, each position of `then` has one of its choices."""
    then: AnyMatch = ()
    at_most: Limit | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.model_fields_set not in ({"ordered"}, {"forbid"}, {"if_", "then"}, {"at_most"}):
            found = ", ".join(sorted(name.strip("_") for name in self.model_fields_set))
            rules = "ordered, forbid, at_most, or if and then together"
            raise ValueError(f"expected one of the rules {rules}; found {found or 'none'}")
        return self


class Inactive(Plain):
    """If `match` holds, these positions are inactive: they don't affect the network."""

    match: AnyMatch = Field(alias="when")
    positions: AnyGroup


class Exchange(Plain):
    """Groups of positions whose choices can be exchanged without changing the network."""

    groups: tuple[AnyGroup, ...] = Field(alias="exchange")

    @field_validator("groups")
    @classmethod
    def _exchangeable(cls, groups: tuple[Group, ...], info: ValidationInfo[Index]) -> tuple[Group, ...]:
        """Check that there are at least two disjoint groups of equal length with equal choices at each position."""
        flat = [p for group in groups for p in group]
        if not 2 <= len(groups) <= MAX_GROUPS:
            raise ValueError(f"expected 2 to {MAX_GROUPS} groups of positions, found {len(groups)}")
        if len({len(group) for group in groups}) > 1:
            raise ValueError("the groups have different numbers of positions")
        if len(set(flat)) < len(flat):
            raise ValueError("a position is in two groups")
        every = list(info.context.choices.items())
        for first, *others in zip(*groups, strict=True):
            for name, choices in (every[p] for p in others):
                if choices != every[first][1]:
                    pair = f"positions {every[first][0]!r} and {name!r}"
                    raise ValueError(f"{pair} don't have the same choices in the same order")
        return groups


@dataclass(frozen=True)
class Cost:
    """A cost: `base` plus a price for the choice at each active position; other positions cost 0."""

    base: Decimal
    by_choice: Mapping[int, tuple[Decimal, ...]]

    @property
    def scale(self) -> int:
        """The power of ten that makes all its numbers integers."""
        numbers = [self.base, *(n for prices in self.by_choice.values() for n in prices)]
        return int(10 ** max(0, *(-int(n.normalize().as_tuple().exponent) for n in numbers)))

    @property
    def highest(self) -> Fraction:
        """The sum of the highest prices."""
        return Fraction(self.base) + sum(Fraction(max(prices, default=0)) for prices in self.by_choice.values())


class _Prices(BaseModel):
    """A cost as declared: `base`, and for each position a mapping from choice to number."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Price]]
    base: Price = Decimal(0)


def _cost(value: Any, info: ValidationInfo[Index]) -> Cost:
    prices, index = _Prices.model_validate(value), info.context
    problems: list[Problem] = []
    by_choice = {}
    for name, listed in prices.__pydantic_extra__.items():
        if name not in index.choices:
            problems.append(((name,), unknown_name("position", name, (BASE, *index.choices))))
            continue
        choices = index.choices[name]
        problems += [((name, c), unknown_name(f"choice of {name}", c, choices)) for c in listed if c not in choices]
        if missing := [c for c in choices if c not in listed]:
            problems.append(((name,), f"no cost for {', '.join(map(repr, missing))}"))
        by_choice[index.numbers[name]] = tuple(listed.get(c, Decimal(0)) for c in choices)
    raise_problems(problems)
    cost = Cost(prices.base, by_choice)
    if cost.scale > 10**18 or cost.highest * cost.scale >= 2**62:
        raise ValueError("more than 18 digits are needed to add these up exactly")
    return cost


class Cell(Plain):
    """The limits of a cell's vertices and edges, and its operations on vertices or on edges."""

    vertices: Annotated[int, BeforeValidator(lambda text: whole_number(text, 2, MAX_VERTICES))]
    max_edges: int
    ops: Texts
    ops_on: Literal["vertices", "edges"]

    @field_validator("max_edges", mode="before")
    @classmethod
    def _possible_edges(cls, text: Any, info: ValidationInfo[Index]) -> int:
        vertices = info.data.get("vertices", MAX_VERTICES)
        return whole_number(text, 1, vertices * (vertices - 1) // 2)


class Declaration(Plain):
    """The keys that every space.yaml has."""

    name: Name
    metric: Metric


class ProductDeclaration(Declaration):
    """A product of positions, restricted by rules."""

    kind: Literal["product", "cell"] = "product"
    positions: Annotated[tuple[Position, ...], Sized]
    constraints: Annotated[tuple[Constraint, ...], Sized] = ()
    inactive: Annotated[tuple[Inactive, ...], Sized] = ()
    exchanges: Annotated[tuple[Exchange, ...], Sized] = Field((), alias="equivalent")
    costs: dict[Name, Annotated[Cost, PlainValidator(_cost)]] = Field(default_factory=dict)


class CellDeclaration(Declaration):
    """A space of cells."""

    kind: Literal["cell"]
    cell: Cell
