"""Shrink spaces too large to enumerate to the paper's sizes; measure time and memory.

python -m studies --name huge     (or `make study NAME=huge`)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from lissnas import artifacts, spaces
from lissnas.core import process as process_module
from lissnas.core.errors import LissnasError
from lissnas.plots.figures import big
from lissnas.shrinkers.problem import SUPERNETS, TRAINED, packaged
from lissnas.stages.report.huge_tables import Huge
from studies.run import WORK, Rows, table

TARGETS = {
    "shufflenetv2": 10**6,
    "fairnas": 10**6,
    "mobilenet": 10**6,
    "ofa_mobilenetv3": 10**6,
    "nasbench301": 10**7,
    "anynetx": 10**9,
}
"""The paper's target sizes."""
MEMORY = {"nasbench301": 8}
"""Memory limit of a shrink in GiB, if the default is too low."""
ORACLES = {
    **dict.fromkeys(TRAINED, "a predictor fitted to labels of small networks, %"),
    **dict.fromkeys(SUPERNETS, "a predictor fitted to a supernet's accuracies, %"),
    "nasbench301": "a predictor fitted to a surrogate's values, %",
    "ofa_mobilenetv3": "a predictor of ImageNet accuracy, %",
}
LISSNAS = ("-m", "lissnas.cli")
"""Arguments of Python that run the command `lissnas`."""


def huge(work: Path = WORK / "huge", targets: Mapping[str, int] = TARGETS) -> tuple[Rows, str]:
    """Run one `lissnas shrink` for each space, unless it was measured before."""
    rows = [_row(name, work / name, target) for name, target in track(targets.items(), console=process_module.err)]
    note = (
        "One run each: `lissnas shrink --space ... --target-size ...`, seed 0. The means are predictions of the oracle "
        "in the last column, not accuracies of trained ImageNet networks. Sizes of overlapping balls are estimated, "
        "with a 99.9 % interval."
    )
    return rows, f"{note}\n\n{table(_cells(Huge.model_validate(row)) for row in rows)}"


def _row(name: str, out: Path, target: int) -> dict[str, Any]:
    """Return the result of a shrink with its time and memory; sizes are strings, since they exceed 64 bits."""
    more = ["--memory", str(MEMORY[name])] if name in MEMORY else []
    arguments = ["shrink", "--space", name, "--target-size", str(target), "--out", str(out), "--force", *more]
    space = spaces.get(name)
    took = measured_once(out.parent / f"{name}.json", arguments, packaged(space).digest)
    outcome = artifacts.finished(out)
    m, about = outcome.metrics, outcome.json("subspace.json")
    size = str(about["size"])
    return {
        "space": name,
        "full_size": str(space.size()),
        "full_size_exact": space.size_exact,
        "size": size,
        "size_low": str(about.get("size_low", size)),
        "size_high": str(about.get("size_high", size)),
        "size_exact": about["size_exact"],
        "kind": about["kind"],
        "queries": m["queries"],
        "seconds": took["seconds"],
        "memory_gib": took["memory_gib"],
        "mean_full": m["full_mean_predicted"],
        "mean_shrunk": m["mean_predicted"],
        "judged_by": ORACLES[name],
    }


def _cells(h: Huge) -> dict[str, str]:
    size, factor = h.shown
    return {
        "space": h.space,
        "full size": f"{big(h.full_size)}{'' if h.full_size_exact else ' descriptions'}",
        "shrunk to": size,
        "kind": h.kind,
        "factor": factor,
        "mean, full": f"{h.mean_full:.4g}",
        "mean, shrunk": f"{h.mean_shrunk:.4g}",
        "queries": f"{h.queries:,}",
        "minutes": f"{h.seconds / 60:.1f}",
        "GiB": f"{h.memory_gib:.2f}",
        "judged by": h.judged_by,
    }


def measured(arguments: Sequence[str]) -> dict[str, float]:
    """Run `lissnas` in a separate process; return its time in seconds and its peak memory in GiB."""
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, *LISSNAS, *arguments]) as process:
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LissnasError(f"lissnas {' '.join(arguments)} ended with code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return {"seconds": time.perf_counter() - started, "memory_gib": usage.ru_maxrss * unit / 2**30}


def measured_once(record: Path, arguments: Sequence[str], source: str) -> dict[str, float]:
    """Return time and memory of a command, from a record of the same command and source, else by running it."""
    about = {"arguments": list(arguments), "source": source}
    if record.exists() and (known := artifacts.read_json(record))["about"] == about:
        return dict(known["took"])
    took = measured(arguments)
    artifacts.write(record, artifacts.to_json({"about": about, "took": took}))
    return took
