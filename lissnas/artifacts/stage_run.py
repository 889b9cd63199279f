"""Stage runner: takes checked parameters and a folder, and publishes complete files with a manifest.

Equal parameters give equal bytes. The flows pass a `call` that runs a step as a Prefect task.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.artifacts import checkpoint, formats, lock, ownership
from lissnas.artifacts import folder as folder_module
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import fetched, is_remote, url
from lissnas.core.errors import DamagedFile, LissnasError, UserError, first_line
from lissnas.core.redaction import redacted

PARAMETERS = "parameters.json"
CONSTANTS = ("seed", "full_size")
"""Numbers of metrics.json that are recorded as parameters, because they are no results."""
VERSIONED = ("lissnas", "numpy", "pyarrow", "scipy", "xgboost-cpu", "xgboost")


def run_here(step: Callable[..., Any], *args: Any, name: str = "") -> Any:
    """Run a step in this process; `name` identifies this call for a `call` that records its runs."""
    return step(*args)


class How(TypedDict, total=False):
    """Keyword arguments of all stages that control how they run; no result depends on them."""

    call: Callable[..., Any]
    """Runs the steps, by default `run_here`; a flow runs each as a task."""
    on_progress: Callable[[str], None]
    """Called with a line about each completed part."""
    on_iteration: Callable[[Any], None]
    """Called with the state after each iteration of a shrink."""
    on_training: Callable[[str, Any], None]
    """Called with the name of what is trained and the `Progress` of its training."""
    on_generation: Callable[[Any], None]
    """Called with the history after each generation of a search."""
    force: bool
    """Whether to replace an existing result."""
    threads: int
    """0, the default, uses all cores."""
    record: Recorder
    """Receives what the stage records while it runs; by default nothing is recorded."""


def ignore(*reported: Any) -> None:
    """Discard a progress report; the default callback."""


@dataclass(frozen=True)
class Outcome:
    """The result of a stage in its folder; `reused` if the same result already existed."""

    folder: Path
    metrics: Mapping[str, Any]
    reused: bool
    remote: str = ""
    """The address in object storage that the folder is a copy of, if any."""

    @property
    def location(self) -> str:
        """The address or folder of the result, for display."""
        return self.remote or str(self.folder)

    def table(self, name: str) -> pa.Table:
        """Return one of the folder's parquet files."""
        return pq.read_table(self.folder / name)

    def json(self, name: str) -> Any:
        """Return the content of one of the folder's JSON files."""
        return formats.read_json(self.folder / name)

    def csv(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of one of the folder's CSV files."""
        return formats.read_csv(self.folder / name)


Summary: TypeAlias = Callable[[Recorder, Outcome], None]
"""Records what a result holds, once it is published; points that were recorded before are left out."""


def finished(folder: Path) -> Outcome:
    """Return the result in a folder; raises UserError if there is none, DamagedFile if a checksum does not match."""
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
    writes: Sequence[str] = (),
    record: Recorder = NO_RECORDER,
    summary: Summary = ignore,
) -> Outcome:
    """Run `work` under the folder's lock and publish its files, or return the existing result of these parameters.

    A folder with files of a user is refused before the work if it has no result, or if they have names that the work
    `writes` (or patterns: `pages/*`). `force` discards any result and
    checkpoint and starts from scratch; work that `extends` the result in the folder
    runs even if there is one, and resumes. `timed` files hold times, so `run.json` lists their digests. `record` gets
    start, end and `summary` of the work, and of an earlier result unless it has them.
    """
    ownership.check_folder(out)
    replaces = force or extends
    if not replaces and (there := _reusable_now(out, parameters)) is not None:
        _record_earlier(record, there, parameters, summary)
        return there
    ownership.check_replaced(out, writes)
    with lock.locked(out):
        ownership.check_writable(out)
        if force:
            _clear_checkpoint(out)
        outcome = None if replaces else _reusable(out, parameters)
        if outcome is not None:
            _record_earlier(record, outcome, parameters, summary)
        else:
            started, clock = datetime.now(UTC), time.perf_counter()
            is_recorded = record.start(out, parameters, restart=force)
            try:
                files = {**work(), PARAMETERS: formats.to_json(parameters)}
                extra = {name: files.pop(name) for name in timed}
                folder_module.publish(out, files, extra, _run_record(started, clock))
            except BaseException as error:
                record.finish(error)
                raise
            outcome = Outcome(out, json.loads(files["metrics.json"]), reused=False)
            if is_recorded:
                _finish(record, outcome, summary)
        _clear_checkpoint(out)  # a run killed after publishing leaves one
        return outcome


