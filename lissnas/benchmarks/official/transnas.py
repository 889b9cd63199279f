"""Reader of TransNAS-Bench-101's `.pth` file: every metric of each network and task after every epoch.

`data[space][arch][task]["metrics"][name]` is a list with one value per epoch (github.com/yawen-d/
TransNASBench, api/api.py); names are `valid_top1`, `test_ssim` and similar. Losses to minimize (all but
`neg_loss`) and metrics on training images are left out.
"""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

from lissnas.benchmarks.official.files import UnreadableFile
from lissnas.benchmarks.official.layout import MetricTable, Results, tables_of
from lissnas.benchmarks.official.restricted import load
from lissnas.core.errors import first_line, short

HEADLINE = {
    "class_scene": "top1",
    "class_object": "top1",
    "room_layout": "neg_loss",
    "jigsaw": "top1",
    "segmentsemantic": "acc",
    "normal": "ssim",
    "autoencoder": "ssim",
}
"""The metric of each task in the packaged tables; it is named `val`, another one e.g. `val.mIoU`."""
MAX_EPOCHS = 1_000
MAX_VALUES_PER_BYTE = 4
"""A value takes at least two bytes; the file may be compressed."""


def read(path: Path) -> list[MetricTable]:
    """Return one table per space and task; raises UnreadableFile, or NotPlainData for a pickle that runs code."""
    whole = load(path)
    data = whole.get("data") if isinstance(whole, dict) else None
    if not isinstance(data, dict):
        raise UnreadableFile(path, "the pickle in it", "has no data by space: not a file of TransNAS-Bench-101")
    tables = []
    for part in ("micro", "macro"):
        networks = data.get(part, {})
        if not isinstance(networks, dict) or not all(isinstance(name, str) for name in networks):
            raise UnreadableFile(path, part, "expected results by network")
        if networks:
            tables += _tables(path, f"transnas_{part}", networks)
    if not tables:
        raise UnreadableFile(path, "the file", "holds no networks")
    return tables


def _tables(path: Path, space_name: str, networks: dict[str, Any]) -> list[MetricTable]:
    names = list(networks)
    results: dict[tuple[str, str], Results] = {}
    left = MAX_VALUES_PER_BYTE * path.stat().st_size
    for task, (number, arch) in itertools.product(HEADLINE, enumerate(names)):
        try:
            metrics = networks[arch][task]["metrics"] if task in networks[arch] else {}
            for name, curve in metrics.items():
                if not isinstance(name, str):
                    raise TypeError(f"a metric called {short(repr(name))}")
                if not isinstance(curve, list | tuple):
                    raise TypeError(f"{short(name)} is not a list")
                if len(curve) > MAX_EPOCHS:
                    raise ValueError(f"{len(curve):,} epochs of {short(name)}")
                left -= len(curve)
                if left < 0:
                    raise ValueError("more values than a file of this size can hold")
                values = [float(value) for value in curve]
                if head := _head(task, name):
                    found = results.setdefault((f"{space_name}/{task}", head), Results())
                    for epoch, value in enumerate(values, 1):
                        # A diverged training has infinities or NaN: its value is missing.
                        found.add(number, epoch, value if math.isfinite(value) else math.nan)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"is not as TransNASBench writes it ({type(error).__name__}: {first_line(error)})"
            raise UnreadableFile(path, f"{arch} {task}", reason) from None
    return tables_of(path, space_name, names, lambda i: f"{space_name} {short(repr(names[i]))}", results)


def _head(task: str, name: str) -> str:
    """Return split and metric in the names of `layout`, empty for metrics that are left out."""
    match = re.fullmatch(r"(valid|test)_(\w+)", name)
    if not match or (match[2].endswith("loss") and match[2] != "neg_loss"):
        return ""
    split = {"valid": "val", "test": "test"}[match[1]]
    return split if match[2] == HEADLINE[task] else f"{split}.{match[2]}"
