"""The bucket of the local object storage survives its server, also if processes are killed."""

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
    reset(found)
    yield found
    running.stop()


def put(addresses: Addresses, **objects: bytes) -> None:
    for key, body in objects.items():
        storage.connected(addresses).put_object(Bucket=addresses.bucket, Key=f"folder/{key}", Body=body)


def saved(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (folder / "bucket").rglob("*") if p.is_file()}


def reset(addresses: Addresses) -> None:
    """Clear the server, as after a restart."""
    httpx.post(f"{addresses.urls['storage']}/moto-api/reset").raise_for_status()


def test_saved_objects_are_restored(addresses: Addresses, tmp_path: Path) -> None:
    assert storage.ready(addresses, tmp_path)
    put(addresses, a=b"1", b=b"2")
    storage.keep(addresses, tmp_path)
    assert saved(tmp_path) == {"a": b"1", "b": b"2"}
    reset(addresses)
    assert storage.ready(addresses, tmp_path)
    storage.connected(addresses).delete_object(Bucket=addresses.bucket, Key="folder/a")
    storage.keep(addresses, tmp_path)
    assert saved(tmp_path) == {"b": b"2"}


def test_partly_restored_bucket_does_not_replace_the_copy(addresses: Addresses, tmp_path: Path) -> None:
    storage.ready(addresses, tmp_path)
    put(addresses, a=b"1", b=b"2")
    storage.keep(addresses, tmp_path)
    reset(addresses)
    storage.keep(addresses, tmp_path)  # no bucket yet
    storage.connected(addresses).create_bucket(Bucket=addresses.bucket)
    put(addresses, a=b"1")  # `up` was killed while it restored the bucket
    storage.keep(addresses, tmp_path)
    assert saved(tmp_path) == {"a": b"1", "b": b"2"}
    assert storage.ready(addresses, tmp_path)
    storage.keep(addresses, tmp_path)
    assert saved(tmp_path) == {"a": b"1", "b": b"2"}


def test_copy_is_restored_after_a_kill_during_its_replacement(addresses: Addresses, tmp_path: Path) -> None:
    storage.ready(addresses, tmp_path)
    put(addresses, a=b"1")
    storage.keep(addresses, tmp_path)
    (tmp_path / "bucket").rename(tmp_path / "bucket.old")
    reset(addresses)
    assert storage.ready(addresses, tmp_path)
    storage.keep(addresses, tmp_path)
    assert saved(tmp_path) == {"a": b"1"}


def test_unreachable_server_is_reported(tmp_path: Path) -> None:
    (tmp_path / "bucket").mkdir()
    (tmp_path / "bucket" / "a").write_bytes(b"1")
    unreachable = Addresses({**PORTS, "storage": 9}, secrets={"storage": "not this"})
    with pytest.raises(LissnasError, match="was not saved to") as failed:
        storage.keep(unreachable, tmp_path)
    assert "not this" not in str(failed.value)
    assert saved(tmp_path) == {"a": b"1"}
    assert not storage.ready(unreachable, tmp_path)
