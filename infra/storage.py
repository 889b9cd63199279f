"""The local object storage: moto's server. It keeps its bucket in memory, so that it is carried over to disk here."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.settings import Addresses

KEPT = "bucket"
"""Folder of the bucket's objects while the server is down, in that of the services."""


def ready(addresses: Addresses, folder: Path) -> bool:
    """Return whether the bucket is there; made, with what was kept of it, where it is not."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = connected(addresses)
    try:
        client.head_bucket(Bucket=addresses.bucket)
    except ClientError:
        with suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=addresses.bucket)
            kept = folder / KEPT
            for file in sorted(p for p in kept.rglob("*") if p.is_file()):
                client.upload_file(str(file), addresses.bucket, file.relative_to(kept).as_posix())
            return True
        return False
    except BotoCoreError:
        return False
    return True


def keep(addresses: Addresses, folder: Path) -> None:
    """Carry the bucket's objects over to disk; the copy before is replaced once the new one is whole."""
    client, fresh = connected(addresses), folder / f"{KEPT}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=addresses.bucket):
        for one in page.get("Contents", ()):
            file = fresh / one["Key"]
            if fresh.resolve() not in file.resolve().parents:
                continue  # a key that would leave the folder
            file.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(addresses.bucket, one["Key"], str(file))
    shutil.rmtree(folder / KEPT, ignore_errors=True)
    if fresh.exists():
        fresh.rename(folder / KEPT)


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
