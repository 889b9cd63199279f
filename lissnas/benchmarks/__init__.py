"""Benchmarks: a space with the true accuracy of every architecture in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.benchmarks import tables
from lissnas.errors import UnknownName, UserError
from lissnas.spaces import Archs, FloatArray, Keys, Space
from lissnas.spaces import get as get_space
from lissnas.store import read_verified, verify

__all__ = ["Benchmark", "get", "names", "read_prepared", "space_of"]


@dataclass(frozen=True)
class Benchmark:
    """A complete table over a space; calling it with architectures gives their values.

    Higher is better in every table. `point` is what a tolerance of 1 means in the metric's unit:
    a percent point for accuracies in percent, a hundredth for scores and losses.
    """

    name: str
    space: Space
    metric: str
    licence: str
    keys: Keys = field(repr=False)
    values: FloatArray = field(repr=False)
    point: float = 1.0

    @cached_property
    def sha256(self) -> str:
        """The digest of keys and values: which table this is, wherever it was read from."""
        return hashlib.sha256(self.keys.tobytes() + self.values.tobytes()).hexdigest()

    @cached_property
    def best(self) -> float:
        """The best value of all."""
        return float(self.values.max())

    def rank_of(self, value: float) -> int:
        """Return a value's place in the table, 1 for the best; equal values share the first of theirs."""
        return int((self.values > value).sum()) + 1

    def __call__(self, archs: Archs) -> FloatArray:
        """Return `(n,)` true values; raises UserError for an architecture that isn't in the table."""
        return self.look_up(self.space.key(archs))

    def look_up(self, keys: Keys) -> FloatArray:
        """Return the values of keys."""
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        missing = self.keys[at] != keys
        if missing.any():
            raise UserError(f"row {int(np.argmax(missing))} is not in the table of {self.name}")
        return self.values[at]


_NB101 = "CIFAR-10 test accuracy after 108 epochs, one training run, %"
_NBMACRO = "CIFAR-10 test accuracy, mean of three runs, %"
_MIT, _APACHE = "MIT", "Apache-2.0"
_TASK_METRIC = {
    "class_scene": "top-1 accuracy, %",
    "class_object": "top-1 accuracy, %",
    "room_layout": "negative loss",
    "jigsaw": "top-1 accuracy, %",
    "segmentsemantic": "pixel accuracy, %",
    "normal": "SSIM",
    "autoencoder": "SSIM",
}


def _nasbench101() -> Benchmark:
    space = get_space("nasbench101")
    return Benchmark("nasbench101", space, _NB101, _APACHE, *tables.nasbench101())


def _nas_bench_macro() -> Benchmark:
    space = get_space("nas_bench_macro")
    return Benchmark("nas_bench_macro", space, _NBMACRO, _APACHE, *tables.nas_bench_macro())


def _transnas(space_name: str, task: str) -> Benchmark:
    metric = _TASK_METRIC[task]
    keys, values = tables.transnas(space_name, task)
    point = 1.0 if metric.endswith("%") else 0.01
    text = f"validation {metric}, at the last epoch"
    return Benchmark(f"{space_name}/{task}", get_space(space_name), text, _MIT, keys, values, point)


_REGISTRY: dict[str, Callable[[], Benchmark]] = {
    "nasbench101": _nasbench101,
    **{
        f"{space}/{task}": partial(_transnas, space, task)
        for space in ("transnas", "transnas_macro", "transnas_micro")
        for task in tables.TASKS
    },
    "nas_bench_macro": _nas_bench_macro,
}


def names() -> list[str]:
    """Return the names of all benchmarks."""
    return list(_REGISTRY)


def space_of(name: str) -> str:
    """Return the name of a benchmark's space, without reading its table."""
    return name.partition("/")[0]


def read_prepared(name: str, folder: Path) -> Benchmark:
    """Return the benchmark with the table that `lissnas data` wrote to `folder`, once it is verified.

    Raises UserError for the table of another benchmark, DamagedFile for one that was changed.
    """
    packaged = get(name)
    remedy = f"Write it again: lissnas data --benchmark {name} --out {folder} --force"
    manifest = verify(folder, remedy)
    about = json.loads(read_verified(folder, "benchmark.json", manifest, remedy))
    if about["benchmark"] != name:
        raise UserError(f"{folder} holds the table of {about['benchmark']!r}, not of {name!r}")
    table = pq.read_table(pa.BufferReader(read_verified(folder, "table.parquet", manifest, remedy)))
    return replace(packaged, keys=table["key"].to_numpy(), values=table["value"].to_numpy())


@cache
def get(name: str) -> Benchmark:
    """Return the benchmark of that name, read once a process; raises UnknownName."""
    if name not in _REGISTRY:
        raise UnknownName("benchmark", name, _REGISTRY)
    return _REGISTRY[name]()
