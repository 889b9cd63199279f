"""Trainings in a process of their own, so that one that hangs, or takes the process down, is one label less.

No torch here: whoever waits for labels needs none.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from lissnas import store
from lissnas.config import Params
from lissnas.labelling import LabelFailed, LabellerUnavailable

COMMAND = (sys.executable, "-m", "lissnas.nets.labels")
START = 600.0
"""Seconds that a process may take to load torch and the images."""


class Trainer:
    """Asks a process for labels, one after the other; ends it when one takes longer than `limit` seconds.

    The process gets `setup` as its first line. It ends when this one does, after the training it is at.
    """

    def __init__(self, setup: Any, limit: float, command: Sequence[str] = COMMAND) -> None:
        self._setup, self._limit, self._command = setup, limit, command
        self._process: subprocess.Popen[str] | None = None
        self._answers: Queue[str] = Queue()

    def __call__(self, arch: str) -> float:
        """Return a label; raises LabelFailed, or LabellerUnavailable when the process doesn't start."""
        if self._process is None:
            self._start()
        try:
            answer = self._ask(arch, self._limit)
        except BaseException:
            self.close()  # it may still be at it; the next one gets a fresh process
            raise
        if "error" in answer:
            raise LabelFailed(str(answer["error"]))
        return float(answer["value"])

    def close(self) -> None:
        """End the process, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):  # what was not read any more
                    pipe.close()  # type: ignore[union-attr]

    def _start(self) -> None:
        # A session of its own: Ctrl-C is for this process, which ends the other.
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
        except OSError as error:
            raise LabellerUnavailable(f"the process that trains does not start: {error}") from None
        self._process, self._answers = process, Queue()
        Thread(target=_listen, args=(process.stdout, self._answers), daemon=True).start()
        try:
            answer = self._ask(self._setup, START)
        except LabelFailed as failure:
            self.close()
            raise LabellerUnavailable(f"the process that trains does not start: {failure}") from None
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            self.close()
            raise LabellerUnavailable(f"the process that trains can't: {answer['error']}")

    def _ask(self, question: Any, limit: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except Empty:
            raise LabelFailed(f"it took longer than {limit:g} s and was ended") from None
        except BrokenPipeError:
            line = ""
        if not line:
            raise LabelFailed(f"the process that trained it ended with {process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _listen(pipe: Any, answers: Queue[str]) -> None:
    with suppress(ValueError, OSError):  # closed while it waits
        for line in pipe:
            answers.put(line)
    answers.put("")


def setup_of(params: Params, space_name: str, seed: int, checkpoints: Path, depends: Any) -> dict[str, Any]:
    """Return the first line of a process that trains networks of a space, the state of each in a folder.

    `depends` is what labels are a function of: a state that is a function of others is no use.
    """
    return {
        "params": params.model_dump(mode="json"),
        "space": space_name,
        "seed": seed,
        "checkpoints": str(checkpoints.absolute()),
        "depends": store.digest(depends),
    }


def checkpoint_of(setup: Mapping[str, Any], arch: str) -> store.Checkpoint | None:
    """Return where a training keeps its state; None on a machine of a cluster that has no such folder."""
    folder = Path(setup["checkpoints"])
    if not folder.parent.is_dir():
        return None
    return store.Checkpoint(folder / store.digest(arch)[:16], [setup["depends"], arch])


def trainer_of(setup: dict[str, Any]) -> Trainer:
    """Return a process, not started yet, that trains as the parameters in `setup` say."""
    return Trainer(setup, setup["params"]["label"]["time_limit"])


_IDLE: dict[str, list[Trainer]] = {}


def train_label(setup: dict[str, Any], arch: str) -> float:
    """Return a label from a process of this one's, kept for the next; as many run as threads ask at once.

    Raises LabelFailed, LabellerUnavailable.
    """
    idle = _IDLE.setdefault(store.digest(setup), [])
    trainer = idle.pop() if idle else trainer_of(setup)
    try:
        return trainer(arch)
    finally:
        idle.append(trainer)
