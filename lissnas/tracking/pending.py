"""Journals of the records for MLflow: each record is there first, and stays until MLflow has it.

`lissnas sync` sends what MLflow lacks, with the original times, and ends the runs of dead processes.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TypeAlias

from lissnas.artifacts.formats import sha256
from lissnas.artifacts.journal import Journal
from lissnas.artifacts.ownership import MANIFEST
from lissnas.artifacts.stage_run import finished
from lissnas.core.errors import LissnasError, UserError, first_line
from lissnas.tracking.mlflow import MAIN, AlreadyLogged, Sender, is_heavy

RECORDS = Path(".lissnas/runs")
"""A journal for each run that MLflow lacks, or that its command may continue."""
SHA = "manifest_sha256"
Record: TypeAlias = dict[str, Any]


def relative(place: Path) -> str:
    """Return a path relative to the current folder if it is inside, so that it is found where that is mounted."""
    place = place.absolute()
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)


class Records:
    """The records of one run in order, in memory and in its journal, and how many of them MLflow has."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        """Open a journal; raises UserError if another process writes to it."""
        self.path, self.about = path, about
        self.at: float | None = None
        """The time of the next records in seconds since 1970; None: now."""
        self.items: list[Record] = []
        self._queue: list[Record] = []
        self._marks: Record = {"ids": {}, "light": 0, "heavy": 0}
        self._states: dict[str, str] = {}
        self._known: set[tuple[str, str, int]] = set()
        self._lock, self._stack = threading.RLock(), ExitStack()
        self._journal: Journal | None = None
        with suppress(OSError):  # a full disk: the records still reach MLflow from memory
            self._journal = self._stack.enter_context(Journal.opened(path, about, others="keep"))
            for record in self._journal.records:
                if "ids" in record:
                    self._marks = record
                else:
                    self._note(record)
                    self.items.append(record)

    @classmethod
    def of(cls, about: Mapping[str, Any], restart: bool) -> Records:
        """Return the records of an interrupted run of the same parameters, unless `restart`, or new ones.

        Other runs on the folder that a dead process left are ended.
        """
        for path, earlier in _journals():
            if all(earlier.get(name) == about[name] for name in ("folder", "stage")):
                with suppress(UserError):  # raised if a process writes to it
                    records = cls(path, earlier)
                    if not restart and earlier["parameters"] == about["parameters"]:
                        return records
                    records.end()
                    records.release()
        return cls(RECORDS / f"{uuid.uuid4().hex}.jsonl", {**about, "begun": time.time()})

    def put(self, to: str, **record: Any) -> None:
        """Add a record about a run; of metrics, only the names that it lacks at this step."""
        with self._lock:
            if "metrics" in record:
                new = {n: v for n, v in record["metrics"].items() if (to, n, record["step"]) not in self._known}
                record["metrics"] = new
            made = {"to": to, "at": round(1000 * (self.at or time.time())), **record}
            if record.get("metrics") != {}:
                self._note(made)
                self._queue.append(made)

    def _note(self, record: Record) -> None:
        self._known |= {(record["to"], name, record["step"]) for name in record.get("metrics", ())}
        if "status" in record and not record.get("is_started"):  # such a parent ends by itself
            self._states[record["to"]] = record["status"]

    def open(self, to: str, **about: Any) -> None:
        """Add the start of a run unless it is running or finished."""
        if self._states.get(to) not in ("RUNNING", "FINISHED"):
            self.put(to, status="RUNNING", **about)

    def close(self, to: str, status: str) -> None:
        """Add the end of a run if it is running."""
        if self._states.get(to) == "RUNNING":
            self.put(to, status=status)

    def running(self) -> list[str]:
        """Return the runs that have not ended, children first."""
        return [to for to, status in reversed(self._states.items()) if status == "RUNNING"]

    def end(self) -> None:
        """End the runs of a dead process as killed, at the time of the last record."""
        self.at = max((record["at"] for record in self.items), default=0) / 1000
        for to in self.running():
            self.close(to, "KILLED")
        self.flush()

    def flush(self) -> None:
        """Write new records to the journal, if the disk lets it."""
        with self._lock:
            new, self._queue = self._queue, []
            self.items += new
            if new and self._journal is not None:
                with suppress(OSError):
                    self._journal.append(*new)

    def left(self, heavy: bool) -> list[Record]:
        """Return the records that MLflow lacks: those of files and models (`heavy`), or all others."""
        return [r for r in self.items if is_heavy(r) == heavy][self._marks["heavy" if heavy else "light"] :]

    def send(self, sender: Sender, verify: bool = False) -> None:
        """Send what MLflow lacks; with `verify`, raise LissnasError if the files are not those of the run."""
        before, sender.ids = dict(self._marks), self._marks["ids"]
        before["ids"] = dict(sender.ids)
        try:
            if light := self.left(heavy=False):
                sender.send(light, self.path.stem)
                self._marks["light"] += len(light)
            heavy = self.left(heavy=True)
            if verify and any("text" not in record for record in heavy):
                self._verify()
            for record in heavy:
                sender.send_file(record, self._manifest())
                self._marks["heavy"] += 1
        finally:
            with self._lock, suppress(OSError):
                if self._marks != before and self._journal is not None:
                    self._journal.append(self._marks)

    def _manifest(self) -> str:
        """Return the digest of the result's manifest, empty if there is no result."""
        return str(next((r["tags"][SHA] for r in reversed(self.items) if SHA in r.get("tags", ())), ""))

    def _verify(self) -> None:
        folder = finished(Path(self.about["folder"])).folder
        if self._manifest() not in ("", sha256((folder / MANIFEST).read_bytes())):
            raise LissnasError("another result is there now")

    def release(self) -> None:
        """Close the journal, and delete it if MLflow has all of a run that no command continues."""
        if self._states.get(MAIN) == "FINISHED" and not self.left(heavy=False) + self.left(heavy=True):
            self.forget()
        self._stack.close()

    def forget(self) -> None:
        """Delete the journal."""
        for path in (self.path, self.path.with_name(f".{self.path.name}.lock")):
            path.unlink(missing_ok=True)


def _journals() -> list[tuple[Path, dict[str, Any]]]:
    """Return the journals and what they are about, oldest first."""
    found = []
    for path in RECORDS.glob("*.jsonl"):
        with suppress(OSError, ValueError, KeyError), path.open() as file:
            found.append((path, json.loads(file.readline().partition(" ")[2])["about"]))
    return sorted(found, key=lambda one: float(one[1]["begun"]))


def sync() -> Iterator[tuple[Mapping[str, Any], str, bool]]:
    """Send to MLflow what it lacks; yield `stage` and `folder` of each run, its address or the error, and whether it
    is logged.

    A run in progress is left out. Files of a result that is missing, damaged or replaced stay in the journal: its disk
    may be mounted later, or `dvc checkout` restore it.
    """
    for path, about in _journals():
        try:
            records = Records(path, about)
        except LissnasError:  # in progress
            continue
        records.end()
        sender, text, is_logged = Sender(), "", True
        if not records.left(heavy=False) + records.left(heavy=True):  # a failed run, which its command may continue
            records.release()
            continue
        try:
            records.send(sender, verify=True)
            text = str(sender.logged())
        except AlreadyLogged as found:
            text = str(found.logged)
            records.forget()
        except LissnasError as error:
            text = f"missing: {error}. It stays listed; delete {path} to forget it"
            is_logged = False
        except Exception as error:
            text, is_logged = first_line(error), False
        finally:
            records.release()
        yield about, text, is_logged
