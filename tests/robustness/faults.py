"""The studies of faults: commands killed at random instants and started again, commands started twice at once.

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
from lissnas.stages.compare import BEFORE
from studies.huge import LISSNAS
from studies.run import WORK, Rows, table

BENCHMARK = "nas_bench_macro"
SECONDS: Mapping[str, Any] = {
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
"""Parameters with which shrinks, trainings and searches take seconds; the tests begin with them too."""
EVERY_FEW_STEPS = {"batch_size": 16, "checkpoint_every": 4, "report_every": 4, "warmup": 2}
SMALL: Mapping[str, Any] = {
    **SECONDS,
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
"""The same for the jobs here, with checkpoints every few steps."""
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
"""How a line of progress begins."""
SERVERS = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
"""Variables that a job does without: it has servers of its own."""
SAID = "said.log"
"""What a job prints, in its folder."""
SAVED = (artifacts.STATE, artifacts.MANIFEST, LOG, TASKS)
"""Files that are written when there is something to go on from."""
PATIENCE = 600.0
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Job:
    """A command that leaves artifacts below `out`."""

    name: str
    words: tuple[str, ...]
    needs_shrunk: bool = False
    """Whether it reads a shrunk space, in the folder `given`."""
    repository: bool = False
    """Whether it runs in a repository of DVC's."""


PARAMS, OUT = ("--params", "params.yaml"), ("--out", "data/out")
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
"""What `make test` kills and starts twice."""
KILLS = {"shrink": 25, "compare": 20, "search": 30, "label": 10, "nas": 8, "reproduce": 7}
"""How often the study kills each; `search` trains a supernet, searches, and retrains."""
RACE = "compare"
RACES = 100
"""A command that is started twice at once, and how often."""


