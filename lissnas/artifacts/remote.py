"""Result folders in object storage: written to a local copy, uploaded when complete, the manifest last.

An address is `s3://bucket/prefix`; keys, endpoint and region are read from AWS's environment variables. A reader sees
the old result or the new one: while files are replaced there is no manifest, and a folder without one has no result.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lissnas.artifacts import atomic, formats, ownership
from lissnas.artifacts import folder as folder_module
from lissnas.core.errors import DamagedFile, LissnasError, UserError

P = ParamSpec("P")
R = TypeVar("R")
SCHEME = "s3:"
CACHE = Path(".lissnas")
"""The folder of the local copies; deleting it costs only time."""
CONNECT_TIMEOUT = 10
"""Seconds to wait for a connection."""
READ_TIMEOUT = 60
"""Seconds to wait for a response."""
MAX_ATTEMPTS = 2
"""Attempts per request."""


def is_remote(path: Path | str) -> bool:
    """Return whether a path is an address in object storage."""
    return str(path).startswith(SCHEME)


def url(path: Path | str) -> str:
    """Return a normalized address (a Path drops one of its slashes); raises UserError for an invalid one."""
    bucket, _, key = str(path).removeprefix(SCHEME).strip("/").partition("/")
    if not bucket or not key or ".." in key.split("/"):
        raise UserError(f"{path}: expected s3://bucket/prefix")
    return f"s3://{bucket}/{key}"


def local_copy(path: Path | str) -> Path:
    """Return the local folder that mirrors a remote one."""
    address = url(path)
    return (CACHE / formats.sha256(address.encode())[:12] / address.rpartition("/")[2]).absolute()


def local_path(path: Path) -> Path:
    """Return a local path unchanged, or the local copy's folder for a remote path."""
    return local_copy(path) if is_remote(path) else path


def fetched(path: Path) -> Path:
    """Return a local path unchanged, or download a remote folder and return its local copy.

    Raises UserError if the remote folder has no result, DamagedFile if a file does not match its manifest.
    """
    if not is_remote(path):
        return path
    if not fetch(path):
        raise UserError(f"{url(path)} holds no result of lissnas (it has no {ownership.MANIFEST})")
    return local_copy(path)


def fetch(path: Path) -> bool:
    """Download the files of a remote folder that differ from its local copy; return whether it has a result."""
    address, copy = url(path), local_copy(path)
    with _storage_errors(address):
        manifest = _manifest(address)
        if manifest is None:
            return False
        _download(address, copy, _files(address, ownership.MANIFEST, manifest))
        with suppress(FileNotFoundError):  # the record of the run and its files with times are optional
            record = bytes(_storage().cat_file(f"{address}/{ownership.RUN}"))
            _download(address, copy, _files(address, ownership.RUN, record))
            atomic.write(copy / ownership.RUN, record)
        atomic.write(copy / ownership.MANIFEST, manifest)
        return True


def _download(address: str, copy: Path, files: Mapping[str, str]) -> None:
    """Download the files, given with their digests, that the local copy lacks; raises DamagedFile."""
    for name, digest in files.items():
        file = copy / name
        if file.exists() and formats.sha256(file.read_bytes()) == digest:
            continue
        data = _storage().cat_file(f"{address}/{name}")
        if formats.sha256(data) != digest:
            raise DamagedFile(f"{address}/{name}", digest, formats.sha256(data), "Make it again with --force.")
        atomic.write(file, data)


def upload(path: Path) -> None:
    """Replace a remote folder by its local copy, the manifest last, unless their manifests are equal.

    Raises UserError if a file to write exists there and is not of lissnas.
    """
    address, copy = url(path), local_copy(path)
    manifest = (copy / ownership.MANIFEST).read_bytes()
    with _storage_errors(address):
        storage, before, record = _storage(), _manifest(address), _cat(f"{address}/{ownership.RUN}")
        if before == manifest:
            return
        files = {
            name: file for file in copy.rglob("*") if _is_uploaded(name := file.relative_to(copy).as_posix(), file)
        }
        earlier = ownership.made_by(before, record) or {}
        ownership.refuse(address, sorted((files.keys() - earlier.keys()) & set(_foreign(address))))
        digests = {name: formats.sha256(file.read_bytes()) for name, file in files.items()}
        storage.pipe_file(f"{address}/{ownership.RUN}", folder_module.claimed(record, {**earlier, **digests}))
        if before is not None:
            storage.rm_file(f"{address}/{ownership.MANIFEST}")
        for name, file in sorted(files.items()):
            storage.pipe_file(f"{address}/{name}", file.read_bytes())
        storage.pipe_file(f"{address}/{ownership.MANIFEST}", manifest)


def _is_uploaded(name: str, file: Path) -> bool:
    """Return whether a file of a local copy is part of the remote folder: locks are not, the manifest is the last."""
    return file.is_file() and name != ownership.MANIFEST and not any(p.startswith(".") for p in name.split("/"))


