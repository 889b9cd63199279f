"""Files that are whole or absent: atomic writes, sha256 manifests, locks, checkpoints."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lissnas.errors import DamagedFile, UserError, short

MANIFEST = "manifest.json"
WRITING = ".writing-"
"""In the name of a file or folder that is not whole yet, after the name that it will have."""
RUN = "run.json"
"""What is no function of the parameters: times, versions, host; and digests of the files that hold such."""


def to_json(value: Any) -> bytes:
    """Return a JSON text with sorted keys, which is the same for the same value."""
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def from_json(text: bytes) -> Any:
    """Return what a JSON text says; raises ValueError where it is none, or nested so deeply that none of ours is."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file says; raises ValueError where it is none."""
    return from_json(path.read_bytes())


def to_parquet(columns: Mapping[str, Any]) -> bytes:
    """Return a parquet file of the columns, the same bytes for the same values."""
    table = pa.table(dict(columns))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def to_parquet_parts(parts: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a parquet file of parts with the same columns, written one after the other."""
    sink, writer = io.BytesIO(), None
    for part in parts:
        table = pa.table(dict(part))
        writer = writer or pq.ParquetWriter(sink, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is None:
        raise ValueError("a parquet file needs one part at least")
    writer.close()
    return sink.getvalue()


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a CSV file of rows with a header; every digit of a float, nothing for None."""
    sink = io.BytesIO()
    csv.write_csv(pa.Table.from_pylist(_filled(rows)), sink, csv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that `to_csv` wrote, None where a cell is empty."""
    rows: list[dict[str, Any]] = csv.read_csv(path).to_pylist()
    return rows


def rows_to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a parquet file of rows, null where a row lacks a column."""
    filled = _filled(rows)
    return to_parquet({name: [row[name] for row in filled] for name in filled[0]})


def _filled(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def sha256(data: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(data).hexdigest()


def digest(value: Any) -> str:
    """Return a digest of anything that JSON can say."""
    return sha256(to_json(value))


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file in an error of the system's that names none, as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, even after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}{WRITING}")
    try:
        with naming(path), os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def publish(folder: Path, files: Mapping[str, bytes], extra: Mapping[str, bytes] | None = None) -> None:
    """Write `files` and their manifest to `folder`, the manifest last, so that it vouches for all.

    `extra` files (times, host) are written too but not in the manifest. A new folder appears with one
    rename; in one that is there (other tools may have put files in it) each file is replaced.
    """
    manifest = to_json({"files": {name: sha256(data) for name, data in sorted(files.items())}})
    everything = {**files, **(extra or {}), MANIFEST: manifest}
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}{WRITING}") as temporary:
            made = Path(temporary) / folder.name
            for name, data in everything.items():
                write(made / name, data)
            os.rename(made, folder)
        _sync_folder(folder.parent)
        return
    with suppress(FileNotFoundError):
        (folder / MANIFEST).unlink()
    for name, data in everything.items():
        write(folder / name, data)


def read_manifest(folder: Path) -> dict[str, str] | None:
    """Return file names and digests that the folder's manifest lists, None where there is none."""
    try:
        text = (folder / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        files = {str(name): str(value) for name, value in from_json(text)["files"].items()}
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{folder / MANIFEST} is not a manifest of lissnas; choose another folder") from None
    check_inside(files, folder / MANIFEST)
    return files


def check_inside(names: Iterable[str], where: Path | str) -> None:
    """Raise UserError where `where`, which names the files of its folder, names one elsewhere or none at all."""
    for name in names:
        if not _may_be_inside(name):
            raise UserError(f"{where} names {short(repr(name))}, which is not in its folder")


def _may_be_inside(name: str) -> bool:
    """Return whether a name, with slashes, can be that of a file below a folder: of printable characters, none long."""
    parts = name.split("/")
    return name.isprintable() and not any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts)


def read_verified(folder: Path, name: str, manifest: Mapping[str, str], remedy: str | None = None) -> bytes:
    """Return a file's bytes once they have the digest of the manifest; raises DamagedFile, or UserError if unlisted.

    The error names `remedy`, by default the command that made the folder.
    """
    path = folder / name
    if name not in manifest:
        raise UserError(f"{folder} has no {name}: it is a result of another kind, or of another version of lissnas")
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedFile(str(path), manifest[name], "no file", remedy or rebuilt_by(folder)) from None
    if sha256(data) != manifest[name]:
        raise DamagedFile(str(path), manifest[name], sha256(data), remedy or rebuilt_by(folder))
    return data


def rebuilt_by(folder: Path) -> str:
    """Return how to make a folder's result again: the command in its `run.json`, with --force."""
    try:
        words = [str(word) for word in read_json(folder / RUN)["command"]]
    except (OSError, ValueError, KeyError, TypeError):
        words = []
    if words[:1] != ["lissnas"] and words[:2] != ["python", "-m"]:
        return "Make it again: the command or the flow that made it, with --force"
    if words[2:3] == ["flows.label"]:  # it has no --force: labels are in their log, and none is trained again
        return f"Delete {folder / MANIFEST} and make it again: {shlex.join(words)}"
    return f"Make it again: {shlex.join(words if '--force' in words else [*words, '--force'])}"


def damages(folder: Path, manifest: Mapping[str, str]) -> Iterator[DamagedFile]:
    """Yield what is wrong with each file of a manifest, and with the files that `run.json` vouches for."""
    vouched: dict[str, str] = {}
    try:
        vouched = _vouched(folder)
    except FileNotFoundError:
        pass
    except DamagedFile as damage:
        yield damage
    for files in (manifest, vouched):
        for name in files:
            try:
                read_verified(folder, name, files)
            except DamagedFile as damage:
                yield damage


def to_record(said: Mapping[str, Any]) -> bytes:
    """Return the record of a run as the bytes of `run.json`, with a digest of its own: no manifest vouches for it."""
    return to_json({**said, "digest": digest(said)})


def _vouched(folder: Path) -> dict[str, str]:
    """Return the files with times, and their digests; raises DamagedFile, UserError for a record that is none."""
    try:
        said = read_json(folder / RUN)
        expected = said.pop("digest", "none")
        if expected != digest(said):
            raise DamagedFile(str(folder / RUN), str(expected), digest(said), rebuilt_by(folder))
        files = {str(k): str(v) for k, v in said.get("files", {}).items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f"{folder / RUN} is not a record of lissnas. {rebuilt_by(folder)}") from None
    check_inside(files, folder / RUN)
    return files


def verify(folder: Path) -> dict[str, str]:
    """Return the manifest after checking every file that it lists; raises DamagedFile or UserError."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"{folder} has no {MANIFEST}: no run of lissnas was completed there")
    for damage in damages(folder, manifest):
        raise damage
    return manifest


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder` for writing; raises UserError that says who holds it.

    The operating system releases the lock when its holder ends, however it ends.
    """
    path = folder.parent / f".{folder.name}.lock"
    holder = path.with_suffix(".holder")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path, timeout=0)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"{folder} is being written by {_said_in(holder)}; wait for it or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(f"can't write to {folder.parent}: {error.strerror or error}") from None
    try:
        _sweep(folder)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        with naming(path):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")
        yield
    finally:
        with suppress(FileNotFoundError):
            holder.unlink()
        lock.release()


def _said_in(holder: Path) -> str:
    """Return who says to hold a lock; who has just taken it has a second to say so."""
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            if who := holder.read_text().strip():
                return who
        time.sleep(0.02)
    return "another process"


def _sweep(folder: Path) -> None:
    """Delete what writers that were killed left of the folder and of its checkpoint; the caller holds the lock."""
    name, above = glob.escape(folder.name), folder.parent
    for place, left in (
        (above, f".{name}{WRITING}*"),
        (folder, f".*{WRITING}*"),
        (checkpoint_of(folder), f".*{WRITING}*"),
    ):
        for path in place.glob(left):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def checkpoint_of(folder: Path) -> Path:
    """Return where the run that leaves its result in `folder` keeps its last state."""
    return folder.parent / f".{folder.name}.checkpoint"


def tasks_of(folder: Path) -> Path:
    """Return where the run that leaves its result in `folder` keeps what its finished tasks gave."""
    return folder.parent / f".{folder.name}.tasks"


SAVING, QUICK = 0.05, 0.1
"""The share of the time that may go into saving a state, and seconds of a save that is due in any case."""
STATE = "checkpoint.json"
"""What a checkpoint says of itself; its arrays lie beside it."""


def kept_beside(folder: Path) -> tuple[Path, Path]:
    """Return where a run keeps what it goes on from, until its result is in `folder`."""
    return checkpoint_of(folder), tasks_of(folder)


class Checkpoint:
    """The last state of a run in progress, beside its folder, bound to the run's parameters.

    It lies outside of the folder, which other tools (DVC) may delete before the run goes on.
    """

    def __init__(self, folder: Path, parameters: Any) -> None:
        self.folder = checkpoint_of(folder)
        self.parameters = digest(parameters)
        self._due = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to save again, where saving takes long: so that it has its share of the time at most."""
        return time.monotonic() >= self._due

    def save(self, arrays: Mapping[str, NDArray[Any]], about: Any) -> None:
        """Replace the checkpoint; one that is being replaced stays good until the new one is whole."""
        began = time.monotonic()
        sink = io.BytesIO()
        np.savez(sink, **arrays)  # type: ignore[arg-type]
        data = sink.getvalue()
        state = f"state-{sha256(data)[:16]}.npz"
        write(self.folder / state, data)
        said = {"parameters": self.parameters, "state": state, "sha256": sha256(data), "about": about}
        write(self.folder / STATE, to_json({**said, "digest": digest(said)}))
        for old in self.folder.glob("state-*.npz"):
            if old.name != state:
                old.unlink()
        took = time.monotonic() - began
        self._due = began + (took / SAVING if took > QUICK else 0.0)

    def load(self) -> tuple[dict[str, NDArray[Any]], Any] | None:
        """Return the last state and what was said of it; None where there is none for these parameters.

        Raises DamagedFile when the state is not what was written.
        """
        if (said := _checkpoint(self.folder)) is None or said["parameters"] != self.parameters:
            return None
        data = _state(self.folder, said)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays), said["about"]

    def clear(self) -> None:
        """Forget the state, once the run is published."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _checkpoint(folder: Path) -> dict[str, Any] | None:
    """Return what a checkpoint says, None where there is none; raises DamagedFile."""
    try:
        text = (folder / STATE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    expected, found = "of what it says", sha256(text)
    try:
        said: dict[str, Any] = from_json(text)
        expected, found = str(said.pop("digest")), digest(said)
    except (ValueError, KeyError, AttributeError, TypeError):
        pass
    if found != expected:
        raise DamagedFile(str(folder / STATE), expected, found, _begin_anew(folder))
    return said


def _state(folder: Path, said: Mapping[str, Any]) -> bytes:
    return read_verified(folder, said["state"], {said["state"]: said["sha256"]}, _begin_anew(folder))


def _begin_anew(folder: Path) -> str:
    return f"Delete the folder {folder} to start from the beginning."


def checkpoint_damages(folder: Path) -> Iterator[DamagedFile]:
    """Yield what is wrong with a checkpoint: the first that is."""
    try:
        if (said := _checkpoint(folder)) is not None:
            _state(folder, said)
    except DamagedFile as damage:
        yield damage


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
