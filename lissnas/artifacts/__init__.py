"""Files that are complete or absent: formats, locks, manifests, checkpoints, journals, object storage."""

from __future__ import annotations

from lissnas.artifacts.atomic import WRITING, write
from lissnas.artifacts.checkpoint import STATE, Checkpoint, resume_folders, tasks_of
from lissnas.artifacts.folder import publish, read_manifest, read_verified, to_record, verify
from lissnas.artifacts.formats import (
    digest,
    read_csv,
    read_json,
    rows_to_parquet,
    sha256,
    to_csv,
    to_json,
    to_markdown,
    to_parquet,
    to_parquet_parts,
)
from lissnas.artifacts.journal import LOG, TASKS, Journal
from lissnas.artifacts.lock import locked
from lissnas.artifacts.ownership import MANIFEST, RUN
from lissnas.artifacts.stage_run import Outcome, finished, run
from lissnas.artifacts.verification import verified

__all__ = [
    "LOG",
    "MANIFEST",
    "RUN",
    "STATE",
    "TASKS",
    "WRITING",
    "Checkpoint",
    "Journal",
    "Outcome",
    "digest",
    "finished",
    "locked",
    "publish",
    "read_csv",
    "read_json",
    "read_manifest",
    "read_verified",
    "resume_folders",
    "rows_to_parquet",
    "run",
    "sha256",
    "tasks_of",
    "to_csv",
    "to_json",
    "to_markdown",
    "to_parquet",
    "to_parquet_parts",
    "to_record",
    "verified",
    "verify",
    "write",
]