def _record_earlier(record: Recorder, outcome: Outcome, parameters: Mapping[str, Any], summary: Summary) -> None:
    """Record a result of an earlier run, with its times."""
    try:
        about = outcome.json(ownership.RUN)
        start = datetime.fromisoformat(about["started"]).timestamp()
        seconds = float(about["seconds"])
    except (OSError, ValueError, KeyError, TypeError, LissnasError):  # DVC may have deleted it
        start, seconds = (outcome.folder / ownership.MANIFEST).stat().st_mtime, 0.0
    if record.start(outcome.folder, parameters, earlier=(start, start + seconds)):
        _finish(record, outcome, summary)


def _finish(record: Recorder, outcome: Outcome, summary: Summary) -> None:
    """Record the summary and the end of a run; the result is whole whatever happens."""
    try:
        metrics = outcome.metrics
        record.tags({"manifest_sha256": formats.sha256((outcome.folder / ownership.MANIFEST).read_bytes())})
        record.metrics({name: value for name, value in metrics.items() if name not in CONSTANTS})
        record.parameters({name: metrics[name] for name in CONSTANTS if name in metrics})
        record.tags({name: metrics[name] for name in ("metric", "direction", "goal", "limits") if metrics.get(name)})
        for picture in sorted(outcome.folder.glob("*.png")):
            record.artifact(picture, "pictures", shared=True)
        for name in ("metrics.json", ownership.MANIFEST, PARAMETERS):
            record.artifact(outcome.folder / name)
        summary(record, outcome)
    except Exception as error:
        record.tags({"summary": f"incomplete: {first_line(error)}"})
    record.finish()


def _clear_checkpoint(out: Path) -> None:
    """Delete everything that an interrupted run would resume from."""
    for folder in checkpoint.resume_folders(out):
        checkpoint.remove_checkpoint(folder)


def _reusable_now(out: Path, parameters: Mapping[str, Any]) -> Outcome | None:
    """Return the result of the same parameters without a lock: its folder may be read-only, or another user's."""
    try:
        outcome = _reusable(out, parameters)
    except DamagedFile:  # perhaps another process is replacing it
        return None
    if outcome is not None and any(folder.exists() for folder in checkpoint.resume_folders(out)):
        with suppress(UserError, OSError), lock.locked(out):  # left by a run that was killed after publishing
            _clear_checkpoint(out)
    return outcome


def _reusable(out: Path, parameters: Mapping[str, Any]) -> Outcome | None:
    """Return the verified result of the same parameters, if any; raises UserError for one of other parameters."""
    if folder_module.read_manifest(out) is None:
        return None
    manifest = folder_module.verify(out)
    text = (out / PARAMETERS).read_bytes() if PARAMETERS in manifest else b"{}"
    if text != formats.to_json(parameters):
        existing = json.loads(text)
        differ = sorted(k for k in parameters.keys() | existing.keys() if parameters.get(k) != existing.get(k))
        raise UserError(
            f"{out} holds the result of other parameters ({', '.join(differ)} differ). "
            "Choose another folder, or replace it with --force."
        )
    return Outcome(out, json.loads((out / "metrics.json").read_bytes()), reused=True)


def _run_record(started: datetime, clock: float) -> dict[str, Any]:
    """Return the non-deterministic metadata: times, versions, host, command."""
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
