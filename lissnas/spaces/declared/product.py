"""User-defined product spaces: positions with constraints, inactive positions and exchanges."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.random import Generator

from lissnas.core.errors import InvalidArchitecture, UserError, short, unknown_name
from lissnas.spaces import base
from lissnas.spaces.base import Archs, BoolArray, Features, IntArray
from lissnas.spaces.choices import CHUNK, ChoiceSpace
from lissnas.spaces.declared.declaration import Constraint, Metric, ProductDeclaration
from lissnas.spaces.declared.exchanges import Exchanges
from lissnas.spaces.declared.fields import number
from lissnas.spaces.declared.rules import Rules

CELLS = 1 << 24
"""Entries (rows times positions) drawn at once, in at most `CHUNK` rows."""
MAX_FEATURE = float(np.finfo(np.float32).max)
"""Maximum of a feature (float32); numbers of choices are clipped to it."""
SAMPLE_TRIES = 1_000_000
"""Uniform rows without a valid network after which a space counts as empty."""
INTERVAL_TRIES = 100_000
"""Uniform rows that estimate the size of a space that is too large to list."""
MAX_FILLINGS = 256
"""Ways to fill the positions that one edit activates, up to which each of them is one edit away."""
MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
DATE = re.compile(
    rf"^([0-9]{{1,2}}-({MONTHS})|({MONTHS})-[0-9]{{2}}|[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}\b)", re.IGNORECASE
)
"""A date as spreadsheets write it."""


class Declared:
    """Attributes of every declared space in addition to `Space`: the metric of its labels, and its YAML."""

    metric_name: str
    maximize: bool
    """False if the metric is minimized; labels are then negated when they are read."""
    text: str
    """The YAML that declares the space."""
    notation: Sequence[str]
    """What determines which network a name is. Rules don't: they only decide which names there are."""

    def declare(self, metric: Metric, text: str) -> None:
        """Set the attributes."""
        self.metric_name, self.maximize, self.text = metric.name, metric.direction == "maximize", text


