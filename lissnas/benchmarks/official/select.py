"""Benchmarks by name and metric: `nasbench101@val/max/108`.

A selection is `<benchmark>@<split>[.<metric>]/<run>/<epochs>`: split `val` or `test`; run `mean` or `max`
over all runs of an architecture, or one of them, `run1`, `run2`, ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas import artifacts
from lissnas.benchmarks.official import layout
from lissnas.benchmarks.official.nasbench201 import SPLITS
from lissnas.benchmarks.official.transnas import HEADLINE
from lissnas.core.errors import UnknownName, UserError
from lissnas.spaces import FloatArray, Keys, Space, get

SELECTOR = re.compile(r"(?P<head>(?:val|test)(?:\.\w+)?)/(?P<run>mean|max|run[1-9]\d*)/(?P<epochs>[1-9]\d{0,8})")
FORMAT = "expected NAME@SPLIT/RUN/EPOCHS, e.g. nasbench101@val/max/108; SPLIT: val, test; RUN: mean, max, run1, ..."
_IMAGES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet16_120": "ImageNet16-120"}
_PERCENT = ("top1", "top5", "acc", "mIoU")
"""Metrics of TransNAS-Bench-101 in percent; one point of the others is a hundredth."""


def selectable() -> dict[str, str]:
    """Return the benchmarks with selectable metrics and the import that each requires."""
    transnas = [f"{space}/{task}" for space in ("transnas", "transnas_macro", "transnas_micro") for task in HEADLINE]
    return {
        "nasbench101": "nasbench101",
        **{f"nasbench201/{images}": "nasbench201" for images in SPLITS},
        **dict.fromkeys(transnas, "transnas"),
    }


def imported(name: str) -> tuple[str, Space, str, str, Keys, FloatArray, float]:
    """Return the fields of a selected benchmark, from the imports in `layout.data_root()`.

    Raises UnknownName or UserError if the benchmark, import or metric does not exist, or if some architectures
    have no value; DamagedFile if a file of the import was modified.
    """
    base, _, text = name.partition("@")
    kinds = selectable()
    if base not in kinds:
        raise UnknownName("benchmark with imported metrics", base, kinds)
    match = SELECTOR.fullmatch(text)
    if match is None:
        raise UserError(f"{name}: {FORMAT}")
    kind, folder = kinds[base], layout.data_root() / kinds[base]
    manifest = artifacts.read_manifest(folder)
    if manifest is None:
        raise UserError(
            f"{name}: no official file of {kind} was imported to {folder}. `lissnas data list` shows its address; "
            f"then: lissnas data import {kind} FILE"
        )
    space_name = base.partition("/")[0]
    # The union of the spaces of TransNAS-Bench-101 has two tables.
    prefixes = ("transnas_micro", "transnas_macro") if space_name == "transnas" else (space_name,)
    parts = [prefix + base.removeprefix(space_name) for prefix in prefixes]
    keys, values, runs = [], [], 0
    for part in parts:
        file = f"{part}.parquet"
        if file not in manifest:
            available = sorted(n.removesuffix(".parquet") for n in manifest if n.endswith(".parquet"))
            raise UserError(f"{name}: the imported file has nothing of {part}; it has {', '.join(available)}")
        part_keys, columns = _read(folder, file, manifest[file], space_name)
        value, n = _select(name, columns, match["head"], match["run"], int(match["epochs"]))
        keys.append(part_keys)
        values.append(value)
        runs = max(runs, n)
    ascending, order = np.unique(np.concatenate(keys), return_index=True)
    metric, point = _metric(base, match["head"], match["run"], match["epochs"], runs)
    licence = "Apache-2.0" if kind == "nasbench101" else "MIT"
    return name, get(space_name), metric, licence, ascending, np.concatenate(values)[order], point


@lru_cache(maxsize=8)
def _read(folder: Path, file: str, sha256: str, space_name: str) -> tuple[Keys, Mapping[str, pa.ChunkedArray]]:
    """Return the keys, in the space, and the columns of a verified table."""
    data = artifacts.read_verified(folder, file, {file: sha256}, _fix(folder))
    table = pq.read_table(pa.BufferReader(data))
    space = get(space_name)
    keys = space.key(space.parse(table["arch"].to_pylist()))
    return keys, {name: table[name] for name in table.column_names if name != "arch"}


def _fix(folder: Path) -> str:
    return f"Import it again: lissnas data import {folder.name} FILE --force"


def _select(
    name: str, columns: Mapping[str, pa.ChunkedArray], head: str, run: str, epochs: int
) -> tuple[FloatArray, int]:
    """Return one value per architecture and the maximum number of runs; raises UserError if any is missing."""
    runs = [c for c in columns if c.startswith(f"{head}/run") and c.endswith(f"/{epochs}")]
    wanted = [c for c in runs if run in ("mean", "max") or c == f"{head}/{run}/{epochs}"]
    if not wanted:
        raise UserError(f"{name}: the imported file has {layout.describe(layout.metrics_of(columns))}")
    table: FloatArray = np.stack([columns[c].to_numpy() for c in wanted])
    missing = np.asarray(np.isnan(table).all(axis=0))
    if missing.any():
        raise UserError(
            f"{name}: {int(missing.sum()):,} of {len(missing):,} architectures have no such value; "
            + (
                "select mean or max, which use the available runs"
                if run not in ("mean", "max")
                else "choose another metric"
            )
        )
    return (np.nanmean if run == "mean" else np.nanmax)(table, axis=0), len(wanted)


def _metric(base: str, head: str, run: str, epochs: str, runs: int) -> tuple[str, float]:
    """Return the metric as text, and its point."""
    split, _, other = head.partition(".")
    words = {"val": "validation", "test": "test"}[split]
    over = {"mean": f"mean of up to {runs} runs", "max": f"best of up to {runs} runs"}.get(run, f"run {run[3:]}")
    space_name, _, task = base.partition("/")
    if not space_name.startswith("transnas"):
        return f"{_IMAGES[task or 'cifar10']} {words} accuracy after {epochs} epochs, {over}, %", 1.0
    metric = other or HEADLINE[task]
    percent = metric in _PERCENT
    return f"{words} {metric} after {epochs} epochs{', %' if percent else ''}", 1.0 if percent else 0.01


def about(folder: Path) -> dict[str, Any]:
    """Return the description of an import; raises DamagedFile or UserError."""
    manifest = artifacts.read_manifest(folder) or {}
    if layout.ABOUT not in manifest:
        raise UserError(f"{folder} holds no import. Choose another folder.")
    content: dict[str, Any] = json.loads(artifacts.read_verified(folder, layout.ABOUT, manifest, _fix(folder)))
    return content
