"""What can go wrong, as exceptions whose message says what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TypeVar

from lissnas.core.redaction import redacted

T = TypeVar("T")


class LissnasError(Exception):
    """A failure that is explained; the command ends with `exit_code` and no traceback. Its text holds no secret."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class UserError(LissnasError):
    """A mistake in what was asked for: nothing was written."""

    exit_code = 2


MOST_SHOWN = 100
"""Problems that a message lists; more are counted."""


class ConfigError(UserError):
    """Everything that is wrong with a configuration, at once.

    `problems` are lines of the form ``path: what is wrong``; the message has the first hundred.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = list(problems)
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        lines = [f"{source}: {count}", *(f"  {p}" for p in problems[:MOST_SHOWN])]
        more = len(problems) - MOST_SHOWN
        super().__init__("\n".join(lines + ([f"  and {more:,} more"] if more > 0 else [])))


class InvalidArchitecture(UserError):
    """Row `row` (counted from 0) is not an architecture of the space, for `reason`."""

    def __init__(self, row: int, reason: str) -> None:
        self.row = row
        self.reason = reason
        super().__init__(f"architecture in row {row} (counted from 0): {reason}")


class Problems:
    """What is wrong with several files, so that all of it can be said at once."""

    def __init__(self) -> None:
        self._found: list[UserError] = []

    def of(self, read: Callable[[], T]) -> T | None:
        """Return what `read` returns; None, and its problem is kept, where it raises UserError."""
        try:
            return read()
        except UserError as error:
            self._found.append(error)
            return None

    def raise_any(self) -> None:
        """Raise UserError with all that was kept, if there is any."""
        if len(self._found) == 1:
            raise self._found[0]
        if self._found:
            raise UserError("\n".join(map(str, self._found)))


class UnknownName(UserError):
    """A name that no registry holds; the message lists the known ones and the nearest."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        super().__init__(unknown_name(what, name, known))


class DamagedFile(LissnasError):
    """A file whose content is not what its checksum says; `remedy` is how to get a sound one."""

    def __init__(self, path: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{path} is damaged: expected sha256 {expected}, found {found}. {remedy}")


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return the one-line text for an unknown name, with the nearest known one."""
    names = list(known)
    near = get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {short(repr(name))}.{hint} Known: {short(', '.join(names), 1000)}"


def short(text: str, most: int = 60) -> str:
    """Return a text, its end cut off where it is longer than a message should quote."""
    return text if len(text) <= most else text[: most - 3] + "..."


def first_line(error: object) -> str:
    """Return the first line of an error's text, without secrets, or its kind where it has none."""
    lines = redacted(str(error)).splitlines()
    return short(lines[0], 300) if lines else type(error).__name__


def need_torch(what: str) -> None:
    """Raise UserError where torch is not installed, which `what` needs."""
    if not find_spec("torch"):
        raise UserError(f"{what} needs torch, torchvision and safetensors: pip install 'lissnas[torch]'")
