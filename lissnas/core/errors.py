"""Exceptions whose message states what is wrong, where, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TypeVar

from lissnas.core.redaction import redacted
from lissnas.core.typography import pasted

T = TypeVar("T")


class LissnasError(Exception):
    """An expected failure: a command prints its redacted message, no traceback, and exits with `exit_code`."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class UserError(LissnasError):
    """Invalid input: nothing was written."""

    exit_code = 2


MAX_SHOWN = 100
"""Problems that a message lists; the rest are only counted."""


class ConfigError(UserError):
    """All problems of a configuration, reported together.

    `problems` are lines of the form ``path: what is wrong``; the message has the first hundred.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = list(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        lines = [f"{source}: {count}", *(f"  {p}" for p in problems[:MAX_SHOWN])]
        more = len(problems) - MAX_SHOWN
        super().__init__("\n".join(lines + ([f"  and {more:,} more"] if more > 0 else [])))


class InvalidArchitecture(UserError):
    """Row `row` (counted from 0) is not an architecture of the space; `reason` states why."""

    def __init__(self, row: int, reason: str) -> None:
        self.row = row
        self.reason = reason
        super().__init__(f"architecture in row {row} (counted from 0): {reason}")


class Problems:
    """Collects the problems of several files to report them together."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    def of(self, read: Callable[[], T]) -> T | None:
        """Return the result of `read`, or record its UserError and return None."""
        try:
            return read()
        except UserError as error:
            self._found.append(error)
            return None

    def raise_any(self) -> None:
        """Raise UserError with all recorded problems, if any."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise UserError("\n".join(map(str, self._found)))


class UnknownName(UserError):
    """A name that is not registered; the message lists the known names and the closest match."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        super().__init__(unknown_name(what, name, known))


class DamagedFile(LissnasError):
    """A file that does not match its checksum; `fix` states how to restore it."""

    def __init__(self, path: str, expected: str, found: str, fix: str) -> None:
        super().__init__(f"{path} is damaged: expected sha256 {expected}, found {found}. {fix}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return a one-line message for an unknown name, with the closest known name."""
    return f"unknown {what} {short(repr(name))}. {closest(name, known)}"


def closest(name: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown name: what was pasted into it, the closest known name, and the known names."""
    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    typo = pasted(name, names)
    hint = f"It has {typo}. " if typo else ""
    hint += f"Did you mean {near[0]!r}? " if near else ""
    return f"{hint}Known: {short(', '.join(names), 1000)}"


def short(text: str, max_length: int = 60) -> str:
    """Return a text, truncated to `max_length` characters."""
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def first_line(error: object) -> str:
    """Return the first line of an error's message, redacted; the name of its type if the message is empty."""
    lines = redacted(str(error)).splitlines()
    return short(lines[0], 300) if lines else type(error).__name__


def need_torch(what: str) -> None:
    """Raise UserError unless torch, which `what` requires, is installed."""
    if not find_spec("torch"):
        raise UserError(f"{what} needs torch, torchvision and safetensors: pip install 'lissnas[torch]'")
