"""The study of endurance: many flow runs against one server, many labels of which some fail and some hang.

python -m tests.robustness --name soak     (or `make study NAME=soak`)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from lissnas import artifacts
from lissnas.cli import render
from lissnas.core.errors import LissnasError
from studies.run import WORK, Rows

RUNS, LABELS = 200, 2_000
WARM = 0.1
"""The share of the runs after which memory is taken to be what it will be."""
SPACE, TASK = "transnas_micro", "nas_bench_macro"
FAILING, HANGING = 10, 5
"""Percent of the networks."""
LIMIT = 1.0
"""Seconds until a program that hangs is ended."""
MEGA = 1 << 20
PROGRAM = f"""\
import sys, time, zlib
share = zlib.crc32(sys.stdin.read().strip().encode()) % 100
if share < {FAILING}:
    sys.exit("out of memory")
if share < {FAILING + HANGING}:
    time.sleep(600)
print(50 + share / 10)
"""
"""A program that labels: what comes of a network is a function of its name."""


def soak() -> tuple[Rows, str]:
    """Run flows and collect labels for a long time."""
    with render.lines("soaking") as line:
        rows = [soak_runs(WORK / "soak" / "runs", RUNS, line), soak_labels(WORK / "soak" / "labels", LABELS)]
    return rows, soak_page(*rows)


def soak_runs(work: Path, runs: int, on_run: Callable[[str], None]) -> dict[str, Any]:
    """Run a flow so many times against one server, in one process; return how much that process and the server grew."""
    work = _emptied(work)
    own = {"PREFECT_HOME": f"{work}/prefect", "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    own |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | own
    command = [sys.executable, "-m", "tests.robustness.soak", str(runs)]
    samples = []
    with (
        (work / "said.log").open("w") as log,
        subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("{"):
                samples.append(json.loads(line))
                on_run(f"run {samples[-1]['run']}/{runs}  {samples[-1]['memory']:.0f} MiB")
    if process.returncode:
        raise LissnasError(f"the runs ended with code {process.returncode}: {work / 'said.log'}")
    warm, last = samples[max(1, int(WARM * runs))], samples[-1]
    locked = (work / "said.log").read_text(errors="replace").count("database is locked")
    grown = {f"{what}_growth": last[what] - warm[what] for what in ("files", "threads", "processes")}
    share = {f"{who}_growth": last[who] / warm[who] - 1 for who in ("memory", "server")}
    return {"what": "flow runs", "count": runs, "warm": warm["run"], **grown, **share, "database_is_locked": locked}


def soak_labels(work: Path, labels: int) -> dict[str, Any]:
    """Collect labels by a program that fails on some networks and hangs on others; return what was made of them."""
    work = _emptied(work)
    program, out = work / "label.py", work / "out"
    program.write_text(PROGRAM)
    words = ["--space", SPACE, "--program", f"{sys.executable} -S {program}", "--out", str(out), "--workers", "0"]
    words += ["--networks", str(labels), "--set", "label.attempts=2", "--set", f"label.time_limit={LIMIT}"]
    done = subprocess.run([sys.executable, "-m", "flows.label", *words], stderr=subprocess.DEVNULL)
    if done.returncode:
        raise LissnasError(f"the collecting ended with code {done.returncode}")
    metrics = artifacts.finished(out).metrics
    made = {"space": SPACE, "labels": metrics["labels"], "failed": len(metrics["failed"])}
    # Each program has a session of its own: one that was left would be nobody's child.
    left = [p for p in psutil.process_iter(["cmdline"]) if str(program) in (p.info["cmdline"] or ())]
    return {"what": "labels", "count": labels, **made, "processes_growth": len(left)}


def _emptied(folder: Path) -> Path:
    """Return a folder, with nothing in it, by its absolute path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder.absolute()


def soak_page(runs: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """Return what grew, in words."""
    return (
        f"{runs['count']} runs of the flow `shrink` in one process, against one Prefect server and MLflow, both on "
        f"SQLite. From run {runs['warm']} to the last the memory of the process grew by "
        f"{100 * runs['memory_growth']:.1f} %, that of the server by {100 * runs['server_growth']:.1f} %; "
        f"{runs['files_growth']:+d} open files, {runs['threads_growth']:+d} threads, {runs['processes_growth']:+d} "
        f'processes; "database is locked" was said {runs["database_is_locked"]} times.\n\n'
        f"{labels['count']:,} networks of {labels['space']} labelled by a program that fails on {FAILING} %, "
        f"hangs on {HANGING} %: {labels['labels']:,} labels, {labels['failed']:,} networks failed, "
        f"{labels['processes_growth']} processes left."
    )


def main(runs: int) -> None:
    """Run the flow in this process; print what it takes after each run."""
    from flows.shrink import shrink
    from lissnas.shrinkers.description import Description

    me = psutil.Process()
    for run in range(runs):
        shrink(Description(TASK), seed=run % 5, out=Path("out"), overrides={"shrink.target_size": 100}, force=True)
        below = me.children(recursive=True)
        sample = {
            "run": run + 1,
            "memory": me.memory_info().rss / MEGA,
            "server": sum(child.memory_info().rss for child in below) / MEGA,
            "files": me.num_fds(),
            "threads": me.num_threads(),
            "processes": len(below),
        }
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
