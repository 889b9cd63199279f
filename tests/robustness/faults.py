"""Studies of faults: commands killed at random times and restarted, commands started twice simultaneously.

python -m tests.robustness --name faults     (or `make study NAME=faults`, `NAME=races`)
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lissnas import artifacts, benchmarks, config
from lissnas.artifacts import LOG, TASKS, Journal, verified
from lissnas.cli import render
from lissnas.core.errors import LissnasError
from lissnas.core.rng import stream
from lissnas.stages.compare_labels import BEFORE
from studies.huge import LISSNAS
from studies.run import WORK, Rows, table

BENCHMARK = "nas_bench_macro"
FAST_PARAMS: Mapping[str, Any] = {
    "shrink.target_size": 60,
    "shrink.labels": 80,
    "predictor.trees": 30,
    "images.side": 8,
    "images.validation": 200,
    "supernet.width": 0.25,
    "torch.device": "cpu",
    "torch.threads": 1,
    "search.population": 6,
    "search.parents": 3,
    "search.images": 60,
    "search.batch_size": 30,
}
"""Parameters with which shrinks, trainings and searches take seconds; tests use them too."""
EVERY_FEW_STEPS = {"batch_size": 16, "checkpoint_every": 4, "report_every": 4, "warmup": 2}
SMALL: Mapping[str, Any] = {
    **FAST_PARAMS,
    "search.generations": 6,
    "search.top": 4,
    "retrain.networks": 2,
    "label.networks": 4,
    "pipeline.benchmarks": [BENCHMARK],
    "pipeline.seeds": [0],
    **{
        f"recipes.{name}.{key}": value
        for name, steps in (("cpu", 40), ("cpu_retrain", 20), ("cpu_label", 12))
        for key, value in {**EVERY_FEW_STEPS, "steps": steps}.items()
    },
}
"""Parameters of the jobs of this study, with checkpoints every few steps."""
STAGES = f"""
stages:
  shrink:
    cmd: python -m flows.shrink --benchmark {BENCHMARK} --seed 0 --out data/shrunk
    params: [shrink, predictor]
    outs: [data/shrunk/subspace.parquet, data/shrunk/manifest.json]
  compare:
    cmd: python -m flows.compare --benchmark {BENCHMARK} --methods lissnas,top10 --seeds 0 --out data/compare
    params: [compare, predictor]
    outs: [data/compare/summary.csv, data/compare/manifest.json]
"""
PROGRESS = re.compile(r"iteration +\d|generation +\d|\d+/\d+ ")
"""Start of a progress line."""
SERVERS = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
"""Variables removed from a job's environment, so that it starts separate servers."""
OUTPUT = "output.log"
"""File of a job's output, in its folder."""
SAVED = (artifacts.STATE, artifacts.MANIFEST, LOG, TASKS)
"""Files from which a job resumes."""
TIMEOUT_SECONDS = 600.0
"""Seconds after which a command counts as hanging."""


@dataclass(frozen=True)
class Job:
    """A command that writes artifacts below `data`."""

    name: str
    words: tuple[str, ...]
    needs_shrunk: bool = False
    """Whether it reads a shrunk space from the folder `given`."""
    repository: bool = False
    """Whether it runs in a DVC repository."""


PARAMS = ("--params", "params.yaml")
OUT = ("--out", "data/out")
MAIN = ("--benchmark", BENCHMARK, *PARAMS)
JOBS = {
    job.name: job
    for job in (
        Job("shrink", (*LISSNAS, "shrink", "--benchmark", "transnas/class_scene", *OUT)),
        Job("compare", (*LISSNAS, "compare", *MAIN, "--methods", "lissnas,top10,abs", "--seeds", "0-1", *OUT)),
        Job("search", (*LISSNAS, "search", *MAIN, "--subspace", "given", *OUT), needs_shrunk=True),
        Job("label", ("-m", "flows.label", "--space", BENCHMARK, *PARAMS, "--workers", "0", *OUT)),
        Job("nas", ("-m", "flows.nas", *MAIN, *OUT)),
        Job("reproduce", ("-m", "flows.reproduce", "--no-push"), repository=True),
    )
}
SHRUNK = Job("given", (*LISSNAS, "shrink", *MAIN, "--out", "given"))
QUICK = Job("quick", (*LISSNAS, "shrink", *MAIN, *OUT))
"""The job that `make test` kills and starts twice."""
KILLS = {"shrink": 25, "compare": 20, "search": 30, "label": 10, "nas": 8, "reproduce": 7}
"""Number of kills of each job; `search` trains a supernet, searches, and retrains."""
RACE = "compare"
"""The job that is started twice simultaneously."""
RACES = 100
"""Number of its simultaneous starts."""