def prepare(job: Job, folder: Path) -> None:
    """Make the folder in which a job runs."""
    folder.mkdir(parents=True)
    values = config.load(None, SMALL, benchmarks.names()).model_dump(mode="json")
    artifacts.write(folder / "params.yaml", artifacts.to_json(values))
    if job.needs_shrunk:
        code, said = run(SHRUNK, folder)
        if code:
            raise LissnasError(f"{SHRUNK.name} ended with code {code}:\n{said}")
    if job.repository:
        artifacts.write(folder / "dvc.yaml", STAGES.encode())
        for command in (("git", "init", "-q"), (sys.executable, "-m", "dvc", "init", "-q")):
            subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def started(job: Job, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job in a session of its own, so that all of its processes can be killed as a machine's death would.

    Whatever is left of it at the end is killed.
    """
    root, programs = str(Path(__file__).parents[2]), Path(sys.executable).parent
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": root, "COLUMNS": "200", "PATH": f"{programs}:{os.environ['PATH']}"}
    environment = {k: v for k, v in os.environ.items() if k not in SERVERS} | own
    with (folder / SAID).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, *job.words], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> int:
    """Kill a process and all that it started; return its exit code."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait(PATIENCE)


def run(job: Job, folder: Path) -> tuple[int, str]:
    """Run a job to its end; return the code it ended with, negative for a signal, and what it printed."""
    (folder / SAID).write_bytes(b"")
    with started(job, folder) as process:
        code = process.wait(PATIENCE)
    return code, said_in(folder)


def said_in(folder: Path) -> str:
    """Return what the jobs of a folder have printed."""
    return (folder / SAID).read_text(errors="replace")


@contextmanager
def begun(job: Job, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job; it has begun to write, or has ended, when this goes on."""
    with started(job, folder) as process:
        while process.poll() is None and not any((folder / place).exists() for place in ("data", ".dvc/tmp/rwlock")):
            time.sleep(0.005)
        yield process


def left_in(folder: Path) -> dict[str, str]:
    """Return the digest of every artifact below a folder; raises what is wrong with one."""
    found: dict[str, str] = {}
    for one in verified(folder / "data"):
        for damage in one.damages:
            raise damage
        manifest = artifacts.read_manifest(one.path) if one.path.is_dir() else None
        found |= {str((one.path / name).relative_to(folder)): digest for name, digest in (manifest or {}).items()}
    return found


def leftovers(folder: Path) -> list[str]:
    """Return what a finished job should have cleared away: states, and files that were being written."""
    return sorted(
        str(path.relative_to(folder))
        for path in (folder / "data").rglob("*")
        if artifacts.WRITING in path.name or path.name.endswith((".checkpoint", ".tasks"))
    )


def saved_at(folder: Path) -> int:
    """Return when a job last saved what a next one goes on from: a checkpoint, a label, a part, a result; 0 for never.

    In nanoseconds of the files' clock.
    """
    last = 0
    for path in (folder / "data").rglob("*"):
        with suppress(FileNotFoundError):
            last = max(last, path.stat().st_mtime_ns if path.name in SAVED else 0)
    return last


def steps(said: str) -> Counter[str]:
    """Return how often each line of progress was printed, without its times."""
    lines = (line.strip() for line in said.splitlines() if not line.endswith(BEFORE))
    return Counter(" ".join(line.split()[:4]) for line in lines if PROGRESS.match(line))


@dataclass(frozen=True)
class Trial:
    """A command killed at an instant, and what the same command made of it."""

    job: str
    signal: str
    seconds: float
    """After the command began to write."""
    code: int
    again: int
    equal: bool
    left: tuple[str, ...]
    repeated: int
    """Lines of progress that both runs printed: work done twice, since the last time that the first one saved."""
    lost: int
    """Those of them that the first run had printed before it last saved: there are none."""

    @property
    def sound(self) -> bool:
        """Whether it went on without help, to the same bytes, with one interval between saves done twice at most."""
        return self.again == 0 and self.equal and not self.left and self.lost == 0


def undisturbed(job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """Return the artifacts of a run that nobody disturbs, and the seconds from its first file to its end."""
    prepare(job, folder)
    with begun(job, folder) as process:
        first = time.monotonic()
        if code := process.wait(PATIENCE):
            raise LissnasError(f"{job.name} ended with code {code}:\n{said_in(folder)}")
        return left_in(folder), time.monotonic() - first


def trial(job: Job, folder: Path, seconds: float, how: signal.Signals, expected: Mapping[str, str]) -> Trial | None:
    """Kill a job so many seconds after it began to write, and run it again; None where it had ended by then."""
    prepare(job, folder)
    with begun(job, folder) as process:
        if (printed := _watched(process, folder, seconds)) is None:
            return None
        if how != signal.SIGKILL:
            process.send_signal(how)
            process.wait(PATIENCE)
        code, before = kill(process), said_in(folder)
    again, said = run(job, folder)
    equal = again == 0 and left_in(folder) == expected
    twice, lost = (sum((steps(lines) & steps(said)).values()) for lines in (before, before[:printed]))
    return Trial(job.name, how.name, seconds, code, again, equal, tuple(leftovers(folder)), twice, lost)


def _watched(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> int | None:
    """Wait so many seconds; return how many characters a job had printed when it last saved, None if it ended."""
    until, saved, printed, size = time.monotonic() + seconds, 0, 0, 0
    while process.poll() is None:
        if (now := saved_at(folder)) > saved:
            saved, printed = now, size  # as of the look before, so that nothing that came after it counts
        size = len(said_in(folder))
        if (left := until - time.monotonic()) <= 0:
            return printed
        time.sleep(min(left, 0.02))
    return None


def trials(job: Job, work: Path, kills: int, signals: Sequence[signal.Signals], seed: int = 0) -> Iterator[Trial]:
    """Yield so many trials of a job, at instants drawn uniformly from the time in which it writes."""
    expected, took = undisturbed(job, work / "undisturbed")
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
        raise LissnasError(f"{job.name} ends before it can be killed")


def race(job: Job, folder: Path) -> str:
    """Start a job twice at once; return what is wrong with how the two ended, nothing where all is well.

    One does the work; the other says who holds the lock, or finds the work done.
    """
    with started(job, folder) as first, started(job, folder) as second:
        codes = sorted(process.wait(PATIENCE) for process in (first, second))
    said = said_in(folder)
    if codes == [0, 0] and "Nothing was done" in said:
        return ""
    if codes == [0, 2] and re.search(r"is being written by process \d+ on ", said):
        return ""
    return f"exit codes {codes}:\n{said}"


# -- the studies -----------------------------------------------------------------------------------------
def faults() -> tuple[Rows, str]:
    """Kill commands at random instants, and run them again; kills of an earlier run count."""
    rows, cells = [], []
    for name, kills in KILLS.items():
        own = _kept(WORK / "faults", name, kills, _killed)
        rows += own
        cells.append(
            {
                "command": name,
                "trials": str(len(own)),
                "went on by itself": str(sum(r["again"] == 0 for r in own)),
                "same bytes": str(sum(r["equal"] for r in own)),
                "nothing left behind": str(sum(not r["left"] for r in own)),
                "lines of progress twice, most": str(max(r["repeated"] for r in own)),
                "of them saved before": str(sum(r["lost"] for r in own)),
            }
        )
    said = (
        "Each command is killed (SIGKILL to it and all it started) at an instant drawn uniformly from the time in "
        "which it writes, and run again; artifacts are compared by sha256 with those of an undisturbed run."
    )
    return rows, f"{said}\n\n{table(cells)}"


def races() -> tuple[Rows, str]:
    """Start a command twice at once, again and again; pairs of an earlier run count."""
    rows = _kept(WORK / "races", RACE, RACES, _raced)
    return rows, (
        f"`{RACE}` was started twice at once {len(rows)} times. {sum(not r['wrong'] for r in rows)} times one did the "
        "work, and the other said who holds the lock or found the work done; "
        f"{sum(r['equal'] for r in rows)} times the artifacts were those of an undisturbed run, by sha256; "
        f"{sum(not r['left'] for r in rows)} times nothing was left behind."
    )


Make = Callable[[Job, Path, int, int], Iterator[dict[str, Any]]]


def _kept(work: Path, name: str, count: int, make: Make) -> list[dict[str, Any]]:
    """Return a job's rows from its journal, and those that it lacks from trials made now."""
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
    expected, _took = undisturbed(job, folder / "undisturbed")
    for i in range(count):
        own = folder / f"{i}"
        prepare(job, own)
        wrong, left, equal = race(job, own), " ".join(leftovers(own)), left_in(own) == expected
        yield {"job": job.name, "wrong": wrong, "equal": equal, "left": left, "sound": equal and not wrong + left}
        shutil.rmtree(own)
