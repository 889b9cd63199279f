"""Record a stage in MLflow while it runs, in a thread that never delays or fails the work."""

from __future__ import annotations

import resource
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.core.errors import first_line
from lissnas.core.redaction import redacted
from lissnas.tracking.mlflow import MAIN, PARENT, AlreadyLogged, Logged, Sender, account, revision
from lissnas.tracking.pending import Records, relative

INTERVAL = 2.0
"""Seconds between two batches."""
MAX_BACKOFF = 15.0
"""Maximum seconds between two attempts to reach MLflow."""
MAX_WAIT = 60.0
"""Maximum seconds to wait at the end without progress; MLflow's own limits on requests are less."""
FAREWELL = 5.0
"""Maximum seconds for which a failed run waits for MLflow."""
DOCS = "names and searches: docs/how_to/watch.md"


class Part:
    """Records a run of MLflow: the stage's own, or one of its children."""

    active = True

    def __init__(self, records: Records, name: str) -> None:
        self.records, self._name = records, name

    def start(self, *about: Any, **more: Any) -> bool:
        """Return True: `child` has started it."""
        return True

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record the numbers among values, each name and step once."""
        numbers = {name: float(value) for name, value in values.items() if isinstance(value, Real)}
        self.records.put(self._name, metrics=numbers, step=int(step or 0))

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record constants, nested ones with dotted names."""
        self.records.put(self._name, params=_flat(values))

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record texts to search and group runs by."""
        self.records.put(self._name, tags={name: redacted(str(value)) for name, value in values.items()})

    def artifact(self, file: Path, folder: str = "", shared: bool = False) -> None:
        """Record a file or folder of the result; `shared`: with the parent run too."""
        for name in (self._name, *([PARENT] if shared else [])):
            self.records.put(name, file=relative(file), folder=folder)

    def dataset(self, about: Mapping[str, Any]) -> None:
        """Record a data set."""
        self.records.put(self._name, dataset={**about, "source": redacted(str(about["source"]))})

    def model(self, about: Mapping[str, Any]) -> None:
        """Record a model."""
        self.records.put(self._name, model={**about, "file": relative(about["file"])})

    def child(self, name: str, about: Mapping[str, Any], **tags: str) -> Part:
        """Start the child run of a name, or continue it."""
        self.records.open(name, name=name, above=self._name, tags={**_flat(about), **tags, **account()})
        child = Part(self.records, name)
        child.parameters(about)
        return child

    def side_by_side(self, title: str, children: Sequence[str]) -> None:
        """Record a link that compares child runs."""
        self.records.put(self._name, compare=list(children), title=title)

    def finish(self, error: BaseException | None = None) -> None:
        """End the run as finished, failed or killed."""
        if error is None:
            self.records.close(self._name, "FINISHED")
            return
        self.tags({"error": first_line(error)})
        lines = traceback.format_exception(error)
        self.records.put(self._name, text=redacted("".join(lines)), name="traceback.txt")
        for name in (*self.records.running(), self._name):
            if name not in (MAIN, PARENT) or name == self._name:
                self.records.close(name, "FAILED" if isinstance(error, Exception) else "KILLED")


class Run(Part):
    """Records a stage and sends the records to MLflow.

    Its parent is the run `group`, given as a name or as another run's `group`; by default that of all seeds of the
    stage with the same benchmark and parameters. `links` are addresses by name for the parent's description.
    """

    def __init__(
        self,
        stage: str,
        seed: int | None = None,
        group: str | None = None,
        links: Mapping[str, str] | None = None,
        is_group: bool = False,
    ) -> None:
        self.stage, self.seed, self._group, self._links, self._is_group = stage, seed, group, links or {}, is_group
        self.is_started, self.error, self.logged = False, "", Logged("", "", "")
        self._ended, self._idle, self._sender = threading.Event(), threading.Event(), Sender()

    def start(
        self,
        out: Path,
        parameters: Mapping[str, Any],
        restart: bool = False,
        earlier: tuple[float, float] | None = None,
    ) -> bool:
        """Start the run of a result, or continue that of an interrupted command; return True."""
        shared = {name: value for name, value in parameters.items() if name != "seed"}
        benchmark = str(parameters.get("benchmark") or parameters.get("space") or "all benchmarks")
        digest, method = artifacts.digest(shared)[:12], parameters.get("method")
        title = f"{self.stage} {benchmark}" + ("" if self.seed is None else f" seed {self.seed}")
        about = {"folder": relative(out), "stage": self.stage, "parameters": artifacts.digest(parameters)}
        records = Records.of(about, restart)
        super().__init__(records, MAIN)
        self.is_started = True
        self._out, self._begun = out, time.time() if earlier is None else earlier[0]
        self.group = f"{title}/{records.path.stem}"
        of_all = f"{'method' if self.stage == 'shrink' else self.stage} {benchmark}"
        name, _, key = (self._group or f"{of_all}/{of_all} {digest}").partition("/")
        tags = {
            "stage": self.stage,
            "benchmark": benchmark,
            "method": method if isinstance(method, str) else str(parameters.get("variant", self.stage)),
            "params_digest": digest,
            **{name: str(parameters[name]) for name in ("goal", "limits") if parameters.get(name)},
            **({} if self.seed is None else {"seed": str(self.seed)}),
            **account(),
            **revision(),
        }
        records.at = None if earlier is None else earlier[0]
        if self._is_group:
            records.open(MAIN, name=title, tags={PARENT: self.group.partition("/")[2], **tags}, watched=False)
        else:
            above = {"benchmark": benchmark, "params_digest": digest, **account()}
            # A run that was started as a group ends by itself, others with their last child.
            is_started = bool(key) and self._group is not None
            manifest = "" if earlier is None else artifacts.sha256((out / artifacts.MANIFEST).read_bytes())
            records.open(PARENT, name=name, key=key or name, tags=above, is_started=is_started, unless=manifest)
            records.open(MAIN, name=title, tags=tags, above=PARENT, watched=earlier is None)
            if not is_started:
                self._describe(PARENT, shared if self._group is None else {self.stage: shared})
        self._describe(MAIN, parameters)
        records.at = None if earlier is None else earlier[1]
        threading.Thread(target=self._work, name=f"recorder of {title}", daemon=True).start()
        return True

    def _describe(self, name: str, parameters: Mapping[str, Any]) -> None:
        """Record parameters and a description of a run."""
        lines = [
            f"{self.stage}: {_TEXTS.get(self.stage, 'a stage of the pipeline')}",
            f"result folder: `{relative(self._out)}`",
            *(f"{name}: <{url}>" for name, url in self._links.items()),
            "summary metrics have one point a seed; a name with a slash is a curve",
            DOCS,
        ]
        self.records.put(name, params=_flat(parameters), tags={"mlflow.note.content": "  \n".join(lines)})

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record the numbers among values; without a step, they are results, which the parent run has by seed."""
        super().metrics(values, step)
        if step is None and not self._is_group:
            Part(self.records, PARENT).metrics(values, self.seed or 0)

    def finish(self, error: BaseException | None = None) -> None:
        """End the run, and its parent with its last child; a failed run waits `FAREWELL` seconds for MLflow."""
        if not self.is_started:
            return
        seconds = (self.records.at or time.time()) - self._begun
        memory = {} if self.records.at else {"peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}
        Part(self.records, MAIN).metrics({"seconds": seconds, **memory})
        if not self._is_group:
            above = Part(self.records, PARENT)
            above.metrics({f"seconds/{self.stage}": seconds, **memory}, self.seed or 0)
        super().finish(error)
        self.records.close(PARENT, "FINISHED" if error is None else "FAILED")
        self.records.flush()
        self._ended.set()
        if error is not None:
            self._wait(FAREWELL)

    def place(self) -> Logged | None:
        """Wait until MLflow has all records, unless it does not answer; return the run, or None (see `error`)."""
        while not self._wait(1.0) and not self.error:
            if time.monotonic() - self._sender.progress > MAX_WAIT:
                self.error = "MLflow does not answer"
        return self.logged if self.logged.run_id else None

    def _wait(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not self._idle.wait(0.05) and not self.error and time.monotonic() < until:
            pass
        return self._idle.is_set()

    def _work(self) -> None:
        pause = INTERVAL
        while not self._idle.is_set():
            is_last = self._ended.wait(pause)
            self.records.flush()
            try:
                self.records.send(self._sender)
                self.error, pause = "", INTERVAL
                if is_last:
                    self.logged = self._sender.logged()
            except AlreadyLogged as found:
                self.logged = found.logged
                self.records.forget()
            except Exception as error:
                self.error, pause = first_line(error), min(MAX_BACKOFF, 2 * pause)
            if is_last or self.logged.run_id:
                self.records.release()
                self._idle.set()


_TEXTS = {
    "shrink": "good networks of a search space, found by lissnas",
    "nas": "shrink, supernet, search, retrain on one benchmark",
    "compare": "methods that shrink the same space, on one oracle",
}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat
