"""Benchmarks: a space with the true accuracy of every architecture in it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.artifacts import read_verified, verify
from lissnas.benchmarks import tables
from lissnas.benchmarks.base import Benchmark
from lissnas.benchmarks.official.select import imported
from lissnas.core.errors import UnknownName, UserError
from lissnas.spaces import get as get_space

__all__ = ["Benchmark", "get", "names", "read_prepared", "space_of"]


_NB101 = "CIFAR-10 test accuracy after 108 epochs, one training run, %"
_NBMACRO = "CIFAR-10 test accuracy, mean of three runs, %"
_MIT = "MIT"
_APACHE = "Apache-2.0"
_TASK_METRIC = {
    "class_scene": "top-1 accuracy, %",
    "class_object": "top-1 accuracy, %",
    "room_layout": "negative loss",
    "jigsaw": "top-1 accuracy, %",
    "segmentsemantic": "pixel accuracy, %",
    "normal": "SSIM",
    "autoencoder": "SSIM",
}


_NAMES = (
    "nasbench101",
    *(f"{space}/{task}" for space in ("transnas", "transnas_macro", "transnas_micro") for task in tables.TASKS),
    "nas_bench_macro",
)


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return list(_NAMES)


def space_of(name: str) -> str:
    """Return the name of a benchmark's space, without reading its table."""
    return name.partition("@")[0].partition("/")[0]


def read_prepared(name: str, folder: Path) -> Benchmark:
    """Return the benchmark with the verified table that `lissnas data` wrote to `folder`.

    Raises UserError for the table of another benchmark, DamagedFile if it was modified.
    """
    packaged = get(name)
    manifest = verify(folder)
    if not {"benchmark.json", "table.parquet"} <= manifest.keys():
        raise UserError(f"{folder} holds no table. Pass the folder that `lissnas data` wrote.")
    about = json.loads(read_verified(folder, "benchmark.json", manifest))
    if about["benchmark"] != name:
        raise UserError(f"{folder} holds the table of {about['benchmark']!r}, not of {name!r}")
    table = pq.read_table(pa.BufferReader(read_verified(folder, "table.parquet", manifest)))
    return replace(packaged, keys=table["key"].to_numpy(), values=table["value"].to_numpy())


def get(name: str) -> Benchmark:
    """Return a benchmark by name, cached per process; raises UnknownName.

    A name with an `@` selects a metric of an imported official file: `nasbench101@val/max/108`.
    """
    return Benchmark(*imported(name)) if "@" in name else _packaged(name)


@cache
def _packaged(name: str) -> Benchmark:
    if name not in _NAMES:
        raise UnknownName("benchmark", name, _NAMES)
    space = get_space(space_of(name))
    if name == "nasbench101":
        return Benchmark(name, space, _NB101, _APACHE, *tables.nasbench101())
    if name == "nas_bench_macro":
        return Benchmark(name, space, _NBMACRO, _APACHE, *tables.nas_bench_macro())
    task = name.partition("/")[2]
    metric = _TASK_METRIC[task]
    keys, values = tables.transnas(space.name, task)
    point = 1.0 if metric.endswith("%") else 0.01
    return Benchmark(name, space, f"validation {metric}, at the last epoch", _MIT, keys, values, point)
