"""Packaged data, read once and verified against its sha256, and its accuracy tables."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas.benchmarks.official.transnas import HEADLINE
from lissnas.core.errors import DamagedFile
from lissnas.spaces import CellSpace, FloatArray, Keys, get

TASKS = tuple(HEADLINE)
"""The seven tasks of TransNAS-Bench-101."""

CHECKSUMS = {
    "nasbench101.parquet": "cbfccadbffe663b7c00ec8a6c5137179a4a532a5b02a959e53db1f6d1bb27a25",
    "transnas_micro.parquet": "f2c8a3b13d29d07506eaacc1a3ff54eb864a6a33ca22e06ba68a687fb427bdcd",
    "transnas_macro.parquet": "ab1544c20f0cee14ada1cd46f3230a8b4c3db5f6debbf288b7fdbefd960e2346",
    "nas_bench_macro.parquet": "305f72393d25a7e7871bdfc3a84e6b174bcefb39bd4e60e66463ac8e910a5c4c",
    "nasbench301_surrogate.parquet": "f44a096d82e0bbf9b74e54a309e77c000f8b739936bff1302d09a30b9fa0fce2",
    "ofa_mbv3_acc_predictor.npz": "84a1120da384cf9279605fad8f8e21d65a62e9e88f1499bed5d3b5968e10b984",
    "hwgpt_s_perplexity.npz": "3812eea477283c2c047dab6789b46813db4cd553ead778add439ccd4688ad502",
    "hwgpt_m_perplexity.npz": "f89c070e8e5349d28420f41f047d5dca63f27b1ac2a032115fa7bb0d4585a8e1",
    "hwgpt_l_perplexity.npz": "c597def095d351ee5d2c607d017e2a1cada2dab6d8826bb5bdfd55237a34d67b",
    "accel_nasbench.parquet": "b9d3c6aae6e727b9486cdf0beef7f0e2d09f5fd703929d0dd240dc9c19a5dcca",
    "labels_fairnas.csv": "784f7d7d2339eb86ec749d4d91e347882eb7f0c4cca70e18ce39a6bdfbefa1ae",
    "labels_shufflenetv2.csv": "b6da7f2a64f66ee6409d0b3a04e8c1d01d0508cc0fe24f6cb2b129a48cba52ae",
    "labels_shufflenetv2_supernet.csv": "876f4e3468ef022733d85dd9416bb6219bb646c7d1ad2771d46f309d7e962366",
    "labels_mobilenet.csv": "3e9d6574c86dc6c659702beab3626e283f6f51f45fd75978e2c1aeba01575c09",
    "labels_anynetx.csv": "afab3f91fba9da5cb7b56108a044dba3a3d422d28a3b2b070c454d13a6d2c082",
}
"""The sha256 of each packaged file."""
NB101_TEST_IMAGES = 9_984
"""Test images of NAS-Bench-101: 39 full batches of 256."""


def read_bytes(name: str) -> bytes:
    """Return the bytes of a packaged file; raises DamagedFile if its checksum does not match."""
    path = files("lissnas.benchmarks") / "data" / name
    data = path.read_bytes()
    found, expected = hashlib.sha256(data).hexdigest(), CHECKSUMS[name]
    if found != expected:
        fix = "Reinstall the package: pip install --force-reinstall --no-deps lissnas"
        raise DamagedFile(str(path), expected, found, fix)
    return data


@cache
def read(name: str) -> pa.Table:
    """Return a packaged table after verifying it."""
    return pq.read_table(pa.BufferReader(read_bytes(name)))


def nasbench101() -> tuple[Keys, FloatArray]:
    """Return keys and test accuracies in percent, ascending by key."""
    table = read("nasbench101.parquet")
    space = get("nasbench101")
    assert isinstance(space, CellSpace)
    keys = table["edges"].to_numpy().astype(np.uint64) * np.uint64(space.labellings) + table["ops"].to_numpy()
    return keys, 100.0 * table["correct"].to_numpy().astype(np.float64) / NB101_TEST_IMAGES


def transnas(space_name: str, task: str) -> tuple[Keys, FloatArray]:
    """Return keys and the task's metric for `transnas`, `transnas_micro` or `transnas_macro`."""
    parts = ["transnas_micro", "transnas_macro"] if space_name == "transnas" else [space_name]
    table = pa.concat_tables([read(f"{part}.parquet").select(["arch", task]) for part in parts])
    keys = get(space_name).key(get(space_name).parse(table["arch"].to_pylist()))
    order = np.argsort(keys)
    return keys[order], table[task].to_numpy().astype(np.float64)[order]


def nas_bench_macro() -> tuple[Keys, FloatArray]:
    """Return keys and accuracies: the mean of three runs, then over strings of equal function."""
    table = read("nas_bench_macro.parquet")
    space = get("nas_bench_macro")
    # Rounded to the table's two decimals first, so that the mean has no float32 noise.
    runs = np.stack([table[f"acc{i}"].to_numpy().astype(np.float64).round(2) for i in (1, 2, 3)])
    keys, inverse = np.unique(space.key(space.parse(table["arch"].to_pylist())), return_inverse=True)
    total = np.bincount(inverse, weights=runs.mean(axis=0))
    return keys, total / np.bincount(inverse)
