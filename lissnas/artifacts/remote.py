"""Stage folders in object storage: made in a local copy, sent when they are whole, the manifest last.

A place is `s3://bucket/prefix`; keys, endpoint and region are those of AWS's own variables. A reader sees the old
result or the new one: while files are replaced there is no manifest, and without one there is no result.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from lissnas.artifacts import atomic, formats
from lissnas.artifacts import folder as folder_module
from lissnas.core.errors import DamagedFile, LissnasError, UserError

P = ParamSpec("P")
R = TypeVar("R")
SCHEME = "s3:"
CACHE = Path(".lissnas")
"""Where the local copies are; nothing is lost with it but time."""
CONNECT, READ, TRIES = 10, 60, 2
"""Seconds that a connection, and an answer, may take; and how often it is tried."""


def is_remote(path: Path | str) -> bool:
    """Return whether a path is a place in object storage."""
    return str(path).startswith(SCHEME)


def url(path: Path | str) -> str:
    """Return the address of a place, also of one that has been a Path, which joins slashes; raises UserError."""
    bucket, _, key = str(path).removeprefix(SCHEME).strip("/").partition("/")
    if not bucket or not key or ".." in key.split("/"):
        raise UserError(f"{path}: expected s3://bucket/prefix")
    return f"s3://{bucket}/{key}"


def local_copy(path: Path | str) -> Path:
    """Return the folder that stands for a place on this machine."""
    place = url(path)
    return (CACHE / formats.sha256(place.encode())[:12] / place.rpartition("/")[2]).absolute()


def here(path: Path) -> Path:
    """Return a path itself, or the folder that stands for a remote one on this machine."""
    return local_copy(path) if is_remote(path) else path


def fetched(path: Path) -> Path:
    """Return a path itself, or the local copy of a remote folder once it is here and whole.

    Raises UserError where there is no result, DamagedFile where a file is not what its manifest says.
    """
    if not is_remote(path):
        return path
    if not fetch(path):
        raise UserError(f"{url(path)} holds no result of lissnas (it has no {folder_module.MANIFEST})")
    return local_copy(path)


def fetch(path: Path) -> bool:
    """Bring a remote folder's files to its local copy where they differ; return whether there is a result."""
    place, copy = url(path), local_copy(path)
    with _spoken(place):
        manifest = _manifest(place)
        if manifest is None:
            return False
        _bring(place, copy, _files(place, folder_module.MANIFEST, manifest))
        with suppress(FileNotFoundError):  # no part of the result: when and how it was made, and its files with times
            record = bytes(_storage().cat_file(f"{place}/{folder_module.RUN}"))
            _bring(place, copy, _files(place, folder_module.RUN, record))
            atomic.write(copy / folder_module.RUN, record)
        atomic.write(copy / folder_module.MANIFEST, manifest)
        return True


def _bring(place: str, copy: Path, files: Mapping[str, str]) -> None:
    """Bring the files, of given digests, that the local copy has not; raises DamagedFile."""
    for name, digest in files.items():
        file = copy / name
        if file.exists() and formats.sha256(file.read_bytes()) == digest:
            continue
        data = _storage().cat_file(f"{place}/{name}")
        if formats.sha256(data) != digest:
            raise DamagedFile(f"{place}/{name}", digest, formats.sha256(data), "Make it again with --force.")
        atomic.write(file, data)


def send(path: Path) -> None:
    """Replace a remote folder by its local copy, the manifest last; nothing to do where both have the same one."""
    place, copy = url(path), local_copy(path)
    manifest = (copy / folder_module.MANIFEST).read_bytes()
    with _spoken(place):
        storage, before = _storage(), _manifest(place)
        if before == manifest:
            return
        if before is not None:
            storage.rm_file(f"{place}/{folder_module.MANIFEST}")
        for file in sorted(p for p in copy.rglob("*") if p.is_file() and p.name != folder_module.MANIFEST):
            storage.pipe_file(f"{place}/{file.relative_to(copy).as_posix()}", file.read_bytes())
        storage.pipe_file(f"{place}/{folder_module.MANIFEST}", manifest)


def anywhere(stage: Callable[P, R]) -> Callable[P, R]:
    """Let a stage's `out` be a place in object storage: what is there comes here first, what was made goes there."""
    signature = inspect.signature(stage)

    @functools.wraps(stage)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        out = given.arguments["out"]
        if not is_remote(out):
            return stage(*args, **kwargs)
        fetch(out)  # a wrong key or address ends here, before the work
        given.arguments["out"] = local_copy(out)
        outcome: Any = stage(*given.args, **given.kwargs)
        send(out)
        return replace(outcome, remote=url(out))  # type: ignore[no-any-return]

    return run


def _manifest(place: str) -> bytes | None:
    """Return the manifest of a remote folder, None where there is none; raises UserError where there is no bucket."""
    try:
        return bytes(_storage().cat_file(f"{place}/{folder_module.MANIFEST}"))
    except FileNotFoundError:
        bucket = place.split("/")[2]
        if not _storage().exists(f"s3://{bucket}"):
            raise UserError(f"{place}: there is no bucket {bucket!r} at {_endpoint()}") from None
        return None


def _files(place: str, name: str, data: bytes) -> dict[str, str]:
    """Return the files that a manifest, or the record of a run, vouches for, and their digests.

    Raises UserError for what is neither.
    """
    try:
        said = json.loads(data)
        files = said["files"] if name == folder_module.MANIFEST else said.get("files", {})
        return folder_module.listed(files, f"{place}/{name}")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{place}/{name} is not of lissnas; choose another place") from None


@functools.cache
def _storage() -> Any:
    try:
        import s3fs
    except ImportError:
        raise UserError("s3:// needs s3fs: pip install 's3fs'") from None
    return s3fs.S3FileSystem(
        config_kwargs={"connect_timeout": CONNECT, "read_timeout": READ, "retries": {"max_attempts": TRIES}},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


@contextmanager
def _spoken(place: str) -> Iterator[None]:
    """Say of an error of the storage which setting it is about."""
    from botocore import exceptions as boto

    try:
        yield
    except boto.NoCredentialsError:
        raise UserError(f"{place}: no key; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from None
    except PermissionError as error:
        raise LissnasError(
            f"{place}: refused ({error}); look at AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy"
        ) from None
    except (boto.EndpointConnectionError, boto.HTTPClientError, TimeoutError, ConnectionError) as error:
        raise LissnasError(
            f"{place}: {_endpoint()} does not answer within {CONNECT} to {READ} s ({type(error).__name__}); "
            "look at AWS_ENDPOINT_URL_S3"
        ) from None
    except (boto.BotoCoreError, boto.ClientError, OSError) as error:
        if getattr(error, "filename", None) is not None:  # of this machine's disk
            raise
        raise LissnasError(f"{place}: {_endpoint()} says {error}") from None