def prepare(job: Job, folder: Path) -> None:
    """Create the folder in which a job runs."""
    folder.mkdir(parents=True)
    values = config.load(None, SMALL, benchmarks.names()).model_dump(mode="json")
    artifacts.write(folder / "params.yaml", artifacts.to_json(values))
    if job.needs_shrunk:
        code, output = run(SHRUNK, folder)
        if code:
            raise LissnasError(f"{SHRUNK.name} ended with code {code}:\n{output}")
    if job.repository:
        artifacts.write(folder / "dvc.yaml", STAGES.encode())
        for command in (("git", "init", "-q"), (sys.executable, "-m", "dvc", "init", "-q")):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def started(job: Job, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job in a new session, so that all of its processes can be killed together, as by a machine failure.

    Kills the remaining processes on exit.
    """
    root, programs = str(Path(__file__).parents[2]), Path(sys.executable).parent
    extra = {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "COLUMNS": "200", "PATH": f"{programs}:{os.environ['PATH']}"}
    environment = {k: v for k, v in os.environ.items() if k not in SERVERS} | extra
    with (folder / OUTPUT).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *job.words], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and its children; return its exit code."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(TIMEOUT_SECONDS)


def run(job: Job, folder: Path) -> tuple[int, str]:
    """Run a job to its end; return its exit code, negative for a signal, and its output."""
    (folder / OUTPUT).write_bytes(b"")
    with started(job, folder) as process:
        code = process.wait(TIMEOUT_SECONDS)
    return code, output_of(folder)


def output_of(folder: Path) -> str:
    """Return the output of the jobs of a folder."""
    return (folder / OUTPUT).read_text(errors="replace")


@contextmanager
def started_writing(job: Job, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job; yield once it has written its first file, or has exited."""
    with started(job, folder) as process:
        while process.poll() is None and not any((folder / place).exists() for place in ("data", ".dvc/tmp/rwlock")):
            time.sleep(0.005)
        yield process


def artifact_digests(folder: Path) -> dict[str, str]:
    """Return the digest of every artifact below a folder; raise the error of a damaged one."""
    found: dict[str, str] = {}
    for one in verified(folder / "data"):
        for damage in one.damages:
            raise damage
        manifest = artifacts.read_manifest(one.path) if one.path.is_dir() else None
        found |= {str((one.path / name).relative_to(folder)): digest for name, digest in (manifest or {}).items()}
    return found


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files that a finished job should have removed: checkpoints and partly written files."""
    return sorted(
        str(path.relative_to(folder))
        for path in (folder / "data").rglob("*")
        if artifacts.WRITING in path.name or path.name.endswith((".checkpoint", ".tasks"))
    )


def last_save(folder: Path) -> int:
    """Return the time of a job's last save (checkpoint, label, part, result), in ns of the files' clock; 0 for never.

    A restarted job resumes from there.
    """
    last = 0
    for path in (folder / "data").rglob("*"):
        with suppress(FileNotFoundError):
            last = max(last, path.stat().st_mtime_ns if path.name in SAVED else 0)
    return last


def steps(output: str) -> Counter[str]:
    """Return the number of times each progress line was printed, without its durations."""
    lines = (line.strip() for line in output.splitlines() if not line.endswith(BEFORE))
    return Counter(" ".join(line.split()[:4]) for line in lines if PROGRESS.match(line))


@dataclass(frozen=True)
class Trial:
    """A command killed at a random time, and the result of its restart."""

    job: str
    signal: str
    seconds: float
    """Seconds from the command's first write to the kill."""
    code: int
    """Exit code of the killed run."""
    again: int
    """Exit code of the restarted run."""
    equal: bool
    """Whether the artifacts equal those of an uninterrupted run."""
    left: tuple[str, ...]
    """Temporary files that remain after the restart."""
    repeated: int
    """Progress lines that both runs printed: work repeated since the last save of the first run."""
    lost: int
    """Repeated lines that the first run printed before its last save: lost work, expected to be 0."""

    @property
    def sound(self) -> bool:
        """Whether the restart resumed to the same bytes, repeating at most the work since the last save."""
        return self.again == 0 and self.equal and not self.left and self.lost == 0


def uninterrupted(job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """Return the artifact digests of an uninterrupted run, and the seconds from its first file to its end."""
    prepare(job, folder)
    with started_writing(job, folder) as process:
        first = time.monotonic()
        if code := process.wait(TIMEOUT_SECONDS):
            raise LissnasError(f"{job.name} ended with code {code}:\n{output_of(folder)}")
        return artifact_digests(folder), time.monotonic() - first


def trial(job: Job, folder: Path, seconds: float, how: signal.Signals, expected: Mapping[str, str]) -> Trial | None:
    """Kill a job `seconds` after its first write, and run it again; return None if it had already exited."""
    prepare(job, folder)
    with started_writing(job, folder) as process:
        if (printed := _watched(process, folder, seconds)) is None:
            return None
        if how != signal.SIGKILL:
            process.send_signal(how)
            process.wait(TIMEOUT_SECONDS)
        code, before = kill(process), output_of(folder)
    again, after = run(job, folder)
    equal = again == 0 and artifact_digests(folder) == expected
    repeated, lost = (sum((steps(lines) & steps(after)).values()) for lines in (before, before[:printed]))
    return Trial(job.name, how.name, seconds, code, again, equal, tuple(leftovers(folder)), repeated, lost)


def _watched(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> int | None:
    """Wait for `seconds`; return the size of the output in characters at the last save, None if the job exited."""
    until, saved, printed, size = time.monotonic() + seconds, 0, 0, 0
    while process.poll() is None:
        if (now := last_save(folder)) > saved:
            saved, printed = now, size  # the size of the previous poll, which excludes output after the save
        size = len(output_of(folder))
        if (left := until - time.monotonic()) <= 0:
            return printed
        time.sleep(min(left, 0.02))
    return None


def trials(job: Job, work: Path, kills: int, signals: Sequence[signal.Signals], seed: int = 0) -> Iterator[Trial]:
    """Yield `kills` trials of a job, killed at times drawn uniformly from its writing time."""
    expected, took = uninterrupted(job, work / "uninterrupted")
    rng, made = stream(seed, "kills", job.name), 0
    for tried in range(10 * kills):
        if made == kills:
            return
        folder = work / f"{tried}"
        one = trial(job, folder, float(rng.uniform(0.0, took)), signals[made % len(signals)], expected)
        if one is None or one.sound:
            shutil.rmtree(folder)
        if one is not None:
            made += 1
            yield one
    if made < kills:
        raise LissnasError(f"{job.name} exits before it can be killed")


def race(job: Job, folder: Path) -> str:
    """Start a job twice simultaneously; return the problem with the two exits, an empty string if there is none.

    One process does the work; the other reports the process that holds the lock, or finds the work done.
    """
    with started(job, folder) as first, started(job, folder) as second:
        codes = sorted(process.wait(TIMEOUT_SECONDS) for process in (first, second))
    output = output_of(folder)
    if codes == [0, 0] and "Nothing was done" in output:
        return ""
    if codes == [0, 2] and re.search(r"is being written by process \d+ on ", output):
        return ""
    return f"exit codes {codes}:\n{output}"


# -- the studies -----------------------------------------------------------------------------------------
def faults() -> tuple[Rows, str]:
    """Kill commands at random times, and run them again; resume from the trials of an earlier run."""
    rows, cells = [], []
    for name, kills in KILLS.items():
        of_job = _resumed(WORK / "faults", name, kills, _killed)
        rows += of_job
        cells.append(
            {
                "command": name,
                "trials": str(len(of_job)),
                "went on by itself": str(sum(r["again"] == 0 for r in of_job)),
                "same bytes": str(sum(r["equal"] for r in of_job)),
                "nothing left behind": str(sum(not r["left"] for r in of_job)),
                "lines of progress twice, most": str(max(r["repeated"] for r in of_job)),
                "of them saved before": str(sum(r["lost"] for r in of_job)),
            }
        )
    note = (
        "Each command is killed (SIGKILL to it and its children) at a time drawn uniformly from its writing time, and "
        "run again; its artifacts are compared by sha256 with those of an uninterrupted run."
    )
    return rows, f"{note}\n\n{table(cells)}"


def races() -> tuple[Rows, str]:
    """Start a command twice simultaneously, repeatedly; resume from the pairs of an earlier run."""
    rows = _resumed(WORK / "races", RACE, RACES, _raced)
    return rows, (
        f"`{RACE}` was started twice simultaneously {len(rows)} times. {sum(not r['wrong'] for r in rows)} times one "
        "process did the work, and the other reported the holder of the lock or found the work done; "
        f"{sum(r['equal'] for r in rows)} times the artifacts equal those of an uninterrupted run, by sha256; "
        f"{sum(not r['left'] for r in rows)} times no temporary files remained."
    )


Make = Callable[[Job, Path, int, int], Iterator[dict[str, Any]]]


def _resumed(work: Path, name: str, count: int, make: Make) -> list[dict[str, Any]]:
    """Return a job's rows: those in its journal, and the missing ones from new trials."""
    folder = work / "trials"
    with Journal.opened(work / f"{name}.jsonl", count) as journal, render.lines(name) as line:
        rows = journal.records
        shutil.rmtree(folder, ignore_errors=True)
        if len(rows) < count:
            for row in make(JOBS[name], folder, count - len(rows), len(rows)):
                journal.append(row)
                line(f"{len(rows)}/{count} {name}: {'sound' if row['sound'] else row}")
        shutil.rmtree(folder, ignore_errors=True)
        return rows


def _killed(job: Job, folder: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    for one in trials(job, folder, count, (signal.SIGKILL,), seed):
        yield {**vars(one), "left": " ".join(one.left), "sound": one.sound}


def _raced(job: Job, folder: Path, count: int, _: int) -> Iterator[dict[str, Any]]:
    expected, _took = uninterrupted(job, folder / "uninterrupted")
    for i in range(count):
        pair = folder / f"{i}"
        prepare(job, pair)
        wrong, left, equal = race(job, pair), " ".join(leftovers(pair)), artifact_digests(pair) == expected
        yield {"job": job.name, "wrong": wrong, "equal": equal, "left": left, "sound": equal and not wrong + left}
        shutil.rmtree(pair)
