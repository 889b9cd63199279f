"""How every stage runs: checked parameters and a folder in, whole files with a manifest out.

The same parameters leave the same bytes. The flows hand in a `call` that runs a step as a task.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.artifacts import checkpoint, formats, lock
from lissnas.artifacts import folder as folder_module
from lissnas.artifacts.remote import fetched, is_remote, url
from lissnas.core.errors import UserError
from lissnas.core.redaction import redacted

PARAMETERS = "parameters.json"
VERSIONED = ("lissnas", "numpy", "pyarrow", "scipy", "xgboost-cpu", "xgboost")


def run_here(step: Callable[..., Any], *args: Any, name: str = "") -> Any:
    """Run a step here and now; `name` is that of this run of it, for a `call` that records runs."""
    return step(*args)


class How(TypedDict, total=False):
    """How a stage runs, the keyword arguments of all stages; no result depends on it."""

    call: Callable[..., Any]
    """Runs the steps, as `run_here` does by default; a flow makes each a task."""
    on_progress: Callable[[str], None]
    """Gets a line about each part that is done."""
    on_iteration: Callable[[Any], None]
    """Gets the state after each iteration of a shrink."""
    on_training: Callable[[str, Any], None]
    """Gets what is trained, and the `Progress` of its training."""
    on_generation: Callable[[Any], None]
    """Gets the history after each generation of a search."""
    force: bool
    """Whether a result in the folder is replaced."""
    threads: int
    """0, the default, takes all cores."""


def ignore(*reported: Any) -> None:
    """Take a report of progress that nobody waits for."""


@dataclass(frozen=True)
class Outcome:
    """What a stage left in its folder; `reused` when the same result was there already."""

    folder: Path
    metrics: Mapping[str, Any]
    reused: bool
    remote: str = ""
    """The place in object storage that the folder is a copy of."""

    @property
    def place(self) -> str:
        """Where the result is, for people."""
        return self.remote or str(self.folder)

    def table(self, name: str) -> pa.Table:
        """Return one of the folder's parquet files."""
        return pq.read_table(self.folder / name)

    def json(self, name: str) -> Any:
        """Return what one of the folder's JSON files says."""
        return formats.read_json(self.folder / name)

    def csv(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of one of the folder's CSV files."""
        return formats.read_csv(self.folder / name)


def finished(folder: Path) -> Outcome:
    """Return the result that is in a folder; raises UserError where there is none, DamagedFile where it is off."""
    remote, folder = url(folder) if is_remote(folder) else "", fetched(folder)
    folder_module.verify(folder)
    return Outcome(folder, json.loads((folder / "metrics.json").read_bytes()), False, remote)


def run(
    out: Path,
    parameters: Mapping[str, Any],
    work: Callable[[], dict[str, bytes]],
    force: bool = False,
    timed: Sequence[str] = (),
    extends: bool = False,
) -> Outcome:
    """Do the work under the folder's lock and publish it, unless its result is there already.

    With `force` the work begins anew, whatever is there; one that `extends` the result in the folder goes on where an
    interrupted run was. `timed` files hold times: they are no function of the parameters, so `run.json` vouches for
    them.
    """
    if out.name in ("", ".."):
        raise UserError(f"--out: {str(out)!r} is no folder of its own; name one")
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder")
    with lock.locked(out):
        if force:
            _forget(out)
        outcome = None if force or extends else _reusable(out, parameters)
        if outcome is None:
            started, clock = datetime.now(UTC), time.perf_counter()
            files = {**work(), PARAMETERS: formats.to_json(parameters)}
            extra = {name: files.pop(name) for name in timed}
            record = _run_record(started, clock)
            if extra:
                record["files"] = {name: formats.sha256(data) for name, data in extra.items()}
            folder_module.publish(out, files, {**extra, folder_module.RUN: folder_module.to_record(record)})
            outcome = Outcome(out, json.loads(files["metrics.json"]), reused=False)
        _forget(out)  # there is something even now where a run was killed once it had published
        return outcome


def _forget(out: Path) -> None:
    """Delete what an interrupted run would go on from."""
    for kept in checkpoint.kept_beside(out):
        shutil.rmtree(kept, ignore_errors=True)


def _reusable(out: Path, parameters: Mapping[str, Any]) -> Outcome | None:
    """Return the sound result of the same parameters; raises UserError if there is one of others."""
    if folder_module.read_manifest(out) is None:
        return None
    manifest = folder_module.verify(out)
    text = (out / PARAMETERS).read_bytes() if PARAMETERS in manifest else b"{}"
    if text != formats.to_json(parameters):
        theirs = json.loads(text)
        differ = sorted(k for k in parameters.keys() | theirs.keys() if parameters.get(k) != theirs.get(k))
        raise UserError(
            f"{out} holds the result of other parameters ({', '.join(differ)} differ); "
            "choose another folder, or replace it with --force"
        )
    return Outcome(out, json.loads((out / "metrics.json").read_bytes()), reused=True)


def _run_record(started: datetime, clock: float) -> dict[str, Any]:
    """Return what is no function of the parameters: times, versions, host, command."""
    versions = {}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "host": platform.node(),
        "versions": versions,
        "command": _command(),
    }


def _command() -> list[str]:
    """Return the command of this process, such as `lissnas shrink ...` or `python -m flows.shrink ...`."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    begin = [Path(sys.argv[0]).name] if module is None else ["python", "-m", module.name]
    return [*begin, *map(redacted, sys.argv[1:])]
