"""Cells of labels: numbers in the notations of spreadsheets, and states of trials."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from lissnas.core.errors import short
from lissnas.core.typography import MINUS, pasted
from lissnas.spaces.base import FloatArray

STATUS = "status"
"""The column of outcomes."""
STATE = "state"
"""Another name of that column."""
FAILED = "failed"
"""The outcome of a training without a label."""
DONE = "ok"
"""The outcome of a training with a label."""
OUTCOMES: Mapping[str, tuple[str, ...]] = {
    DONE: (DONE, "done", "complete", "completed", "finished", "success", "successful", "succeeded", "terminated"),
    FAILED: (
        *(FAILED, "fail", "failure", "error", "errored", "crashed", "killed", "aborted", "timeout", "timed", "oom"),
        *("nan", "diverged", "cancelled", "canceled", "user_canceled", "sys_canceled"),
    ),
    "pruned": ("pruned", "stopped", "early_stopped", "early"),
    "unfinished": ("running", "waiting", "pending", "queued", "paused", "unknown", "scheduled", "started"),
}
"""States of trials (Optuna, Ray Tune, NNI) by what they mean for a label."""
EMPTY = ("", "-", "?", "n/a", "#n/a", "na", "#na", "<na>", "null", "none")
"""Texts of a missing value."""
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
"""The accepted numbers; `float` accepts more: 1_0, digits of other scripts."""
SEPARATED = re.compile(r"[+-]?[0-9]{1,3}(?:[.,' \u00a0\u202f]?[0-9]+)*([eE][+-]?[0-9]+)?")
"""Numbers with separators of thousands or a decimal comma."""
STYLES = (("", ","), *((t, d) for d in ".," for t in (",", ".", "'", " ", "\u00a0", "\u202f") if t != d))
"""Separators of thousands with the decimal marks that can go with them; plain numbers have none and a point."""
CONTAINED = re.compile(r"(?<![\w.])[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?(?![0-9.])")
"""A number with other text around it: a unit, an interval, a date."""
MAX_VALUE = 1e30
"""Maximum size of a label: the predictor's float32 arithmetic overflows beyond, also with squares of differences."""
FAR = 100
"""A label that differs from the median by this many spreads (10th to 90th percentile) is reported."""
MARKS = (-1.0, 0.0)
"""Values that often mark a failed training."""
FAR_MARK = 2
"""One of them that differs from all others by this many of their ranges is reported."""


def outcomes(cells: Sequence[str]) -> tuple[list[str], dict[str, list[int]]]:
    """Return the outcome of each state (`ok` if empty), and the rows of each state that is unknown."""
    known = {word: outcome for outcome, words in OUTCOMES.items() for word in words}
    found, unknown = dict[str, str](), dict[str, list[int]]()
    for text in {*cells}:
        words = re.findall(r"[a-z_]+", text.lower().removeprefix("trialstate.").replace("-", "_"))
        first = known.get(words[0], "") if words else ""
        failed = first == DONE and any(known.get(word) == FAILED for word in words)  # finished with an error
        found[text] = DONE if text.lower() in EMPTY else FAILED if failed else first
    for i, text in enumerate(cells):
        if not found[text]:
            unknown.setdefault(text, []).append(i)
    return [found[text] for text in cells], unknown


def numbers(name: str, cells: Sequence[str]) -> tuple[FloatArray, dict[int, str], list[str]]:
    """Return `(n,)` values of a column's cells, NaN for invalid ones, their problems by index, and notes.

    A percent sign, decimal commas and separators of thousands are accepted if all cells agree and no other reading
    is possible.
    """
    problems: dict[int, str] = {}
    notes: list[str] = []
    typed = [re.sub(f"(^|(?<=[eE])){MINUS}(?=[0-9.])", "-", cell) for cell in cells]
    if typed != [*cells]:
        notes.append(f"typographic minus signs of {name} read as -")
    texts = [cell.removesuffix("%").rstrip() for cell in typed]
    percent = [i for i, cell in enumerate(cells) if cell.endswith("%") and _is_number(texts[i])]
    if percent and len(percent) == sum(map(_is_number, texts)):
        notes.append(f"percent signs of {name} left out")
    else:
        for i in percent:
            problems[i] = f"{name} {short(repr(cells[i]))} has a percent sign, other rows have none; write all equally"
    marks = {i: text for i, text in enumerate(texts) if i not in problems and not NUMBER.fullmatch(text)}
    marks = {i: text for i, text in marks.items() if SEPARATED.fullmatch(text)}
    if marks:
        plain = next((t for i, t in enumerate(texts) if i not in marks and re.search(r"[0-9]\.[0-9]", t)), None)
        style = _style([*marks.values()], [t for t in texts if NUMBER.fullmatch(t)])
        if isinstance(style, str):
            comma = plain and any("," in text for text in marks.values())
            seen = f"; other rows have a decimal point, such as {plain}" if comma else ""
            for i, text in marks.items():
                problems[i] = f"{name} {short(repr(text))} {style}{seen}; write numbers like 1234.5"
        else:
            thousands, decimal = style
            texts = [_plain(t, thousands, decimal) if _is_number(t) else t for t in texts]
            notes += [f"{name} has decimal commas"] if decimal == "," else []
            notes += [f"separators of thousands in {name} left out"] if thousands else []
    values = np.full(len(cells), math.nan)
    for i, text in enumerate(texts):
        if i not in problems:
            values[i], problem = _value(name, text, cells[i])
            if problem:
                problems[i] = problem
    return values, problems, notes


