"""System limits: full disks, read-only folders, exhausted memory, clocks set back, simultaneous commands."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest

from lissnas import artifacts
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.core.errors import UserError
from tests.robustness.faults import JOBS, QUICK, Job, artifact_digests, leftovers, prepare, race, uninterrupted

FORK = multiprocessing.get_context("fork")
LONG = pytest.mark.faults


def limited(folder: Path, kind: int, limit: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `lissnas` under a resource limit of the operating system."""
    return subprocess.run(
        [sys.executable, "-m", "lissnas.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )


WORDS = ("shrink", "--benchmark", "nas_bench_macro", "--target-size", "300", "--label-budget", "60", "--out", "out")


def clean(folder: Path) -> list[str]:
    """Return the remaining files of a failed run, except locks."""
    return sorted(p.name for p in folder.rglob("*") if not p.name.endswith(".lock"))


@pytest.mark.parametrize("limit", [pytest.param(0, marks=LONG), 4096, pytest.param(20_000, marks=LONG)])
def test_full_disk_is_reported_and_leaves_no_partial_files(tmp_path: Path, limit: int) -> None:
    done = limited(tmp_path, resource.RLIMIT_FSIZE, limit, *WORDS)
    assert done.returncode == 1, done.stderr
    # joblib also warns that it can't create a semaphore.
    lines = [line for line in done.stderr.splitlines() if "joblib" not in line]
    assert re.fullmatch(r"error: File too large \(.*out.*\)", "\n".join(lines)), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert not [name for name in clean(tmp_path) if artifacts.WRITING in name]
    again = limited(tmp_path, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY, *WORDS)
    assert again.returncode == 0, again.stderr
    assert artifacts.verify(tmp_path / "out")
    assert [name for name in clean(tmp_path) if name.startswith(".")] == []


@pytest.mark.faults
def test_exhausted_memory_is_reported(tmp_path: Path) -> None:
    words = ("shrink", "--benchmark", "nasbench101", "--target-size", "13000", "--threads", "1", "--out", "out")
    done = limited(tmp_path, resource.RLIMIT_AS, 900 << 20, *words)
    assert done.returncode == 1
    assert "error: out of memory; --memory limits the memory of a shrink" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def as_nobody(work: Callable[[], Any], result: Any) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        work()
        result.put("done")
    except Exception as error:
        result.put(f"{type(error).__name__}: {error}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_read_only_folder_is_reported(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    for part in (tmp_path, *tmp_path.parents):
        if part.owner() == "root" and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o055)

    def work() -> None:
        with artifacts.locked(closed / "out"):
            pass

    result = FORK.Queue()
    child = FORK.Process(target=as_nobody, args=(work, result))
    child.start()
    message = result.get(timeout=30)
    child.join()
    assert message == f"UserError: can't write to {closed}: Permission denied"
    assert list(closed.iterdir()) == []


def test_clock_set_back_does_not_change_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lissnas import benchmarks, config
    from lissnas.shrinkers.problem import Source
    from lissnas.stages.shrink import shrink_stage

    params = config.load(None, {"shrink.target_size": 100, "shrink.labels": 60}, benchmarks.names())
    source = Source.of(benchmarks.get("nas_bench_macro"))
    shrink_stage(params, source, 0, tmp_path / "a", threads=1)
    now = [time.time()]

    def back() -> float:
        now[0] -= 3600.0
        return now[0]

    monkeypatch.setattr(time, "time", back)
    shrink_stage(params, source, 0, tmp_path / "b", threads=1)
    assert artifacts.verify(tmp_path / "a") == artifacts.verify(tmp_path / "b")


# -- simultaneous commands -------------------------------------------------------------------------
@pytest.mark.parametrize(("job", "races"), [(QUICK, 1), pytest.param(JOBS["compare"], 3, marks=LONG)])
def test_simultaneous_commands_work_once_and_report_the_lock(job: Job, races: int, tmp_path: Path) -> None:
    expected, _ = uninterrupted(job, tmp_path / "uninterrupted")
    for i in range(races):
        folder = tmp_path / str(i)
        prepare(job, folder)
        assert race(job, folder) == ""
        assert artifact_digests(folder) == expected
        assert leftovers(folder) == []


def test_lock_of_a_dead_process_is_released(tmp_path: Path) -> None:
    def hold() -> None:
        with artifacts.locked(tmp_path / "out"):
            os.kill(os.getpid(), 9)

    child = FORK.Process(target=hold)
    child.start()
    child.join(30)
    assert (tmp_path / ".out.lock").exists()
    with artifacts.locked(tmp_path / "out"):
        second = artifacts.locked(tmp_path / "out")
        with pytest.raises(UserError, match=f"written by process {os.getpid()} on .* since"), second:
            pass


def test_holder_of_a_new_lock_is_awaited(tmp_path: Path) -> None:
    lock, holder = filelock.FileLock(tmp_path / ".out.lock"), tmp_path / ".out.holder"
    with lock:
        with pytest.raises(UserError, match=r"written by another process\."), artifacts.locked(tmp_path / "out"):
            pass
        holder.touch()
        timer = threading.Timer(0.3, holder.write_text, ["process 1 on there since then\n"])
        timer.start()
        with (
            pytest.raises(UserError, match=r"written by process 1 on there since then\."),
            artifacts.locked(tmp_path / "out"),
        ):
            pass
        timer.join()


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    artifacts.publish(out, {"a.json": b"1"})
    litter = [
        tmp_path / f".out{artifacts.WRITING}abcd_123" / "out" / "a.json",
        out / f".a.json{artifacts.WRITING}abcd_123",
        tmp_path / ".out.checkpoint" / f".state.npz{artifacts.WRITING}abcd_123",
    ]
    others = [
        tmp_path / f".other{artifacts.WRITING}abcd_123",
        tmp_path / f".outer{artifacts.WRITING}abcd_123",
        out / "mine.writing-x",
    ]
    for path in (*litter, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"torn")
    with artifacts.locked(out):
        assert not any(path.exists() for path in litter)
        assert all(path.exists() for path in others)
        assert (out / "a.json").read_bytes() == b"1"


@pytest.mark.parametrize(("force", "extends"), [(False, False), (False, True), (True, False)])
def test_force_discards_checkpoints(tmp_path: Path, force: bool, extends: bool) -> None:
    """Without `force`, an interrupted run resumes, also if it extends a result; checkpoints are removed at the end."""
    out = tmp_path / "result"
    kept = artifacts.resume_folders(out)
    found: list[bool] = []

    def work() -> dict[str, bytes]:
        found.extend(place.exists() for place in kept)
        return {"metrics.json": b"{}"}

    if force or extends:
        run(out, {"networks": 1}, work, force=False)
        found.clear()
    for place in kept:
        (place / "state").mkdir(parents=True)
    assert not run(out, {"networks": 2}, work, force, extends=extends).reused
    assert found == [not force] * 2
    assert not any(place.exists() for place in kept)


def test_checkpoint_of_a_finished_run_is_removed(tmp_path: Path) -> None:
    """A run was killed after it wrote its result and before it removed its checkpoint."""
    out, parameters = tmp_path / "out", {"seed": 0}

    def made() -> Outcome:
        return run(out, parameters, lambda: {"metrics.json": b"{}"}, force=False)

    assert not made().reused
    artifacts.Checkpoint(out, parameters).save({"rows": np.zeros(3)}, {"iteration": 1})
    assert [*tmp_path.glob(".*.checkpoint")] != []
    assert made().reused
    assert [*tmp_path.glob(".*.checkpoint")] == []
