"""Studies of spaces too large to list: all of them shrunk and measured, and methods compared on one of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import track

from lissnas import artifacts, spaces
from lissnas.artifacts.stage_run import Outcome, finished
from lissnas.cli import render
from lissnas.config import ParamFiles
from lissnas.core import process as process_module
from lissnas.core.errors import LissnasError
from lissnas.plots.figures import big
from lissnas.shrinkers import description
from lissnas.shrinkers.methods import METHODS, chosen
from lissnas.shrinkers.problem import SUPERNETS, TRAINED, packaged
from lissnas.stages.compare import compare_stage
from lissnas.stages.report.huge_tables import COLUMNS

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
"""GiB that a shrink may take, where the usual limit doesn't do."""
JUDGES = {
    **dict.fromkeys(TRAINED, "a predictor fitted to labels of small networks, %"),
    **dict.fromkeys(SUPERNETS, "a predictor fitted to a supernet's accuracies, %"),
    "nasbench301": "a predictor fitted to a surrogate's values, %",
    "ofa_mobilenetv3": "a predictor of ImageNet accuracy, %",
}

LISSNAS = ("-m", "lissnas.cli")
"""What Python is given to be the command `lissnas`."""
OFA = "ofa_mobilenetv3"
OFA_SETTINGS: dict[str, Any] = {
    # The surrogate is asked 2.5 million times by each method as it is; a million networks take ten times that, hours.
    "shrink.target_size": 100_000,
    "pipeline.seeds": [0, 1, 2],
    # Naive shares have no size of their own; those that need a table are left out.
    "compare.methods": [m for m, one in METHODS.items() if not one.needs_table and not m.startswith("top")],
    "compare.diversities": [0.05, 0.5],
}


# -- huge: every space, as a user would shrink it ------------------------------------------------------
def huge_study(work: Path, targets: Mapping[str, int] = TARGETS) -> list[dict[str, Any]]:
    """Return a row a space, each shrunk by a `lissnas shrink` of its own unless it was measured already."""
    return [huge_row(name, work / name, target) for name, target in track(targets.items(), console=process_module.err)]


def huge_row(name: str, out: Path, target: int) -> dict[str, Any]:
    """Return what a space became and what that took; sizes are texts, since they don't fit 64 bits."""
    more = ["--memory", str(MEMORY[name])] if name in MEMORY else []
    arguments = ["shrink", "--space", name, "--target-size", str(target), "--out", str(out), "--force", *more]
    took = measured_once(out.parent / f"{name}.json", arguments, packaged(spaces.get(name)).digest)
    outcome = finished(out)
    m, about = outcome.metrics, outcome.json("subspace.json")
    space = spaces.get(name)
    size = int(about["size"])
    row = {
        "space": name,
        "full_size": str(space.size()),
        "full_size_exact": space.size_exact,
        "size": str(size),
        "size_low": str(about.get("size_low", size)),
        "size_high": str(about.get("size_high", size)),
        "size_exact": about["size_exact"],
        "kind": about["kind"],
        "queries": m["queries"],
        "seconds": took["seconds"],
        "memory_gib": took["memory_gib"],
        "mean_full": m["full_mean_predicted"],
        "mean_shrunk": m["mean_predicted"],
        "judged_by": JUDGES[name],
    }
    return {column: row[column] for column in COLUMNS}


def measured(arguments: Sequence[str]) -> dict[str, float]:
    """Run `lissnas` as a process of its own; return its seconds and its largest memory in GiB."""
    command = [sys.executable, *LISSNAS, *arguments]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise LissnasError(f"lissnas {' '.join(arguments)} ended with code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return {"seconds": time.perf_counter() - started, "memory_gib": usage.ru_maxrss * unit / 2**30}


def measured_once(record: Path, arguments: Sequence[str], source: str) -> dict[str, float]:
    """Return what a command takes, from a record of the same command on the same source, else by running it anew."""
    about = {"arguments": list(arguments), "source": source}
    if record.exists() and (known := artifacts.read_json(record))["about"] == about:
        return dict(known["took"])
    took = measured(arguments)
    artifacts.write(record, artifacts.to_json({"about": about, "took": took}))
    return took


def huge_page(found: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return a Markdown table of the spaces."""
    lines = [
        f"{made_by} One run each: `lissnas shrink --space ... --target-size ...`, seed 0. No mean is the",
        "accuracy of trained ImageNet networks; the last column says who judged. Sizes of balls that overlap are",
        "measured, with an interval of 99.9 %.",
        "",
        "| space | full size | shrunk to | kind | factor | mean, full | mean, shrunk | queries | minutes | GiB "
        "| judged by |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found:
        full, size = int(r["full_size"]), int(r["size"])
        shown = (
            f"{size:,}" if r["size_exact"] else f"{size:.4g} ({int(r['size_low']):.4g} to {int(r['size_high']):.4g})"
        )
        lines.append(
            f"| {r['space']} | {big(full)}{'' if r['full_size_exact'] else ' descriptions'} | {shown} | {r['kind']} | "
            f"{big(full / size)} | {r['mean_full']:.4g} | {r['mean_shrunk']:.4g} | {r['queries']:,} | "
            f"{r['seconds'] / 60:.1f} | {r['memory_gib']:.2f} | {r['judged_by']} |"
        )
    return "\n".join(lines) + "\n"


# -- compare_ofa: the methods on a space of 2e19 networks, judged by a surrogate -------------------------
def ofa_outcome(params: ParamFiles, out: Path, settings: Mapping[str, Any] = OFA_SETTINGS) -> Outcome:
    """Compare methods, at equal size, on Once-for-All MobileNetV3 by its predictor of ImageNet accuracy."""
    checked, source = description.load_params(params, settings), packaged(spaces.get(OFA))
    methods = chosen(checked.compare.methods, source)
    with render.lines(f"comparing on {OFA}") as line:
        return compare_stage(checked, source, methods, checked.pipeline.seeds, out, on_progress=line)


def ofa_rows(outcome: Outcome) -> Iterator[dict[str, Any]]:
    """Yield a row a method, with the space and what the values are."""
    metric = packaged(spaces.get(OFA)).metric
    for row in outcome.csv("summary.csv"):
        yield {"benchmark": OFA, "metric": metric, **row}


def ofa_page(outcome: Outcome, made_by: str) -> str:
    """Return the comparison's page."""
    page = (outcome.folder / "comparison.md").read_text().replace("# Methods", "## Methods", 1)
    return f"{made_by} Target {OFA_SETTINGS['shrink.target_size']:,}.\n{page}"
