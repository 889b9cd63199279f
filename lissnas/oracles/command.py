"""Oracles of a user's own: a command, a model file; and answers that are remembered on disk."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import IO, NamedTuple

import numpy as np

from lissnas.core.errors import LissnasError, UserError
from lissnas.oracles.base import Oracle
from lissnas.oracles.label_table import FAILED, NUMBER
from lissnas.spaces import Archs, FloatArray, Space

BYTES_A_LINE = 1024
"""A program that answers more than so many bytes an architecture is ended."""
COMPLAINT_BYTES = 65_536
"""Bytes at the end of a program's standard error that an error may cite."""
POLL = 0.02
"""Seconds between looks at a running program."""


class OracleFailed(LissnasError):
    """A user's oracle died, was too slow, or answered what can't be used; `answered` before that are sound."""

    def __init__(self, message: str, answered: Sequence[float] = ()) -> None:
        super().__init__(message)
        self.answered = tuple(answered)


@dataclass(frozen=True)
class CommandOracle:
    """A program of the user's as an oracle (`ask_program`), in batches, ended after `seconds` of one."""

    space: Space
    command: Sequence[str]
    seconds: float

    @classmethod
    def parse(cls, space: Space, text: str, seconds: float) -> CommandOracle:
        """Read a command as a shell would split it; raises UserError for one that is not there."""
        return cls(space, split_command(text, "--oracle-command"), seconds)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; raises OracleFailed, which says which batch it was."""
        return ask_program(self.command, self.space.format(archs), self.seconds)


def split_command(text: str, option: str) -> tuple[str, ...]:
    """Return a command's words as a shell would split it; raises UserError for a program that is not there."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: {text!r} can't be split into words: {error}") from None
    if not command or shutil.which(command[0]) is None:
        raise UserError(f"{option}: {command[0] if command else text!r} is no program that is found")
    return tuple(command)


def ask_program(command: Sequence[str], names: Sequence[str], seconds: float) -> FloatArray:
    """Return what a program says of networks: a name a line on its input, a number a line on its output.

    It runs once, without a shell, in its own process group, which is ended after `seconds`. For a network that gave
    no value it answers `failed`, which is a NaN here. Raises OracleFailed.
    """
    batch = f"the batch of {len(names)} from {names[0]} to {names[-1]}"
    most = BYTES_A_LINE * (len(names) + 1)
    try:
        said = _converse(command, "".join(f"{n}\n" for n in names).encode(), seconds, most)
    except OSError as error:
        raise OracleFailed(f"{command[0]} does not start for {batch}: {error.strerror or error}") from None
    if len(said.answer) > most:
        raise OracleFailed(f"{command[0]} answered more than {most:,} bytes for {batch}: one number a line is expected")
    if said.code is None:
        raise OracleFailed(f"{command[0]} took longer than {seconds:g} s for {batch}", _leading(command, said, names))
    if said.code:
        last = " ".join(said.complaint.decode("utf-8", "replace").split())[-200:]
        raise OracleFailed(
            f"{command[0]} ended with code {said.code} on {batch}: {last or 'no message'}",
            _leading(command, said, names),
        )
    lines = said.answer.decode("utf-8", "replace").splitlines()
    if len(lines) != len(names):
        raise OracleFailed(f"{command[0]} answered {len(lines)} lines for {batch}: one number a line is expected")
    return np.array([_number(command, line, name) for line, name in zip(lines, names, strict=True)])


def _leading(command: Sequence[str], said: Said, names: Sequence[str]) -> list[float]:
    """Return what a program that failed had answered: whole lines before the first that is no answer."""
    lines = said.answer[: said.answer.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
    found: list[float] = []
    with suppress(OracleFailed):
        for line in lines if len(lines) <= len(names) else ():
            found.append(_number(command, line, ""))
    return found


def _number(command: Sequence[str], line: str, name: str) -> float:
    text = line.strip()
    if text.lower() == FAILED:
        return math.nan
    value = float(text) if NUMBER.fullmatch(text) else math.inf
    if not math.isfinite(value):
        raise OracleFailed(
            f"{command[0]} answered {text[:60]!r} for {name}: a finite number is expected, or {FAILED!r}"
        )
    return value


class Said(NamedTuple):
    """What a program answered, the end of what it wrote to standard error, its exit code, None if it was stopped."""

    answer: bytes
    complaint: bytes
    code: int | None


def _converse(command: Sequence[str], question: bytes, seconds: float, most: int) -> Said:
    """Return what a program answers to a question, when it ends, its time is up, or there are more than `most` bytes.

    It talks through files: pipes are open, and hold up who reads them, for as long as any process that the program
    started has them. However this returns, the program and its process group are ended. Raises OSError.
    """
    with TemporaryFile() as asking, TemporaryFile() as answering, TemporaryFile() as complaining:
        asking.write(question)
        asking.seek(0)
        process = subprocess.Popen(command, stdin=asking, stdout=answering, stderr=complaining, start_new_session=True)
        until = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < until and _size(answering) <= most:
                time.sleep(POLL)
            code = process.returncode
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # By place, since a process that is left may still move the position that it shares.
        answer = os.pread(answering.fileno(), most + 1, 0)
        complaint = os.pread(complaining.fileno(), COMPLAINT_BYTES, max(0, _size(complaining) - COMPLAINT_BYTES))
        return Said(answer, complaint, code)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def negative(oracle: Oracle) -> Oracle:
    """Return an oracle of the negative: for a metric of which less is better."""
    return lambda archs: -np.asarray(oracle(archs), np.float64)
