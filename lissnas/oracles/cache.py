"""A program as an oracle whose answers are stored on disk as they arrive."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lissnas.core.errors import UserError
from lissnas.oracles.command import CommandOracle, program_settings
from lissnas.oracles.label_collection import Attempt, LabelLog
from lissnas.oracles.program import OracleFailed, parse_answers, run_program
from lissnas.oracles.reuse import Reuse
from lissnas.spaces import Archs, FloatArray

HEADER = b'{"about": '
"""The first bytes of a file with a program's output."""
BATCH = 64
"""Architectures that one start of the program gets."""


@dataclass(frozen=True)
class CachedOracle:
    """A program's values, each stored before the next is awaited, and never requested twice.

    The output file of a running batch is next to `path` (`.batch`): answers that were printed and not yet stored when
    this process was killed are read from it. An architecture without a value is stored as failed, and requested again
    by the next run.
    """

    command: CommandOracle
    text: str
    """The command as the user gave it."""
    path: Path
    reuse: Reuse = field(default_factory=Reuse)
    batch_size: int = BATCH

    @cached_property
    def about(self) -> dict[str, Any]:
        """Everything that the values depend on, other than the architecture: as it is when the run starts."""
        return program_settings(self.command.space, self.text)

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` values, NaN for failed trainings; requests only what is not stored."""
        recover(self.path)
        names = self.command.space.format(archs)
        self.reuse.used(names)
        with LabelLog.opened(self.path, self.about, self.reuse) as log:
            new = log.missing(names, attempts=1)
            for lo in range(0, len(new), self.batch_size):
                self._request(log, new[lo : lo + self.batch_size])
            return log.values(names)

    def _request(self, log: LabelLog, names: Sequence[str]) -> None:
        """Run the program for a batch, and store each value as it arrives."""
        left = iter(names)
        before = sum(map(len, log.attempts.values()))

        def received(values: Sequence[float]) -> None:
            log.append(*(_attempt(name, value) for value, name in zip(values, left, strict=False)))

        path = batch_of(self.path)
        with path.open("wb", buffering=0) as output:
            output.write(json.dumps({"about": self.about, "names": names}).encode() + b"\n")
        try:
            with path.open("ab+", buffering=0) as output:
                run_program(self.command.command, names, self.command.limit, received, output)
        except OracleFailed as failure:
            path.unlink()
            n = sum(map(len, log.attempts.values())) - before
            stored = f"{n:,} answers of this batch are" if n > 1 else "1 answer of this batch is"
            kept = f" {stored} stored in {self.path}; once the program is fixed, --reuse-answers uses them."
            raise OracleFailed(f"{str(failure).removesuffix('.')}.{kept}" if n else str(failure)) from None
        path.unlink()


def recover(path: Path) -> None:
    """Store the answers of a batch whose process was killed before it stored them."""
    batch = batch_of(path)
    if not batch.exists():
        return
    header, _, output = batch.read_bytes().partition(b"\n")
    if header[: len(HEADER)] != HEADER[: len(header)]:
        raise UserError(f"{batch} is not a file of lissnas. Move it away.")
    try:
        requested = json.loads(header)
    except ValueError:  # killed while the header was written: the program was not started
        batch.unlink(missing_ok=True)
        return
    with LabelLog.opened(path, requested["about"]) as log:
        values, _ = parse_answers(output[: output.rfind(b"\n") + 1], requested["names"])
        found = [_attempt(name, value) for name, value in zip(requested["names"], values, strict=False)]
        log.append(*(one for one in found if log.value(one.arch) is None))
        batch.unlink(missing_ok=True)


def batch_of(path: Path) -> Path:
    """Return the output file of the running batch of a log of answers."""
    return path.with_name(f"{path.name}.batch")


def _attempt(name: str, value: float) -> Attempt:
    failed = math.isnan(value)
    return Attempt(name, None if failed else value, "no value" if failed else None, None)
