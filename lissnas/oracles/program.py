"""Run a user's program that prints a number per line, and read its answers as they arrive."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from lissnas.core.errors import LissnasError, short
from lissnas.oracles.label_table import FAILED, NUMBER
from lissnas.spaces import FloatArray

MAX_BYTES_PER_LINE = 1024
"""Maximum output per architecture; a program that writes more is stopped."""
MAX_STDERR_BYTES = 65_536
"""Bytes at the end of a program's standard error that an error may quote."""
POLL_INTERVAL = 0.02
"""Seconds between checks of a running program."""
GRACE = 0.5
"""Seconds that a program has to exit after an invalid line: its exit code and message say more than the line."""
TO_STDERR = "Print everything else, such as progress, to standard error."

Received = Callable[[Sequence[float]], None]
"""Called with the next values, NaN for failed trainings, in the order of the architectures."""


class OracleFailed(LissnasError):
    """A user's program crashed, timed out or printed something that is not an answer."""


def run_program(
    command: Sequence[str],
    names: Sequence[str],
    limit: float | None = None,
    received: Received = lambda values: None,
    output: IO[bytes] | None = None,
) -> FloatArray:
    """Return a program's values of architectures: one name per line on its stdin, one number per line on its stdout.

    It runs once, without a shell, in its own process group, which is killed at the end, or `limit` seconds after the
    last answer. `failed` instead of a number is returned as NaN. Valid values are passed to `received` as they arrive,
    also those before an error or an interruption. `output` is the file for its stdout, opened for reading and
    appending; its complete lines outlive this process. Raises OracleFailed.
    """
    with (
        TemporaryFile() as stdin,
        TemporaryFile() as stderr,
        TemporaryFile() if output is None else nullcontext(output) as stdout,
    ):
        # Files: a pipe stays open, and blocks its reader, while any process started by the program holds it.
        stdin.write("".join(f"{name}\n" for name in names).encode())
        stdin.seek(0)
        answers = _Answers(command[0], names, stdout, received)
        code = _run(command, (stdin, stdout, stderr), answers, limit)
        size = os.fstat(stderr.fileno()).st_size
        # pread, since a surviving process can still move the shared file position.
        errors = os.pread(stderr.fileno(), MAX_STDERR_BYTES, max(0, size - MAX_STDERR_BYTES))
    if problem := _problem(answers, code, limit, errors.decode("utf-8", "replace")):
        raise OracleFailed(f"{command[0]} {problem}")
    return np.array(answers.values)


def _problem(answers: _Answers, code: int | None, limit: float | None, errors: str) -> str:
    """Return what was wrong with a program's run; empty if all its answers are valid. A `code` of None: stopped."""
    n, names = len(answers.values), answers.names
    batch = f"the batch of {len(names)} from {names[0]} to {names[-1]}"
    if code:
        last = " ".join(errors.split())[-200:] or "no message"
        return f"exited with code {code} on {batch}: {last}" + (answers.problem and f" (it {answers.problem})")
    if answers.problem:
        return f"{answers.problem}. {TO_STDERR}"
    if n == len(names):
        return ""  # stopped or not: all answers are there
    if code is None:
        return f"took longer than {limit:g} s for {names[n]}, number {n + 1} of {batch}"
    return f"answered {n} lines for {batch}; expected one number per line"


def _run(
    command: Sequence[str], files: tuple[IO[bytes], IO[bytes], IO[bytes]], answers: _Answers, limit: float | None
) -> int | None:
    """Run a program until it exits or has to be stopped; return its exit code, None if it was stopped."""
    # An interrupted Python program loses what it has not flushed; unbuffered, it has nothing to flush.
    env = {"PYTHONUNBUFFERED": "1", **os.environ}
    stdin, stdout, stderr = files
    try:
        process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True, env=env)
    except OSError as error:
        raise OracleFailed(f"{command[0]} does not start: {_why_not_started(command[0], error)}") from None
    code = None
    try:
        with _killed_with_this_process(process.pid):
            code = _wait(process, answers, limit)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        answers.read(ended=code == 0)
    return code


