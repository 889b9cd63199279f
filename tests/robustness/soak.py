"""Study of endurance: many flow runs against one server, many labels of which some fail and some hang.

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

RUNS = 200
"""Number of flow runs."""
LABELS = 2_000
"""Number of requested labels."""
WARM_SHARE = 0.1
"""Share of the runs after which memory should be stable."""
SPACE = "transnas_micro"
"""Space of the labels."""
TASK = "nas_bench_macro"
"""Benchmark of the flow runs."""
FAILING = 10
"""Percent of architectures whose labelling fails."""
HANGING = 5
"""Percent of architectures whose labelling hangs."""
TIMEOUT_SECONDS = 1.0
"""Seconds after which a hanging program is killed."""
MIB = 1 << 20
PROGRAM = f"""\
import sys, time, zlib
share = zlib.crc32(sys.stdin.read().strip().encode()) % 100
if share < {FAILING}:
    sys.exit("out of memory")
if share < {FAILING + HANGING}:
    time.sleep(600)
print(50 + share / 10)
"""
"""A labelling program whose outcome is a function of the architecture's name."""


def soak() -> tuple[Rows, str]:
    """Run many flows and collect many labels."""
    with render.lines("soaking") as line:
        rows = [soak_runs(WORK / "soak" / "runs", RUNS, line), soak_labels(WORK / "soak" / "labels", LABELS)]
    return rows, soak_page(*rows)


def soak_runs(work: Path, runs: int, on_run: Callable[[str], None]) -> dict[str, Any]:
    """Run a flow `runs` times in one process against one server; return the growth of process and server."""
    work = _emptied(work)
    extra = {"PREFECT_HOME": f"{work}/prefect", "MLFLOW_TRACKING_URI": f"sqlite:///{work}/mlflow.db"}
    extra |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    environment = {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | extra
    command = [sys.executable, "-m", "tests.robustness.soak", str(runs)]
    samples = []
    with (
        (work / "output.log").open("w") as log,
        subprocess.Popen(command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        for line in process.stdout or ():
            if line.startswith("{"):
                samples.append(json.loads(line))
                on_run(f"run {samples[-1]['run']}/{runs}  {samples[-1]['memory']:.0f} MiB")
    if process.returncode:
        raise LissnasError(f"the runs ended with code {process.returncode}: {work / 'output.log'}")
    warm, last = samples[max(1, int(WARM_SHARE * runs))], samples[-1]
    locked = (work / "output.log").read_text(errors="replace").count("database is locked")
    grown = {f"{what}_growth": last[what] - warm[what] for what in ("files", "threads", "processes")}
    share = {f"{who}_growth": last[who] / warm[who] - 1 for who in ("memory", "server")}
    return {"what": "flow runs", "count": runs, "warm": warm["run"], **grown, **share, "database_is_locked": locked}


def soak_labels(work: Path, labels: int) -> dict[str, Any]:
    """Collect labels with a program that fails or hangs on some architectures; return the counts of outcomes."""
    work = _emptied(work)
    program, out = work / "label.py", work / "out"
    program.write_text(PROGRAM)
    words = ["--space", SPACE, "--program", f"{sys.executable} -S {program}", "--out", str(out), "--workers", "0"]
    words += ["--networks", str(labels), "--set", "label.attempts=2", "--set", f"label.time_limit={TIMEOUT_SECONDS}"]
    done = subprocess.run([sys.executable, "-m", "flows.label", *words], stderr=subprocess.DEVNULL)
    if done.returncode:
        raise LissnasError(f"the collection of labels ended with code {done.returncode}")
    metrics = artifacts.finished(out).metrics
    made = {"space": SPACE, "labels": metrics["labels"], "failed": len(metrics["failed"])}
    # Programs run in separate sessions: a remaining one would not be a child of this process.
    left = [p for p in psutil.process_iter(["cmdline"]) if str(program) in (p.info["cmdline"] or ())]
    return {"what": "labels", "count": labels, **made, "processes_growth": len(left)}


def _emptied(folder: Path) -> Path:
    """Empty a folder, creating it if needed; return its absolute path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder.absolute()


def soak_page(runs: Mapping[str, Any], labels: Mapping[str, Any]) -> str:
    """Return the page of the study: growth of memory, files, threads and processes."""
    return (
        f"{runs['count']} runs of the flow `shrink` in one process, against one Prefect server and MLflow, both on "
        f"SQLite. From run {runs['warm']} to the last the memory of the process grew by "
        f"{100 * runs['memory_growth']:.1f} %, that of the server by {100 * runs['server_growth']:.1f} %; "
        f"{runs['files_growth']:+d} open files, {runs['threads_growth']:+d} threads, {runs['processes_growth']:+d} "
        f'processes; "database is locked" was logged {runs["database_is_locked"]} times.\n\n'
        f"{labels['count']:,} architectures of {labels['space']} labelled by a program that fails on {FAILING} % and "
        f"hangs on {HANGING} %: {labels['labels']:,} labels, {labels['failed']:,} failures, "
        f"{labels['processes_growth']} remaining processes."
    )


def main(runs: int) -> None:
    """Run the flow in this process; print its resource usage after each run."""
    from flows.shrink import shrink
    from lissnas.shrinkers.description import Description

    me = psutil.Process()
    for run in range(runs):
        shrink(Description(TASK), seed=run % 5, out=Path("out"), overrides={"shrink.target_size": 100}, force=True)
        children = me.children(recursive=True)
        sample = {
            "run": run + 1,
            "memory": me.memory_info().rss / MIB,
            "server": sum(child.memory_info().rss for child in children) / MIB,
            "files": me.num_fds(),
            "threads": me.num_threads(),
            "processes": len(children),
        }
        print(json.dumps(sample), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
