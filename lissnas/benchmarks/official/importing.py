"""Conversion of official files to the files of an import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lissnas import artifacts
from lissnas.benchmarks.official import layout, nasbench101, nasbench201, nasbench301, transnas
from lissnas.benchmarks.official.files import Digests
from lissnas.benchmarks.official.layout import MetricTable
from lissnas.benchmarks.official.sources import verify_published

TABLES: Mapping[str, Callable[[Path], list[MetricTable]]] = {
    "nasbench101": nasbench101.read,
    "nasbench201": nasbench201.read,
    "transnas": transnas.read,
}
KINDS = (*TABLES, "nasbench301")
"""The benchmarks whose official files can be imported."""


def parameters(kind: str, found: Digests) -> dict[str, Any]:
    """Return everything that an import depends on; raises UserError for an unknown benchmark."""
    layout.check_kind(kind, KINDS)
    return {"benchmark": kind, "format": layout.FORMAT, "source_sha256": found.sha256}


def convert(kind: str, path: Path, found: Digests) -> dict[str, bytes]:
    """Verify the checksum of an official file and return the files of its import.

    Raises DamagedFile, UnreadableFile or NotPlainData.
    """
    about: dict[str, Any] = {
        **parameters(kind, found),
        "source": path.name,
        "bytes": found.size,
        "checked": verify_published(kind, path, found),
    }
    if kind == "nasbench301":
        files, about_models = nasbench301.read(path)
        about |= about_models
    else:
        tables = TABLES[kind](path)
        files = {f"{table.benchmark}.parquet": table.parquet() for table in tables}
        about["tables"] = {table.benchmark: table.about() for table in tables}
    return {**files, layout.ABOUT: artifacts.to_json(about)}
