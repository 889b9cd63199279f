"""What bad input may do: end in a valid outcome, or in a short message that names the place, and nothing else."""

from __future__ import annotations

import reprlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lissnas.core.errors import LissnasError, UserError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MARK = "planted"
"""The file that a smuggled payload would make."""
PAYLOAD = f"__import__('os').system('touch {MARK}')"
LONGEST = 150_000
"""Characters of the longest message that anyone would read."""
SLOWEST = 60.0
"""Seconds that a case may take on a busy machine: none may hang."""


@dataclass(frozen=True)
class Case:
    """Files in a folder, what is done with them there, and what comes of it.

    `passes` says whether it is valid: None where it may be either. `says` has to be in the message of a refusal.
    """

    name: str
    run: Callable[[Path], object]
    files: Mapping[str, bytes] = field(default_factory=dict)
    passes: bool | None = False
    says: str = ""
    refusal: type[LissnasError] = UserError


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the files under a folder and their contents; locks, and folders for them, may stay behind."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (path.name.startswith(".") and path.suffix == ".lock")
    }


def troubles(cases: Iterable[Case], folder: Path) -> list[str]:
    """Return what went wrong with each case that is not refused, or valid, as it has to be."""
    found = []
    for case in cases:
        for name, data in case.files.items():
            (folder / name).write_bytes(data)
        before, began = snapshot(folder), time.monotonic()
        wrong = _trouble(case, folder)
        if time.monotonic() - began > SLOWEST:
            wrong.append(f"took {time.monotonic() - began:.0f} s")
        if (after := snapshot(folder)) != before:
            wrong.append(f"left {sorted(after.keys() ^ before.keys()) or 'other contents'}")
        found += [f"{case.name}: {what}" for what in wrong]
        for name in after.keys() - before.keys() | case.files.keys():
            (folder / name).unlink(missing_ok=True)
    return found


def _trouble(case: Case, folder: Path) -> list[str]:
    try:
        case.run(folder)
    except LissnasError as error:
        text = str(error)
        if case.passes:
            return [f"refused: {_short(text)}"]
        wrong = [f"a message of {len(text):,} characters"] if len(text) > LONGEST else []
        if not isinstance(error, case.refusal):
            wrong.append(f"{type(error).__name__}: {_short(text)}")
        if not text.strip() or case.says not in text:
            wrong.append(f"the message doesn't say {case.says!r}: {_short(text)}")
        return wrong
    except Exception as error:
        return [f"{type(error).__name__}: {_short(str(error))}"]
    return ["was taken for valid"] if case.passes is False else []


def _short(text: str) -> str:
    reader = reprlib.Repr()
    reader.maxstring = 300
    return reader.repr(text)


def peak() -> int:
    """Return the most memory that this process has had, in bytes; 0 where nobody says."""
    return (
        0
        if resource is None
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    )


def report(found: list[str]) -> str:
    """Return all troubles as a text."""
    return "\n".join([f"{len(found)} troubles", *found[:100]])
