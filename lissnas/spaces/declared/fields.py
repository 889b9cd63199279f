"""Field types of a declaration: texts, numbers, and names of positions and choices, validated into indices.

Validators look names up in an `Index`, the context of the validation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BeforeValidator, PlainValidator, TypeAdapter, ValidationError, ValidationInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from lissnas.core.errors import short, unknown_name
from lissnas.core.typography import QUOTES, pasted

MAX_ENTRIES = 1_000
"""Positions of a space, and entries of each list of rules; bounds the memory of some 100,000 rows."""
MAX_TEXT = 1_000
"""Characters of a text; usual names of positions and choices have a few."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?")

Match: TypeAlias = tuple[tuple[int, frozenset[int]], ...]
"""Positions, ascending, each with a set of choices: holds if every position has one of its choices."""
Group: TypeAlias = tuple[int, ...]
"""Distinct positions."""
Problem: TypeAlias = tuple[tuple[str | int, ...], str]
"""A path relative to the validated part, and what is wrong there."""


@dataclass(frozen=True)
class Index:
    """The names that a declaration may refer to, the context of its validation."""

    metric: str
    choices: Mapping[str, tuple[str, ...]]
    """The choices of each position, as texts."""
    numbers: Mapping[str, int]
    """The index of each position."""
    costs: tuple[str, ...]

    @classmethod
    def of(cls, tree: Mapping[str, Any]) -> Index:
        """Collect the names from a declaration before its validation; invalid parts are skipped."""
        metric, positions, costs = (tree.get(key) for key in ("metric", "positions", "costs"))
        choices: dict[str, tuple[str, ...]] = {}
        for entry in positions if isinstance(positions, list) else ():
            position = entry if isinstance(entry, dict) else {}
            name, listed = position.get("name"), position.get("choices")
            if isinstance(name, str) and isinstance(listed, list):
                choices.setdefault(name, tuple(c if isinstance(c, str) else "" for c in listed))
        measured = str(metric.get("name")) if isinstance(metric, dict) else ""
        numbers = {name: i for i, name in enumerate(choices)}
        return cls(measured, choices, numbers, tuple(costs) if isinstance(costs, dict) else ())


def raise_problems(problems: list[Problem]) -> None:
    """Raise ValidationError with all problems, if any; pydantic prepends the path of the validated part."""
    if problems:
        details = [
            InitErrorDetails(type=PydanticCustomError("declaration", what), loc=path, input=None)
            for path, what in problems
        ]
        raise ValidationError.from_exception_data("declaration", details)


def number(text: str) -> Decimal | None:
    """Return a text as a decimal number, or None if it is not one."""
    return Decimal(text) if _NUMBER.fullmatch(text) else None


# -- texts and numbers -------------------------------------------------------------------------------
def _text(text: str) -> str:
    if not text:
        raise ValueError("expected a text, found nothing")
    if len(text) > MAX_TEXT:
        raise ValueError(f"a text of {len(text):,} characters, at most {MAX_TEXT:,} are allowed")
    if text[0] in QUOTES and text[-1] in QUOTES:
        raise ValueError(f"{short(repr(text))} has {pasted(text)}")
    if not text.isprintable() or text != text.strip():
        found = pasted(text) or "control characters, or leading or trailing spaces"
        raise ValueError(f"{short(repr(text))} has {found}")
    return text


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        typo = f", with {found}" if (found := pasted(text)) else ""
        raise ValueError(f"expected letters, digits, '_', '-', '.', at most 64, found {short(repr(text))}{typo}")
    return text


def _price(text: Any) -> Decimal:
    value = _number(text)
    if value < 0:
        raise ValueError(f"a cost can't be negative, found {text}")
    return value


def _number(text: Any) -> Decimal:
    value = number(text) if isinstance(text, str) else None
    if value is None:
        typo = f", with {found}" if (found := pasted(str(text))) else ""
        raise ValueError(f"expected a number, found {short(repr(text))}{typo}")
    return value


def whole_number(text: Any, low: int, high: int) -> int:
    """Return a text as an integer; raises ValueError if it isn't one or is out of range."""
    if not (isinstance(text, str) and re.fullmatch(r"[0-9]{1,4}", text) and low <= int(text) <= high):
        raise ValueError(f"expected a whole number from {low} to {high}, found {short(repr(text))}")
    return int(text)


def _unique(texts: tuple[str, ...]) -> tuple[str, ...]:
    seen = Counter[str]()
    problems: list[Problem] = []
    for i, text in enumerate(texts):
        seen[text] += 1
        if seen[text] == 2:
            problems.append(((i,), f"{short(repr(text))} is listed twice"))
    raise_problems(problems)
    return texts


def _sized(value: Any) -> Any:
    if isinstance(value, list) and not 0 < len(value) <= MAX_ENTRIES:
        raise ValueError(
            f"{len(value):,} entries, at most {MAX_ENTRIES:,} are possible" if value else "the list is empty"
        )
    return value


Sized = BeforeValidator(_sized)
Text: TypeAlias = Annotated[str, AfterValidator(_text)]
Name: TypeAlias = Annotated[Text, AfterValidator(_name)]
Number: TypeAlias = Annotated[Decimal, BeforeValidator(_number)]
Price: TypeAlias = Annotated[Decimal, BeforeValidator(_price)]
Texts: TypeAlias = Annotated[tuple[Text, ...], Sized, AfterValidator(_unique)]
OneOrMore: TypeAlias = Annotated[Texts, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]


# -- positions and choices by name -------------------------------------------------------------------
def _group(value: Any, info: ValidationInfo[Index]) -> Group:
    names = _TEXTS.validate_python(value)
    numbers = info.context.numbers
    unknown = [(i, name) for i, name in enumerate(names) if name not in numbers]
    raise_problems([((i,), unknown_name("position", name, numbers)) for i, name in unknown])
    return tuple(numbers[name] for name in names)


def _sortable(group: Group, info: ValidationInfo[Index]) -> Group:
    if len(group) < 2:
        raise ValueError("expected at least 2 positions")
    every = list(info.context.choices.items())
    for name, choices in (every[p] for p in group):
        text = next((c for c in choices if number(c) is None), None)
        if text is not None:
            raise ValueError(f"position {name!r} has the choice {short(repr(text))}, which is not a number")
    return group


def _match(value: Any, info: ValidationInfo[Index]) -> Match:
    entries, index = _ENTRIES.validate_python(value), info.context
    problems: list[Problem] = [] if entries else [((), "expected at least one position")]
    out = {}
    for name, texts in entries.items():
        known = index.choices.get(name)
        if known is None:
            problems.append(((name,), unknown_name("position", name, index.choices)))
            continue
        wrong = [(i, text) for i, text in enumerate(texts) if text not in known]
        problems += [((name, i), unknown_name(f"choice of {name}", text, known)) for i, text in wrong]
        out[index.numbers[name]] = frozenset(known.index(text) for text in texts if text in known)
    raise_problems(problems)
    return tuple(sorted(out.items()))


_TEXTS = TypeAdapter[tuple[str, ...]](Texts)
_ENTRIES = TypeAdapter[dict[str, tuple[str, ...]]](dict[Text, OneOrMore])
AnyGroup: TypeAlias = Annotated[Group, PlainValidator(_group)]
Sortable: TypeAlias = Annotated[AnyGroup, AfterValidator(_sortable)]
AnyMatch: TypeAlias = Annotated[Match, PlainValidator(_match)]
