"""Check invalid input: it must produce a valid outcome, or a short message that names the place, and no files."""

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
"""File that an executed payload would create."""
PAYLOAD = f"__import__('os').system('touch {MARK}')"
MAX_MESSAGE = 150_000
"""Maximum length of a message, in characters."""
MAX_SECONDS = 60.0
"""Time limit of a case on a busy machine, in seconds."""


@dataclass(frozen=True)
class Case:
    """Input files in a folder, the call that reads them, and the expected outcome.

    `passes`: whether the input is valid, None for either. `message`: text required in the error message.
    """

    name: str
    run: Callable[[Path], object]
    files: Mapping[str, bytes] = field(default_factory=dict)
    passes: bool | None = False
    message: str = ""
    refusal: type[LissnasError] = UserError


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files under a folder, except locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not (path.name.startswith(".") and path.suffix == ".lock")
    }


def failures(cases: Iterable[Case], folder: Path) -> list[str]:
    """Return the problems of all cases whose outcome differs from the expected one."""
    found = []
    for case in cases:
        for name, data in case.files.items():
            (folder / name).write_bytes(data)
        before, start = snapshot(folder), time.monotonic()
        wrong = _failures(case, folder)
        if time.monotonic() - start > MAX_SECONDS:
            wrong.append(f"took {time.monotonic() - start:.0f} s")
        if (after := snapshot(folder)) != before:
            wrong.append(f"left {sorted(after.keys() ^ before.keys()) or 'other contents'}")
        found += [f"{case.name}: {what}" for what in wrong]
        for name in after.keys() - before.keys() | case.files.keys():
            (folder / name).unlink(missing_ok=True)
    return found


def _failures(case: Case, folder: Path) -> list[str]:
    try:
        case.run(folder)
    except LissnasError as error:
        text = str(error)
        if case.passes:
            return [f"refused: {_short(text)}"]
        wrong = [f"a message of {len(text):,} characters"] if len(text) > MAX_MESSAGE else []
        if not isinstance(error, case.refusal):
            wrong.append(f"{type(error).__name__}: {_short(text)}")
        if not text.strip() or case.message not in text:
            wrong.append(f"the message does not contain {case.message!r}: {_short(text)}")
        return wrong
    except Exception as error:
        return [f"{type(error).__name__}: {_short(str(error))}"]
    return ["was accepted"] if case.passes is False else []


def _short(text: str) -> str:
    reader = reprlib.Repr()
    reader.maxstring = 300
    return reader.repr(text)


def peak() -> int:
    """Return the peak memory of this process in bytes; 0 if unknown."""
    return (
        0
        if resource is None
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    )


def report(found: list[str]) -> str:
    """Return the problems as text."""
    return "\n".join([f"{len(found)} problems", *found[:100]])
