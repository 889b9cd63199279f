"""The local object storage: moto's server, whose bucket is in memory and is saved to disk and restored here."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.settings import Addresses
from lissnas.core.errors import LissnasError

KEPT = "bucket"
"""Folder of the bucket's objects while the server is down, inside the services folder."""
WHOLE = {"Key": "lissnas", "Value": "whole"}
"""Tag of a completely restored bucket."""


def ready(addresses: Addresses, folder: Path) -> bool:
    """Return whether the bucket is ready; create it and restore its saved objects if it is not."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = connected(addresses)
    with suppress(BotoCoreError, ClientError):
        if not _is_whole(client, addresses):
            client.create_bucket(Bucket=addresses.bucket)
            kept = _kept(folder)
            for file in sorted(p for p in kept.rglob("*") if p.is_file()):
                client.upload_file(str(file), addresses.bucket, file.relative_to(kept).as_posix())
            client.put_bucket_tagging(Bucket=addresses.bucket, Tagging={"TagSet": [WHOLE]})
        return True
    return False


def keep(addresses: Addresses, folder: Path) -> None:
    """Save the bucket's objects to disk; replace the previous copy once the new one is complete.

    Does nothing if the bucket was only partly restored. Raises LissnasError if the server does not answer; the
    previous copy is then unchanged.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    kept, fresh, before = _kept(folder), folder / f"{KEPT}.new", folder / f"{KEPT}.old"
    try:
        client = connected(addresses)
        if not _is_whole(client, addresses):
            return
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=addresses.bucket):
            for one in page.get("Contents", ()):
                file = fresh / one["Key"]
                if fresh.resolve() not in file.resolve().parents:
                    continue  # a key that points outside the folder
                file.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(addresses.bucket, one["Key"], str(file))
    except (BotoCoreError, ClientError) as error:
        raise LissnasError(f"the bucket was not saved to {kept}: {error}") from error
    shutil.rmtree(before, ignore_errors=True)
    if kept.exists():
        kept.rename(before)
    fresh.rename(kept)
    shutil.rmtree(before, ignore_errors=True)


def _kept(folder: Path) -> Path:
    """Return the folder of the saved objects; restore the previous copy if `keep` was killed while it replaced it."""
    kept, before = folder / KEPT, folder / f"{KEPT}.old"
    if before.exists() and not kept.exists():
        before.rename(kept)
    return kept


def _is_whole(client: Any, addresses: Addresses) -> bool:
    """Return whether the bucket exists and is completely restored."""
    from botocore.exceptions import ClientError

    with suppress(ClientError):
        return WHOLE in client.get_bucket_tagging(Bucket=addresses.bucket)["TagSet"]
    return False


def connected(addresses: Addresses) -> Any:
    """Return a client of the object storage."""
    import boto3
    from botocore.config import Config

    given = addresses.client_environment()
    return boto3.client(
        "s3",
        endpoint_url=given["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        region_name=given["AWS_DEFAULT_REGION"],
        config=Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 2}),
    )
