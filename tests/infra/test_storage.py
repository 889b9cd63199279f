"""The bucket of the local object storage outlives its server, whatever is killed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra import storage
from infra.settings import Addresses
from lissnas.core.errors import LissnasError

PORTS = {"prefect": 1, "mlflow": 1, "database": 1}


@pytest.fixture
def addresses() -> Iterator[Addresses]:
    server = pytest.importorskip("moto.server", reason="moto is not installed (the extra `dev`)")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    port = running.get_host_and_port()[1]
    found = Addresses({**PORTS, "storage": port}, secrets={"storage": "secret"})
    forget(found)
    yield found
    running.stop()


def put(addresses: Addresses, **objects: bytes) -> None:
    for key, body in objects.items():
        storage.connected(addresses).put_object(Bucket=addresses.bucket, Key=f"folder/{key}", Body=body)


def kept(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "bucket").rglob("*") if p.is_file()}


def forget(addresses: Addresses) -> None:
    """What a server that starts again knows: nothing."""
    httpx.post(f"{addresses.urls['storage']}/moto-api/reset").raise_for_status()


def test_what_is_kept_comes_back(addresses: Addresses, tmp_path: Path) -> None:
    assert storage.ready(addresses, tmp_path)
    put(addresses, a=b"1", b=b"2")
    storage.keep(addresses, tmp_path)
    assert kept(tmp_path) == {"a": b"1", "b": b"2"}
    forget(addresses)
    assert storage.ready(addresses, tmp_path)
    storage.connected(addresses).delete_object(Bucket=addresses.bucket, Key="folder/a")
    storage.keep(addresses, tmp_path)
    assert kept(tmp_path) == {"b": b"2"}


def test_a_bucket_that_was_never_filled_replaces_nothing(addresses: Addresses, tmp_path: Path) -> None:
    storage.ready(addresses, tmp_path)
    put(addresses, a=b"1", b=b"2")
    storage.keep(addresses, tmp_path)
    forget(addresses)
    storage.keep(addresses, tmp_path)  # no bucket yet
    storage.connected(addresses).create_bucket(Bucket=addresses.bucket)
    put(addresses, a=b"1")  # `up` was killed while it filled the bucket
    storage.keep(addresses, tmp_path)
    assert kept(tmp_path) == {"a": b"1", "b": b"2"}
    assert storage.ready(addresses, tmp_path)
    storage.keep(addresses, tmp_path)
    assert kept(tmp_path) == {"a": b"1", "b": b"2"}


def test_killed_while_the_copy_is_replaced(addresses: Addresses, tmp_path: Path) -> None:
    storage.ready(addresses, tmp_path)
    put(addresses, a=b"1")
    storage.keep(addresses, tmp_path)
    (tmp_path / "bucket").rename(tmp_path / "bucket.old")
    forget(addresses)
    assert storage.ready(addresses, tmp_path)
    storage.keep(addresses, tmp_path)
    assert kept(tmp_path) == {"a": b"1"}


def test_a_server_that_is_away_is_named(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a").write_bytes(b"1")
    away = Addresses({**PORTS, "storage": 9}, secrets={"storage": "not this"})
    with pytest.raises(LissnasError, match="was not carried over") as failed:
        storage.keep(away, tmp_path)
    assert "not this" not in str(failed.value)
    assert kept(tmp_path) == {"a": b"1"}
    assert not storage.ready(away, tmp_path)
