"""Oracles that run a user's program: splitting its command, and requesting values."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lissnas.artifacts import sha256
from lissnas.core.errors import UserError, short
from lissnas.core.redaction import without_passwords
from lissnas.core.typography import pasted
from lissnas.oracles.base import Oracle
from lissnas.oracles.program import run_program
from lissnas.spaces import Archs, FloatArray, Space
from lissnas.spaces.declared import Declared

QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
"""The parts of a command whose characters a shell takes literally, or expands later."""
SHELL = re.compile(r"\|\|?|&&?|;|[0-9]?>>?&?|<<?|`|\$[\w({]|(?<![^\s])~(?=/|\s|$)")
"""What only a shell interprets, outside of quotes."""
MAX_FILE_BYTES = 1 << 20
"""Larger files are data, not programs."""
SOURCES = (".py", ".sh", ".r", ".jl", ".pl", ".lua", ".js", ".yaml", ".yml", ".json", ".toml", ".cfg", ".ini", ".conf")
"""Endings of scripts and configurations."""
DIGITS = 16
"""Digits of a file's digest that are stored."""
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True)
class CommandOracle:
    """A user's program as an oracle (`run_program`), stopped if one architecture takes longer than `limit` seconds."""

    space: Space
    command: Sequence[str]
    limit: float | None = None

    @classmethod
    def parse(cls, space: Space, text: str, limit: float | None = None) -> CommandOracle:
        """Split a command as a shell does; raises UserError if the program can't be started."""
        return cls(space, split_command(text, "--oracle-command"), limit)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; raises OracleFailed with the batch in its message."""
        return run_program(self.command, self.space.format(archs), self.limit)


def program_settings(space: Space, text: str) -> dict[str, Any]:
    """Return everything that a program's answers depend on, other than the architecture."""
    declared = {"names": list(space.notation), "metric": space.metric_name} if isinstance(space, Declared) else {}
    files = file_digests(text)
    return {"space": space.name, "program": without_passwords(text), **declared, **({"files": files} if files else {})}


def file_digests(text: str) -> dict[str, str]:
    """Return the digests of the scripts and configurations that a command names, also within `bash -c "..."`.

    Data and large files are left out: a program may write to them.
    """
    found = {}
    for word in _words(text):
        path = Path(word)
        try:
            if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
                continue
            data = path.read_bytes()
        except (OSError, ValueError):  # not readable, or not a path
            continue
        if path.suffix.lower() in SOURCES or data.startswith(b"#!"):
            found[word] = sha256(data)[:DIGITS]
    return found


def _words(text: str) -> list[str]:
    """Return the words of a command that can be files; `--config=FILE` and `python -m MODULE` name one, too."""
    try:
        words = shlex.split(text)
    except ValueError:
        return []
    inner = [part for word in words if len(word.split()) > 1 for part in _words(word)]
    modules = [f"{name.replace('.', '/')}.py" for flag, name in itertools.pairwise(words) if flag == "-m"]
    return [*(word.rpartition("=")[2] for word in words), *modules, *inner]


def negative(oracle: Oracle) -> Oracle:
    """Return an oracle of the negative values, for a metric to minimize."""
    return lambda archs: -np.asarray(oracle(archs), np.float64)


def split_command(text: str, option: str) -> tuple[str, ...]:
    """Return a command's words, split as a shell does; raises UserError if the program can't be started."""
    if found := SHELL.search(QUOTED.sub("_", text)):
        raise UserError(
            f"{option}: {found[0]!r} is for a shell, and the program is started without one. "
            f"Start one: bash -c {shlex.quote(text)}"
        )
    if typo := _pasted(text):
        raise UserError(f"{option}: {short(repr(text))} has {typo}")
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: {text!r} can't be split into words: {error}") from None
    if not command or not command[0]:
        raise UserError(f"{option}: {text!r} names no program")
    if ASSIGNMENT.fullmatch(command[0]) and shutil.which(command[0]) is None:
        raise UserError(
            f"{option}: {short(command[0])!r} is not a program, and there is no shell that sets variables. "
            f"Let env set them: env {text.strip()}"
        )
    if shutil.which(command[0]) is None:
        raise UserError(f"{option}: {_why_not_found(command[0])}")
    return tuple(command)


def _pasted(text: str) -> str:
    """Return what was pasted into a command outside of its quotes; empty if that is the name of a file."""
    for word in QUOTED.sub("_", text).split(" "):
        if (found := pasted(word)) and not Path(word).exists():
            return found
    return ""


def _why_not_found(program: str) -> str:
    """Return why a program can't be started, and how to fix it."""
    path = Path(program)
    if path.is_dir():
        return f"{program} is a folder; name a program"
    if os.sep in program:
        if not path.exists():
            return f"there is no program {program} (in {Path.cwd()})"
        start = f", or start it with its interpreter: python {program}" if path.suffix == ".py" else ""
        return f"{program} is not executable: chmod +x {shlex.quote(program)}{start}"
    if path.exists():
        start = f"python {program}" if path.suffix == ".py" else f"./{program}"
        return f"{program} is not on PATH. For the file in this folder: {start}"
    return f"there is no program {program} on PATH"
