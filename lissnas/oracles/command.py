"""Oracles of a user's own: a command, a model file; and answers that are remembered on disk."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lissnas.core.errors import LissnasError, UserError
from lissnas.oracles.base import Oracle
from lissnas.oracles.label_table import FAILED, NUMBER
from lissnas.spaces import Archs, FloatArray, Space

BYTES_A_LINE = 1024
"""A program that answers more than so many bytes an architecture is ended."""
PIPE_BYTES = 65_536
LINGER = 1.0
"""Seconds to wait for the pipes of a program that was ended: what it started may hold them for ever."""


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
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise OracleFailed(f"{command[0]} does not start for {batch}: {error.strerror or error}") from None
    most = BYTES_A_LINE * (len(names) + 1)
    said = _converse(process, "".join(f"{n}\n" for n in names).encode(), seconds, most)
    if said.timed_out:
        raise OracleFailed(f"{command[0]} took longer than {seconds:g} s for {batch}", _leading(command, said, names))
    if len(said.answer) > most:
        raise OracleFailed(f"{command[0]} answered more than {most:,} bytes for {batch}: one number a line is expected")
    if process.returncode:
        last = " ".join(said.complaint.decode("utf-8", "replace").split())[-200:]
        raise OracleFailed(
            f"{command[0]} ended with code {process.returncode} on {batch}: {last or 'no message'}",
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
    """What a program said: all of its answer, the end of its complaints, and whether its time was up."""

    answer: bytes
    complaint: bytes
    timed_out: bool


def _converse(process: subprocess.Popen[bytes], question: bytes, seconds: float, most: int) -> Said:
    """Return what a process says to a question once it has ended, or its time is up.

    However this returns, the process and its group are ended. One that answers more than `most` bytes is ended at
    once. A process that it started in a session of its own may hold the pipes: they are left to the threads that
    read them, which end with it.
    """
    pipes = process.stdin, process.stdout, process.stderr
    asking, answering, complaining = (pipe for pipe in pipes if pipe is not None)
    answer, complaint = bytearray(), bytearray()

    def ask_it() -> None:
        with suppress(BrokenPipeError), asking:  # closes it, which ends the question
            asking.write(question)

    def listen() -> None:
        with answering:
            while len(answer) <= most and (part := os.read(answering.fileno(), PIPE_BYTES)):
                answer.extend(part)
        if len(answer) > most:
            _kill_all(process)

    def note() -> None:
        with complaining:
            while part := os.read(complaining.fileno(), PIPE_BYTES):
                complaint.extend(part)
                del complaint[:-PIPE_BYTES]

    threads = [threading.Thread(target=what, daemon=True) for what in (ask_it, listen, note)]
    until = time.monotonic() + min(seconds, threading.TIMEOUT_MAX)
    timed_out = False
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        timed_out = any(thread.is_alive() for thread in threads)
        if not timed_out:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:  # it closed its pipes and goes on
        timed_out = True
    finally:
        _kill_all(process)
        process.wait()
        lingering = time.monotonic() + LINGER
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, lingering - time.monotonic()))
    return Said(bytes(answer), bytes(complaint), timed_out)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started in its group."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def negative(oracle: Oracle) -> Oracle:
    """Return an oracle of the negative: for a metric of which less is better."""
    return lambda archs: -np.asarray(oracle(archs), np.float64)