def _is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text) or SEPARATED.fullmatch(text))


def _style(marked: Sequence[str], plain: Sequence[str]) -> tuple[str, str] | str:
    """Return the separator of thousands and the decimal mark of all texts, or why they aren't certain."""
    every = [*marked, *plain]
    readings: dict[tuple[float, ...], tuple[str, str]] = {}
    for style in STYLES:
        if all(_fits(text, *style) for text in every):
            readings.setdefault(tuple(float(_plain(text, *style)) for text in every), style)
    if len(readings) > 1:
        return "can be read in two ways, with a separator of decimals or of thousands"
    for thousands, decimal in readings.values():
        # Otherwise 91.234 and 83,5 in one column would be 91234 and 83.5.
        if thousands not in (".", ",") or any(
            text.count(thousands) > 1 or (thousands in text and decimal in text) for text in every
        ):
            return thousands, decimal
    return "has a comma" if any("," in text for text in marked) else "has separators of thousands"


def _fits(text: str, thousands: str, decimal: str) -> bool:
    group = rf"[0-9]{{1,3}}({re.escape(thousands)}[0-9]{{3}})+|" if thousands else ""
    return bool(re.fullmatch(rf"[+-]?({group}[0-9]+)({re.escape(decimal)}[0-9]*)?([eE][+-]?[0-9]+)?", text))


def _plain(text: str, thousands: str, decimal: str) -> str:
    return (text.replace(thousands, "") if thousands else text).replace(decimal, ".")


def _value(name: str, text: str, cell: str) -> tuple[float, str]:
    """Return a number, or NaN and the problem."""
    shown = short(repr(cell))
    fix = f"leave the cell empty, or write {FAILED!r} in a column {STATUS!r}"
    if NUMBER.fullmatch(text):
        value = float(text)
        if abs(value) <= MAX_VALUE:
            return value, ""
        if math.isfinite(value):
            return math.nan, f"{name} {value:.4g} is too large, at most {MAX_VALUE:g} is possible; {fix}"
        return math.nan, f"{name} {shown} is not finite; {fix}"
    if text.lower().lstrip("+-") in ("inf", "infinity"):
        return math.nan, f"{name} {shown} is not finite; {fix}"
    if found := pasted(cell):
        return math.nan, f"{name} {shown} has {found}"
    if any(character.isdigit() and not character.isascii() for character in cell):
        return math.nan, f"{name} {shown} has digits of another script; write 0 to 9"
    if inside := CONTAINED.search(cell):
        return math.nan, f"{name} {shown} is more than a number; write the number alone, such as {short(inside[0])}"
    return math.nan, f"{name} {shown} is no number; for a missing value {fix}"


def far_away(name: str, values: FloatArray) -> list[str]:
    """Return notes on labels that are far from all others, as values that mark a failed training are."""
    if len(values) < 10:
        return []
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    far = np.abs(values - middle) > FAR * (high - low) if high > low else np.zeros(len(values), bool)
    for mark in MARKS:
        others = values[values != mark]
        if 0 < len(values) - len(others) <= len(values) // 4 and np.ptp(others) > 0:
            gap = max(others.min() - mark, mark - others.max())
            far |= (values == mark) & (gap > FAR_MARK * np.ptp(others))
    if not far.any() or far.all():
        return []
    rest = values[~far]
    found = ", ".join(f"{value:g}" for value, _ in Counter(values[far].tolist()).most_common(3))
    n = int(far.sum())
    return [
        f"{n:,} label{'s are' if n > 1 else ' is'} far from all others ({rest.min():g} to {rest.max():g}): {found}; "
        f"if that marks failed trainings, leave {name} empty there"
    ]