def check_out(path: Path, writes: Sequence[str] = ()) -> None:
    """Raise UserError, before any work, if files of a user are in the way of a result, here or in object storage.

    `writes` are the names, and patterns of names, of the files of the result.
    """
    if is_remote(path):
        check_address(path, writes)
    else:
        ownership.check_folder(path)
        ownership.check_replaced(path, writes)


def check_address(path: Path, writes: Sequence[str] = ()) -> None:
    """Raise UserError unless a remote folder is empty, or has an earlier result and no other file that is written."""
    address = url(path)
    with _storage_errors(address):
        made = ownership.made_by(_cat(f"{address}/{ownership.MANIFEST}"), _cat(f"{address}/{ownership.RUN}"))
        names = _foreign(address) if made is None or writes else []
        if made is not None:
            names = [n for n in names if n not in made and any(fnmatchcase(n, pattern) for pattern in writes)]
        ownership.refuse(address, names)


def _foreign(address: str) -> list[str]:
    """Return the objects below an address that are no journal, no part of a result in a subfolder, and not hidden."""
    above = len(address.removeprefix("s3://")) + 1
    names = [name for path in sorted(_storage().find(address)) if (name := path[above:])]
    manifests = [name for name in names if name.endswith(f"/{ownership.MANIFEST}")]
    results = [name.rpartition("/")[0] for name in manifests if _is_made(address, name, ownership.parse_manifest)]
    return [
        name
        for name in names
        if not any(part.startswith(".") for part in name.split("/"))
        and not any(name.startswith(f"{result}/") for result in results)
        and not (name.endswith(".jsonl") and _is_made(address, name, ownership.is_journal))
    ]


def _is_made(address: str, name: str, check: Callable[[bytes], object]) -> bool:
    return bool(check(_cat(f"{address}/{name}") or b""))


def _cat(address: str) -> bytes | None:
    try:
        return bytes(_storage().cat_file(address))
    except FileNotFoundError:
        return None


def remote_out(writes: Sequence[str]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a stage's `out` be an address in object storage: download its files first, upload the result at the end.

    `writes` are the names of the stage's files; those of a user there are refused first.
    """

    def decorate(stage: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(stage)

        @functools.wraps(stage)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs)
            out = given.arguments["out"]
            if not is_remote(out):
                return stage(*args, **kwargs)
            check_out(out, writes)
            fetch(out)  # a wrong key or address raises here, before the work
            given.arguments["out"] = local_copy(out)
            outcome: Any = stage(*given.args, **given.kwargs)
            upload(out)
            return replace(outcome, remote=url(out))  # type: ignore[no-any-return]

        return run

    return decorate


def _manifest(address: str) -> bytes | None:
    """Return the manifest of a remote folder, None if it has no manifest; raises UserError if there is no bucket."""
    try:
        return bytes(_storage().cat_file(f"{address}/{ownership.MANIFEST}"))
    except FileNotFoundError:
        bucket = address.split("/")[2]
        if not _storage().exists(f"s3://{bucket}"):
            raise UserError(f"{address}: there is no bucket {bucket!r} at {_endpoint()}") from None
        return None


def _files(address: str, name: str, data: bytes) -> dict[str, str]:
    """Return the files, with their digests, that a manifest or the record of a run lists.

    Raises UserError for an invalid one.
    """
    try:
        content = json.loads(data)
        files = content["files"] if name == ownership.MANIFEST else content.get("files", {})
        return folder_module.checked_files(files, f"{address}/{name}")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{address}/{name} is not a file of lissnas. Choose another address.") from None


def _s3fs() -> Any:
    try:
        import s3fs
    except ImportError:
        raise UserError("s3:// needs s3fs: pip install 's3fs'") from None
    return s3fs


@functools.cache
def _storage() -> Any:
    timeouts = {"connect_timeout": CONNECT_TIMEOUT, "read_timeout": READ_TIMEOUT}
    config = timeouts | {"retries": {"max_attempts": MAX_ATTEMPTS}}
    return _s3fs().S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


@contextmanager
def _storage_errors(address: str) -> Iterator[None]:
    """Re-raise errors of the storage as LissnasError or UserError that names the setting to check."""
    _s3fs()
    from botocore import exceptions as boto

    try:
        yield
    except boto.NoCredentialsError:
        raise UserError(f"{address}: no key. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.") from None
    except PermissionError as error:
        raise LissnasError(
            f"{address}: refused ({error}). Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy."
        ) from None
    except (boto.EndpointConnectionError, boto.HTTPClientError, TimeoutError, ConnectionError) as error:
        raise LissnasError(
            f"{address}: {_endpoint()} does not answer within {CONNECT_TIMEOUT} to {READ_TIMEOUT} s "
            f"({type(error).__name__}). Check AWS_ENDPOINT_URL_S3."
        ) from None
    except (boto.BotoCoreError, boto.ClientError, OSError) as error:
        if getattr(error, "filename", None) is not None:  # of this machine's disk
            raise
        raise LissnasError(f"{address}: {_endpoint()} reports {error}") from None
