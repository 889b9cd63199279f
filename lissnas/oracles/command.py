"""Oracles that run a user's program."""

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

MAX_BYTES_PER_LINE = 1024
"""Maximum output per architecture; a program that writes more is stopped."""
MAX_STDERR_BYTES = 65_536
"""Bytes at the end of a program's standard error that an error may quote."""
EXPECTED_LINES = "expected one number per line"
POLL_INTERVAL = 0.02
"""Seconds between checks of a running program."""


class OracleFailed(LissnasError):
    """A user's oracle crashed, timed out or wrote invalid output; `completed` are the valid values before that."""

    def __init__(self, message: str, completed: Sequence[float] = ()) -> None:
        super().__init__(message)
        self.completed = tuple(completed)


@dataclass(frozen=True)
class CommandOracle:
    """A user's program as an oracle (`run_program`), stopped if a batch takes longer than `seconds`."""

    space: Space
    command: Sequence[str]
    seconds: float

    @classmethod
    def parse(cls, space: Space, text: str, seconds: float) -> CommandOracle:
        """Split a command as a shell does; raises UserError if the program is not found."""
        return cls(space, split_command(text, "--oracle-command"), seconds)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; raises OracleFailed with the batch in its message."""
        return run_program(self.command, self.space.format(archs), self.seconds)


def split_command(text: str, option: str) -> tuple[str, ...]:
    """Return a command's words, split as a shell does; raises UserError if the program is not found."""
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise UserError(f"{option}: {text!r} can't be split into words: {error}") from None
    if not command or shutil.which(command[0]) is None:
        raise UserError(f"{option}: {command[0] if command else text!r} is no program that is found")
    return tuple(command)


def run_program(command: Sequence[str], names: Sequence[str], seconds: float) -> FloatArray:
    """Return a program's values of architectures: one name per line on its stdin, one number per line on its stdout.

    It runs once, without a shell, in its own process group, which is killed after `seconds`. `failed` instead of a
    number is returned as NaN. Raises OracleFailed.
    """
    batch = f"the batch of {len(names)} from {names[0]} to {names[-1]}"
    max_bytes = MAX_BYTES_PER_LINE * (len(names) + 1)
    try:
        done = _communicate(command, "".join(f"{n}\n" for n in names).encode(), seconds, max_bytes)
    except OSError as error:
        raise OracleFailed(f"{command[0]} does not start for {batch}: {error.strerror or error}") from None
    if len(done.stdout) > max_bytes:
        raise OracleFailed(f"{command[0]} answered more than {max_bytes:,} bytes for {batch}; {EXPECTED_LINES}")
    if done.code is None:
        raise OracleFailed(f"{command[0]} took longer than {seconds:g} s for {batch}", _completed(command, done, names))
    if done.code:
        last = " ".join(done.stderr.decode("utf-8", "replace").split())[-200:]
        raise OracleFailed(
            f"{command[0]} exited with code {done.code} on {batch}: {last or 'no message'}",
            _completed(command, done, names),
        )
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if len(lines) != len(names):
        raise OracleFailed(f"{command[0]} answered {len(lines)} lines for {batch}; {EXPECTED_LINES}")
    return np.array([_number(command, line, name) for line, name in zip(lines, names, strict=True)])


def _completed(command: Sequence[str], done: Completed, names: Sequence[str]) -> list[float]:
    """Return the values of a failed program: its complete lines before the first invalid one."""
    lines = done.stdout[: done.stdout.rfind(b"\n") + 1].decode("utf-8", "replace").splitlines()
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
        raise OracleFailed(f"{command[0]} answered {text[:60]!r} for {name}; expected a finite number or {FAILED!r}")
    return value


class Completed(NamedTuple):
    """A program's output, the end of its standard error, and its exit code, None if it was stopped."""

    stdout: bytes
    stderr: bytes
    code: int | None


def _communicate(command: Sequence[str], question: bytes, seconds: float, max_bytes: int) -> Completed:
    """Run a program with `question` on its stdin until it exits, times out, or writes more than `max_bytes`.

    Input and output are files: a pipe stays open, and blocks its reader, while any process started by the program
    holds it. The program and its process group are killed in any case. Raises OSError.
    """
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(question)
        stdin.seek(0)
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        deadline = time.monotonic() + seconds
        try:
            while process.poll() is None and time.monotonic() < deadline and _size(stdout) <= max_bytes:
                time.sleep(POLL_INTERVAL)
            code = process.returncode
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        # pread, since a surviving process can still move the shared file position.
        output = os.pread(stdout.fileno(), max_bytes + 1, 0)
        errors = os.pread(stderr.fileno(), MAX_STDERR_BYTES, max(0, _size(stderr) - MAX_STDERR_BYTES))
        return Completed(output, errors, code)


def _size(file: IO[bytes]) -> int:
    return os.fstat(file.fileno()).st_size


def negative(oracle: Oracle) -> Oracle:
    """Return an oracle of the negative values, for a metric to minimize."""
    return lambda archs: -np.asarray(oracle(archs), np.float64)
