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
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lissnas.errors import LissnasError, UserError
from lissnas.foreign_models import load_model
from lissnas.labelling import Attempt, LabelLog
from lissnas.labels import FAILED, NUMBER
from lissnas.oracles import Oracle, ask
from lissnas.predictor import Scorer, placed, predicted
from lissnas.rng import stream
from lissnas.spaces import Archs, FloatArray, Space

BYTES_A_LINE = 1024
"""A program that answers more than so many bytes an architecture is ended."""
PIPE_BYTES = 65_536
CHUNK = 32_768
"""Architectures whose features are in memory at once."""
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


@dataclass(frozen=True)
class Remembered:
    """An oracle whose every answer is on disk before the next batch is asked: none is paid for twice.

    A batch that fails leaves the answers of those before it, and its own up to where it failed. A network that gave
    no value is not asked about again: it is NaN. `at_once` architectures are asked together.
    """

    oracle: Oracle
    space: Space
    path: Path
    about: str
    """What the answers are a function of: answers about something else are refused."""
    at_once: int = 64

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values, asking only about architectures that were never answered."""
        names = self.space.format(archs)
        with LabelLog.opened(self.path, {"oracle": self.about, "space": self.space.name}) as log:
            new = {name: i for i, name in enumerate(names) if not log.attempts.get(name)}  # each name once
            asked, at = list(new), np.array(list(new.values()), np.int64)
            for lo in range(0, len(new), self.at_once):
                part = asked[lo : lo + self.at_once]
                try:
                    rows = archs[at[lo : lo + self.at_once]]
                    values = ask(self.oracle, self.space, rows, may_fail=True).tolist()
                except OracleFailed as failure:
                    _note(log, part, failure.answered)
                    raise
                _note(log, part, values)
            found = [log.value(name) for name in names]
        return np.array([math.nan if value is None else value for value in found])


def _note(log: LabelLog, names: Sequence[str], values: Sequence[float]) -> None:
    """Put answers in the log, as many as there are."""
    for name, value in zip(names, values, strict=False):
        failed = math.isnan(value)
        log.append(Attempt(name, None if failed else value, "no value" if failed else None, None))


@dataclass(frozen=True)
class SurrogateScorer:
    """A surrogate that is asked directly: its value is the score."""

    surrogate: Oracle

    def score(self, archs: Archs, threads: int = 0) -> FloatArray:
        """Return the surrogate's values; raises LissnasError unless they are one number each."""
        values = np.asarray(self.surrogate(archs), np.float64)
        if values.shape != (len(archs),):
            raise LissnasError(f"the surrogate gave values of shape {values.shape} for {len(archs)} architectures")
        return values

    def value(self, scores: FloatArray) -> FloatArray:
        """Return the scores, which are values."""
        return scores


def negative(oracle: Oracle) -> Oracle:
    """Return an oracle of the negative: for a metric of which less is better."""
    return lambda archs: -np.asarray(oracle(archs), np.float64)


def scorer_values(scorer: Scorer) -> Oracle:
    """Return a scorer's values, in the metric's unit, as an oracle."""
    return lambda archs: scorer.value(scorer.score(archs))


def model_scorer(path: Path, space: Space) -> SurrogateScorer:
    """Return an XGBoost model of a user's, `.ubj` or `.json`, that reads the space's features, as a scorer.

    Raises UserError for a file that XGBoost can't read, or a model of another number of features.
    """
    if path.suffix not in (".ubj", ".json") or not path.is_file():
        raise UserError(f"{path}: expected an XGBoost model in a file that ends in .ubj or .json")
    try:
        booster = load_model(path.read_bytes())
    except UserError as error:
        raise UserError(f"{path} is no XGBoost model: {str(error)[:200]}") from None
    if booster.num_features() != space.n_features:
        raise UserError(f"{path} reads {booster.num_features()} features, {space.name} has {space.n_features}")

    booster.set_param(placed())

    def values(archs: Archs) -> FloatArray:
        parts = [archs[lo : lo + CHUNK] for lo in range(0, max(1, len(archs)), CHUNK)]
        return np.concatenate([predicted(booster, space.encode(part)).astype(np.float64) for part in parts])

    if (shape := values(space.sample(2, stream(0, "probe", space.name))).shape) != (2,):
        raise UserError(f"{path} gives values of shape {shape} for two architectures: one number each is expected")
    return SurrogateScorer(values)
