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

import numpy as np

from lissnas.errors import LissnasError, UserError
from lissnas.foreign_models import load_model
from lissnas.labelling import Attempt, LabelLog
from lissnas.labels import NUMBER
from lissnas.oracles import Oracle, ask
from lissnas.rng import stream
from lissnas.spaces import Archs, FloatArray, Space

BYTES_A_LINE = 1024
"""A program that answers more than so many bytes an architecture is ended."""
PIPE_BYTES = 65_536
CHUNK = 32_768
"""Architectures whose features are in memory at once."""


class OracleFailed(LissnasError):
    """A user's oracle died, was too slow, or answered what can't be used."""


@dataclass(frozen=True)
class CommandOracle:
    """A program of the user's: an architecture a line on its standard input, a number a line on its standard output.

    It runs once a batch, without a shell, in its own process group, which is ended after `seconds`.
    """

    space: Space
    command: Sequence[str]
    seconds: float

    @classmethod
    def parse(cls, space: Space, text: str, seconds: float) -> CommandOracle:
        """Read a command as a shell would split it; raises UserError for one that is not there."""
        try:
            command = shlex.split(text)
        except ValueError as error:
            raise UserError(f"--oracle-command: {text!r} can't be split into words: {error}") from None
        if not command or shutil.which(command[0]) is None:
            raise UserError(f"--oracle-command: {command[0] if command else text!r} is no program that is found")
        return cls(space, tuple(command), seconds)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values; raises OracleFailed, which says which batch it was."""
        names = self.space.format(archs)
        batch = f"the batch of {len(names)} from {names[0]} to {names[-1]}"
        try:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise OracleFailed(f"{self.command[0]} does not start for {batch}: {error.strerror or error}") from None
        most = BYTES_A_LINE * (len(names) + 1)
        try:
            answer, complaint = _converse(process, "".join(f"{n}\n" for n in names).encode(), self.seconds, most)
        except subprocess.TimeoutExpired:
            raise OracleFailed(f"{self.command[0]} took longer than {self.seconds:g} s for {batch}") from None
        if len(answer) > most:
            raise OracleFailed(
                f"{self.command[0]} answered more than {most:,} bytes for {batch}: one number a line is expected"
            )
        if process.returncode:
            said = " ".join(complaint.decode("utf-8", "replace").split())[-200:]
            raise OracleFailed(
                f"{self.command[0]} ended with code {process.returncode} on {batch}: {said or 'no message'}"
            )
        lines = answer.decode("utf-8", "replace").splitlines()
        if len(lines) != len(names):
            raise OracleFailed(
                f"{self.command[0]} answered {len(lines)} lines for {batch}: one number a line is expected"
            )
        return np.array([self._number(line, name) for line, name in zip(lines, names, strict=True)])

    def _number(self, line: str, name: str) -> float:
        value = float(line) if NUMBER.fullmatch(line.strip()) else math.nan
        if not math.isfinite(value):
            raise OracleFailed(
                f"{self.command[0]} answered {line.strip()[:60]!r} for {name}: a finite number is expected"
            )
        return value


def _converse(process: subprocess.Popen[bytes], question: bytes, seconds: float, most: int) -> tuple[bytes, bytes]:
    """Return all that a process answers to a question, and the end of its complaints, once it has ended.

    However this returns, the process and all that it started are ended, and its pipes closed. One that answers
    more than `most` bytes is ended at once. Raises TimeoutExpired after `seconds`.
    """
    pipes = process.stdin, process.stdout, process.stderr
    asking, answering, complaining = (pipe for pipe in pipes if pipe is not None)
    answer, complaint = bytearray(), bytearray()

    def ask_it() -> None:
        with suppress(BrokenPipeError), asking:  # closes it, which ends the question
            asking.write(question)

    def listen() -> None:
        while len(answer) <= most and (part := os.read(answering.fileno(), PIPE_BYTES)):
            answer.extend(part)
        if len(answer) > most:
            _kill_all(process)

    def note() -> None:
        while part := os.read(complaining.fileno(), PIPE_BYTES):
            complaint.extend(part)
            del complaint[:-PIPE_BYTES]

    threads = [threading.Thread(target=what, daemon=True) for what in (ask_it, listen, note)]
    until = time.monotonic() + min(seconds, threading.TIMEOUT_MAX)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            raise subprocess.TimeoutExpired(process.args, seconds)
        process.wait(max(0.0, until - time.monotonic()))
    finally:
        _kill_all(process)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        answering.close()
        complaining.close()
        process.wait()
    return bytes(answer), bytes(complaint)


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True)
class Remembered:
    """An oracle whose every answer is on disk before the next batch is asked: none is paid for twice.

    A batch that fails leaves the answers of those before it. `at_once` architectures are asked together.
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
            unknown = {name: i for i, name in enumerate(names) if log.value(name) is None}  # each name once
            new = np.array(list(unknown.values()), np.int64)
            for lo in range(0, len(new), self.at_once):
                part = new[lo : lo + self.at_once]
                for i, value in zip(part.tolist(), ask(self.oracle, self.space, archs[part]).tolist(), strict=True):
                    log.append(Attempt(names[i], value, None, None))
            return np.array([log.value(name) for name in names], np.float64)


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

    def values(archs: Archs) -> FloatArray:
        parts = [archs[lo : lo + CHUNK] for lo in range(0, max(1, len(archs)), CHUNK)]
        return np.concatenate([np.asarray(booster.inplace_predict(space.encode(part)), np.float64) for part in parts])

    if (shape := values(space.sample(2, stream(0, "probe", space.name))).shape) != (2,):
        raise UserError(f"{path} gives values of shape {shape} for two architectures: one number each is expected")
    return SurrogateScorer(values)
