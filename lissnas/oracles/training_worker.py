"""Training worker: trains in a separate process, so that a hang or crash costs only one label.

This module does not import torch, since the waiting process does not need it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from lissnas import artifacts
from lissnas.artifacts.journal import LOG
from lissnas.config import Params, label_images, label_width
from lissnas.oracles.command import program_settings
from lissnas.oracles.label_collection import (
    Attempt,
    LabelFailed,
    LabellerUnavailable,
    LabelLog,
    Runner,
    collect,
    one_by_one,
)
from lissnas.oracles.reuse import Reuse
from lissnas.spaces import Archs, FloatArray, Space

COMMAND = (sys.executable, "-m", "lissnas.nets.labels")
START_TIMEOUT = 600.0
"""Seconds for a process to load torch and the images."""


class Trainer:
    """Requests labels from a process, one after the other; kills it if one takes longer than `limit` seconds, if any.

    The process gets `setup` as its first line. When this process exits, it exits after its current training.
    """

    def __init__(self, setup: Any, limit: float | None, command: Sequence[str] = COMMAND) -> None:
        self._setup, self._limit, self._command = setup, limit, command
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[str] = Queue()

    def __call__(self, arch: str) -> float:
        """Return a label; raises LabelFailed, or LabellerUnavailable if the process does not start."""
        if self._process is None:
            self._start()
        return float(self._request(arch, self._limit)["value"])

    def close(self) -> None:
        """Kill the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # unread data
                    pipe.close()  # type: ignore[union-attr]

    def _start(self) -> None:
        # A new session: Ctrl-C reaches only this process, which kills the other.
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        except OSError as error:
            raise LabellerUnavailable(f"the training process does not start: {error}") from None
        self._process, self._answers = process, Queue()
        Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        try:
            self._request(self._setup, START_TIMEOUT)
        except LabelFailed as failure:
            self.close()
            raise LabellerUnavailable(f"the training process does not start: {failure}") from None

    def _request(self, question: Any, limit: float | None) -> dict[str, Any]:
        """Return the answer to a request; raises LabelFailed, after killing a process that may still be busy."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps(question) + "\n")
                process.stdin.flush()
            if not (line := self._answers.get(timeout=limit)):
                raise LabelFailed(f"the training process exited with code {process.wait()}")
        except Empty:
            self.close()
            raise LabelFailed(f"it took longer than {limit:g} s and was stopped") from None
        except BaseException:
            self.close()
            raise
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise LabelFailed(str(answer["error"]))
        return answer


def _listen(pipe: Any, answers: Queue[str]) -> None:
    with suppress(ValueError, OSError):  # closed while waiting
        for line in pipe:
            answers.put(line)
    answers.put("")


def setup_of(params: Params, space_name: str, seed: int, checkpoints: Path, depends: Any) -> dict[str, Any]:
    """Return the setup, its first line, of a process that trains networks of a space.

    `checkpoints` is the folder of their checkpoints; one of other dependencies than `depends` is ignored.
    """
    return {
        "params": params.model_dump(mode="json"),
        "space": space_name,
        "seed": seed,
        "checkpoints": str(checkpoints.absolute()),
        "depends": artifacts.digest(depends),
    }


def checkpoint_of(setup: Mapping[str, Any], arch: str) -> artifacts.Checkpoint | None:
    """Return the checkpoint of a training, None on a cluster node that lacks the folder."""
    folder = Path(setup["checkpoints"])
    if not folder.parent.is_dir():
        return None
    return artifacts.Checkpoint(folder / artifacts.digest(arch)[:16], [setup["depends"], arch])


def trainer_of(setup: dict[str, Any]) -> Trainer:
    """Return a trainer with the parameters in `setup`; its process starts with the first request."""
    return Trainer(setup, setup["params"]["label"]["time_limit"])


_IDLE: dict[str, list[Trainer]] = {}


def train_label(setup: dict[str, Any], arch: str) -> float:
    """Return a label from a child process, reused for later labels; each concurrent thread has its own.

    Raises LabelFailed, LabellerUnavailable.
    """
    idle = _IDLE.setdefault(artifacts.digest(setup), [])
    trainer = idle.pop() if idle else trainer_of(setup)
    try:
        return trainer(arch)
    finally:
        idle.append(trainer)


SEED = 0
"""The random seed of an oracle's trainings, independent of the shrink's seed."""


@dataclass(frozen=True)
class TrainingOracle:
    """An oracle that trains networks from scratch by `params.label`; NaN if all trainings of a network failed.

    Each label is logged in `folder` before the next training starts.
    """

    params: Params
    space: Space
    folder: Path
    reuse: Reuse = field(default_factory=Reuse)

    @property
    def about(self) -> str:
        """Everything that its labels depend on, other than the architecture."""
        return f"training {artifacts.digest(depends_on(self.params, self.space, SEED))}"

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` validation accuracies in percent."""
        names = self.space.format(archs)
        depends = depends_on(self.params, self.space, SEED)
        setup = setup_of(self.params, self.space.name, SEED, self.folder / "tasks", depends)
        self.reuse.used(names)
        with LabelLog.opened(self.folder / LOG, depends, self.reuse) as log:
            _train(setup, self.params.label.attempts, names, log, None, lambda one: None)
            return log.values(names)


def depends_on(params: Params, space: Space, seed: int, program: str | None = None) -> dict[str, Any]:
    """Return everything that a label depends on, other than the architecture."""
    if program is not None:
        return program_settings(space, program)
    settings = params.label
    return {
        "space": space.name,
        "seed": seed,
        "width": label_width(params, space.name),
        "stem_stride": settings.stem_stride,
        "recipe": params.recipes[settings.recipe].model_dump(mode="json"),
        "images": label_images(params).model_dump(mode="json", exclude={"download"}),
    }


def _train(
    setup: dict[str, Any],
    attempts: int,
    names: Sequence[str],
    log: LabelLog,
    runner: Runner | None,
    on_attempt: Callable[[Attempt], None],
) -> None:
    def watch(one: Attempt) -> None:
        # Deleted only once the label is logged: until then, an interrupted run resumes from it.
        if (state := checkpoint_of(setup, one.arch)) is not None:
            state.clear()
        on_attempt(one)

    if runner is not None:
        collect(names, partial(train_label, setup), log, attempts, runner, watch)
        return
    with closing(trainer_of(setup)) as trainer:
        collect(names, trainer, log, attempts, one_by_one, watch)