def _wait(process: subprocess.Popen[bytes], answers: _Answers, limit: float | None) -> int | None:
    """Wait for a program's end; return its exit code, or None as soon as it has to be stopped."""
    since = time.monotonic()
    while process.poll() is None:
        now = time.monotonic()
        if answers.read():
            since = now
        patience = GRACE if answers.problem else math.inf if limit is None else limit
        if answers.too_long or now - since > patience:
            return None
        time.sleep(POLL_INTERVAL)
    return process.returncode


@contextmanager
def _killed_with_this_process(group: int) -> Iterator[None]:
    """Kill a process group when this process dies, even by SIGKILL.

    Otherwise the program would go on training what the next run requests again. A shell reads a pipe that only this
    process holds open, and kills the group at its end.
    """
    null, shell = subprocess.DEVNULL, ["/bin/sh", "-s"]
    guard = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=null, stderr=null, start_new_session=True)
    assert guard.stdin is not None
    guard.stdin.write(f"trap 'kill -KILL -{group}' EXIT\n".encode())
    guard.stdin.flush()
    try:
        yield
    finally:
        guard.kill()
        guard.communicate()


class _Answers:
    """The answers in a program's output file, from its end when the program starts."""

    def __init__(self, program: str, names: Sequence[str], file: IO[bytes], received: Received) -> None:
        self.names = names
        self.values: list[float] = []
        self.problem = ""
        """What is wrong with the first invalid line."""
        self._file = file.fileno()
        self._start = self._at = os.fstat(self._file).st_size
        self._received = received
        self._max_bytes = MAX_BYTES_PER_LINE * (len(names) + 1)

    @property
    def too_long(self) -> bool:
        """Whether the program printed more than any answers can be."""
        return os.fstat(self._file).st_size - self._start > self._max_bytes

    def read(self, ended: bool = False) -> bool:
        """Read the lines that were completed since the last call; return whether there were any.

        The last line of a program that `ended` well is complete without a line feed, unless it is cut at the maximum.
        """
        if self.problem:
            return False
        data = os.pread(self._file, self._max_bytes + 1, self._at)
        whole = len(data) if ended and not self.too_long else data.rfind(b"\n") + 1
        self._at += whole
        values, self.problem = parse_answers(data[:whole], self.names[len(self.values) :], len(self.values))
        if not self.problem and self.too_long:
            self.problem = f"printed more than {self._max_bytes:,} bytes for {len(self.names)} architectures"
        self.values += values
        if values:
            self._received(values)
        return whole > 0


def parse_answers(output: bytes, names: Sequence[str], before: int = 0) -> tuple[list[float], str]:
    """Return the values in a program's next lines, and what is wrong with the first invalid one, if any.

    The values are of the first of `names`; `before` lines were read earlier.
    """
    values: list[float] = []
    lines = output.removesuffix(b"\n").split(b"\n") if output else []
    for number, line in enumerate(lines, before + 1):
        text = line.decode("utf-8", "replace").strip()
        shown = f"{short(text)!r} in line {number} of its output"
        if len(values) == len(names):
            return values, f"printed {shown}, after the answers for all {number - 1} architectures"
        if text.lower() == FAILED:
            values.append(math.nan)
            continue
        value = float(text) if NUMBER.fullmatch(text) else math.inf
        if not math.isfinite(value):
            point = " with a decimal point" if NUMBER.fullmatch(text.replace(",", ".")) else ""
            return values, f"answered {shown}, for {names[len(values)]}; expected a finite number{point} or {FAILED!r}"
        values.append(value)
    return values, ""


def _why_not_started(program: str, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.ENOEXEC:
        return f"{reason}; its first line must name the interpreter, such as #!/usr/bin/env python3"
    if error.errno == errno.ENOENT and Path(program).exists():
        return f"{reason}: the interpreter that its first line names"
    return reason