class DeclaredSpace(Declared, ChoiceSpace):
    """A product of positions with constraints, inactive positions and exchanges.

    A row is *valid* if it satisfies all constraints. Rows are the same network if they differ only by
    exchanges and by choices at inactive positions. The canonical form has the first choice at inactive
    positions and is the minimum valid row under exchanges; costs are those of that form. The notation
    joins choices by `|`.

    The distance is the minimum number of differing positions over all forms. If the positions that one
    edit activates can be filled in more than 256 ways, they start at their first choice instead
    (`fills` is False), and every other choice of them is one more edit.
    """

    def __init__(self, declaration: ProductDeclaration, source: str = "", text: str = "") -> None:
        positions = declaration.positions
        super().__init__(declaration.name, [len(p.choices) for p in positions], source)
        self.declare(declaration.metric, text)
        self.positions = self.notation = tuple(p.name for p in positions)
        self.choices = tuple(p.choices for p in positions)
        self.rules = Rules(declaration)
        self._exchanges = Exchanges(declaration, self.rules, source)
        self.size_exact = self.free or self.n_rows <= base.LISTABLE
        self._numbers = {i: p.numbers for i, p in enumerate(positions) if p.numbers is not None}
        every = [choice for choices in self.choices for choice in choices]
        self._shared = [choice for choice, n in Counter(every).items() if n > 1]

    # -- identity ----------------------------------------------------------------------------
    @property
    def free(self) -> bool:
        """Whether every row is a distinct network: there are no rules."""
        d = self.rules.declaration
        return not (d.constraints or d.inactive or d.exchanges)

    def valid(self, rows: Archs) -> BoolArray:
        """Return an `(n,)` mask of the rows that satisfy all constraints."""
        return self.rules.satisfied(rows)

    def canonicalize(self, rows: Archs) -> Archs:
        """Return the canonical form of each row's network."""
        return rows if self.free else self._exchanges.canonicalize(rows)[0]

    def networks(self, rows: Archs) -> tuple[Archs, BoolArray]:
        """Return the canonical form of each row's network, and a mask of networks with a valid form."""
        return self._exchanges.canonicalize(rows)

    @cached_property
    def _conditional(self) -> list[int]:
        """The positions that are inactive in some networks."""
        return sorted({p for rule in self.rules.declaration.inactive for p in rule.positions})

    @cached_property
    def _fillings(self) -> Archs:
        """All combinations of choices at the conditional positions."""
        return np.array(list(itertools.product(*(range(self.radix[p]) for p in self._conditional))), np.int8)

    @property
    def n_forms(self) -> int:
        """The number of forms that `variants` returns for a network."""
        return self._exchanges.count() * math.prod(int(self.radix[p]) for p in self._conditional)

    def variants(self, rows: Archs) -> Archs:
        """Return all forms of each network: every exchange with every filling of inactive positions."""
        forms = [self.centre_forms(rows[:, permutation]) for permutation in self._exchanges.permutations()]
        return np.concatenate(forms, axis=1)

    def centre_forms(self, rows: Archs) -> Archs:
        """Return every filling of inactive positions, without exchanges: `variants` of the other network has them."""
        at = self._conditional
        active = self.rules.active(rows)[:, None, at]
        filled = np.repeat(rows[:, None, :], len(self._fillings), axis=1)
        filled[:, :, at] = np.where(active, filled[:, :, at], self._fillings)
        return filled

    def invalid_reason(self, row: Archs) -> str:
        """Return which constraint a row breaks."""
        return _broken(*self.rules.broken(row[None]))

    # -- size, samples -------------------------------------------------------------------------
    def size_interval(self, rng: Generator, confidence: float = 0.99) -> tuple[int, int, float]:
        """Return lower and upper bounds of the number of networks and their confidence, 1 if the size is exact.

        The Clopper-Pearson interval of the share of canonical rows among uniform rows.
        """
        if self.size_exact:
            return self.size(), self.size(), 1.0
        from scipy.stats import binomtest  # slow to import, and few spaces need it

        hits = int(self._is_canonical(self._uniform(INTERVAL_TRIES, rng)).sum())
        share = binomtest(hits, INTERVAL_TRIES).proportion_ci(confidence, "exact")
        low, high = Fraction(share.low) * self.n_rows, Fraction(share.high) * self.n_rows
        return math.floor(low), math.ceil(high), confidence

    def _uniform(self, n: int, rng: Generator) -> Archs:
        return rng.integers(0, self.radix, (n, self.genome_len)).astype(np.int8)

    def sample(self, n: int, rng: Generator) -> Archs:
        """Draw `n` uniform networks from the listing or by rejection; raises UserError if the space seems empty."""
        if self.free:
            return self._uniform(n, rng)
        if self.size_exact:
            return self._listing[rng.integers(0, self.size(), n)]
        return self.reject(n, rng)

    def reject(self, n: int, rng: Generator) -> Archs:
        """Draw `n` uniform networks by rejection: uniform rows, of which canonical ones are accepted."""
        found, tries, got = [np.empty((0, self.genome_len), np.int8)], 0, 0
        max_rows = min(CHUNK, CELLS // self.genome_len)
        while got < n:
            share = max(got, 1) / max(tries, 1)
            rows = self._uniform(int(min(max(1.1 * (n - got) / share, 1024), max_rows)), rng)
            tries += len(rows)
            found.append(rows[self._is_canonical(rows)])
            got += len(found[-1])
            if not got and tries >= SAMPLE_TRIES:
                raise UserError(
                    f"space {self.name}: constraints leave (almost) no network, none among {tries:,} uniform rows"
                )
        return np.concatenate(found)[:n]

    # -- edits ---------------------------------------------------------------------------------
    @cached_property
    def _activated(self) -> list[list[int]]:
        """For each position, the positions that an edit of it can activate, through any chain of rules."""
        activated: list[set[int]] = [set() for _ in self.positions]
        for rule in reversed(self.rules.declaration.inactive):
            for p, _ in rule.match:
                activated[p] |= set(rule.positions).union(*(activated[q] for q in rule.positions))
        return [sorted(s) for s in activated]

    @cached_property
    def fills(self) -> bool:
        """Whether an edit that activates positions also sets their choices."""
        return all(math.prod(int(self.radix[q]) for q in part) <= MAX_FILLINGS for part in self._activated)

    def distance(self, a: Archs, b: Archs) -> IntArray:
        """Return the `(n,)` exact edit distances from row i of `a` to row i of `b`."""
        a, b = self.canonicalize(a), self.canonicalize(b)
        active = self.rules.active(b)
        return self._exchanges.distance(a, b, self.rules.active(a) if self.fills else np.ones_like(active), active)

    def _forms_to_edit(self, rows: Archs, position: int) -> tuple[Archs, IntArray]:
        """Return the rows in which the position is active, with every filling of what an edit of it can activate."""
        active = self.rules.active(rows)
        activated = self._activated[position] if self.fills else []
        fillings = np.array(list(itertools.product(*(range(self.radix[q]) for q in activated))), np.int8)
        at = np.flatnonzero(active[:, position])
        forms = np.repeat(rows[at, None], len(fillings), axis=1)
        forms[:, :, activated] = np.where(active[at][:, None, activated], forms[:, :, activated], fillings)
        return forms, at

    def _redraw(self, archs: Archs, edits: IntArray, rng: Generator) -> Archs:
        """Fill the inactive positions of row i at random, then change `edits[i]` positions."""
        rows, rate = self.canonicalize(archs), np.broadcast_to(self._n_steps, archs.shape)
        if self.fills and self.rules.declaration.inactive:
            active = self.rules.active(rows)
            rows = np.where(active, rows, self._uniform(len(rows), rng))
            rate = rate * active
        chosen = base.draw_slots(rate, edits, rng)
        step = rng.integers(1, self.radix, rows.shape)
        return np.where(chosen, (rows + step) % self.radix, rows).astype(np.int8)

    # -- costs and features ----------------------------------------------------------------------
    def slots(self, archs: Archs) -> Archs:
        """Return the choice at each position, -1 if the position is inactive."""
        return np.where(self.rules.active(archs), archs, np.int8(-1))

    def costs(self, archs: Archs) -> Mapping[str, IntArray]:
        """Return the declared costs of the canonical form, `(n,)` each, in their units, rounded to integers."""
        self.check_rows(archs)
        rows = self.canonicalize(archs)
        active = self.rules.active(rows)
        return {name: self.rules.whole_cost(name, rows, active) for name in self.rules.declaration.costs}

    def encode(self, archs: Archs) -> Features:
        """Return one-hot choices, counts of texts that are choices of several positions, numbers, and costs.

        Inactive positions contribute 0. Costs are not rounded.
        """
        self.check_rows(archs)
        position, choice = self._hot
        active = self.rules.active(archs)
        hot = (archs[:, position] == choice) & active[:, position]
        texts = np.array([text for choices in self.choices for text in choices], object)
        columns = [hot[:, texts == text].sum(axis=1) for text in self._shared]
        for p, numbers in self._numbers.items():
            values = np.clip([float(x) for x in numbers], -MAX_FEATURE, MAX_FEATURE)
            columns.append(values[archs[:, p]] * active[:, p])
        columns += [self.rules.cost(name, archs, active) for name in self.rules.declaration.costs]
        return np.concatenate([hot, *(column[:, None] for column in columns)], axis=1, dtype=np.float32)

    # -- notation --------------------------------------------------------------------------------
    def to_text(self, archs: Archs) -> list[list[str]]:
        """Return for each position the `n` choices as texts."""
        tables = [np.array(choices, object) for choices in self.choices]
        return [table[column].tolist() for table, column in zip(tables, archs.T, strict=True)]

    def from_text(self, columns: Sequence[Sequence[str]]) -> tuple[Archs, list[tuple[int, str]]]:
        """Return canonical rows from a column of texts for each position, and the problems as (row, message).

        Texts at inactive positions are not read; `choice_of` describes which texts mean a choice. Ignore the returned
        rows that have a problem.
        """
        rows = np.zeros((len(columns[0]), self.genome_len), np.int8)
        problems = []
        for p, column in enumerate(columns):
            index = {text: choice_of(text, self.choices[p]) for text in {*column}}
            rows[:, p] = np.fromiter((index[text] for text in column), np.int8, len(column))
        unknown = rows < 0
        rows[unknown] = 0
        unknown &= self.rules.active(rows)  # anything is accepted at a position that doesn't matter
        for i, p in zip(*(at.tolist() for at in np.nonzero(unknown)), strict=True):
            name, text = self.positions[p], columns[p][i]
            empty = f"{short(repr(name))} is empty; expected one of {short(', '.join(self.choices[p]), 1000)}"
            problems.append((i, _unknown(name, text, self.choices[p]) if text else empty))
        known = ~unknown.any(axis=1)
        bad = np.flatnonzero(known & ~self.valid(rows))
        problems += zip(bad.tolist(), map(_broken, self.rules.broken(rows[bad])), strict=True)
        return self.canonicalize(rows), sorted(problems)

    def format(self, archs: Archs) -> list[str]:
        """Return the choices of each row, joined by `|`."""
        return ["|".join(choices) for choices in zip(*self.to_text(archs), strict=True)]

    def split(self, names: Sequence[str]) -> tuple[list[list[str]], list[tuple[int, str]]]:
        """Return a column of texts for each position, and (row, message) for names with too few or many parts."""
        parts = [name.split("|") for name in names]
        problems = [
            (i, f"expected {self.genome_len} choices joined by '|', found {len(part)} in {short(repr(names[i]))}")
            for i, part in enumerate(parts)
            if len(part) != self.genome_len
        ]
        first = [choices[0] for choices in self.choices]
        for i, _ in problems:
            parts[i] = first
        return [[part[p] for part in parts] for p in range(self.genome_len)], problems

    def parse(self, names: Sequence[str]) -> Archs:
        """Return the canonical rows of names, choices joined by `|`."""
        columns, problems = self.split(names)
        wrong = {i for i, _ in problems}
        rows, more = self.from_text(columns)
        problems = sorted(problems + [(i, what) for i, what in more if i not in wrong])
        if problems:
            raise InvalidArchitecture(*problems[0])
        return rows


TRUE = ("true", "yes", "on", "1")
"""Texts that other programs write for each other."""
FALSE = ("false", "no", "off", "0")


def _unknown(position: str, text: str, choices: Sequence[str]) -> str:
    """Return the message for a text that is not a choice, with the cause if a spreadsheet made a date of a choice."""
    date = " A spreadsheet turns texts such as 1-10 into dates: format the column as text." if DATE.search(text) else ""
    return unknown_name(f"choice of {position}", text, choices) + date


def choice_of(text: str, choices: Sequence[str]) -> int:
    """Return the index of the choice that a text means, -1 if none or several.

    It is the equal text, else the equal number (`3.0` is `3`), else the same one of yes and no (`True` is `yes`).
    """
    text = unicodedata.normalize("NFC", text)
    if text in choices:
        return choices.index(text)
    value, word = number(text), text.lower()
    if value is not None:
        equal = [i for i, choice in enumerate(choices) if number(choice) == value]
        return equal[0] if len(equal) == 1 else -1
    if word in ("true", "false"):
        yes = [i for i, choice in enumerate(choices) if choice.lower() in TRUE]
        no = [i for i, choice in enumerate(choices) if choice.lower() in FALSE]
        if len(yes) == len(no) == 1:
            return (yes if word in TRUE else no)[0]
    return -1


def _broken(constraint: Constraint | None) -> str:
    return (
        f"breaks the constraint of line {constraint.line} of the declaration" if constraint else "breaks no constraint"
    )
