"""Disks that are full, folders that may not be written to, memory that ends, clocks that go back, two at once."""

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
from tests.robustness.faults import JOBS, QUICK, Job, left_in, leftovers, prepare, race, undisturbed

FORK = multiprocessing.get_context("fork")
LONG = pytest.mark.faults


def limited(folder: Path, kind: int, most: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `lissnas` under a limit of the system's."""
    return subprocess.run(
        [sys.executable, "-m", "lissnas.cli", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(kind, (most, most)),
    )


WORDS = ("shrink", "--benchmark", "nas_bench_macro", "--target-size", "300", "--label-budget", "60", "--out", "out")


def clean(folder: Path) -> list[str]:
    """What is left of a run that failed, beside its lock."""
    return sorted(p.name for p in folder.rglob("*") if not p.name.endswith(".lock"))


@pytest.mark.parametrize("most", [pytest.param(0, marks=LONG), 4096, pytest.param(20_000, marks=LONG)])
def test_a_disk_that_is_full_is_named_and_nothing_is_torn(tmp_path: Path, most: int) -> None:
    done = limited(tmp_path, resource.RLIMIT_FSIZE, most, *WORDS)
    assert done.returncode == 1, done.stderr
    # joblib warns before that it makes no semaphore.
    said = [line for line in done.stderr.splitlines() if "joblib" not in line]
    assert re.fullmatch(r"error: File too large \(.*out.*\)", "\n".join(said)), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert not [name for name in clean(tmp_path) if artifacts.WRITING in name]
    again = limited(tmp_path, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY, *WORDS)
    assert again.returncode == 0, again.stderr
    assert artifacts.verify(tmp_path / "out")
    assert [name for name in clean(tmp_path) if name.startswith(".")] == []


@pytest.mark.faults
def test_memory_that_ends_is_said(tmp_path: Path) -> None:
    words = ("shrink", "--benchmark", "nasbench101", "--target-size", "13000", "--threads", "1", "--out", "out")
    done = limited(tmp_path, resource.RLIMIT_AS, 900 << 20, *words)
    assert done.returncode == 1
    assert "error: out of memory; --memory limits the memory of a shrink" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def as_nobody(work: Callable[[], Any], answer: Any) -> None:
    os.setgid(65534)
    os.setuid(65534)
    try:
        work()
        answer.put("done")
    except Exception as error:
        answer.put(f"{type(error).__name__}: {error}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o755)
    for part in (tmp_path, *tmp_path.parents):
        if part.owner() == "root" and part != Path("/"):
            part.chmod(part.stat().st_mode | 0o055)

    def work() -> None:
        with artifacts.locked(closed / "out"):
            pass

    answer = FORK.Queue()
    child = FORK.Process(target=as_nobody, args=(work, answer))
    child.start()
    said = answer.get(timeout=30)
    child.join()
    assert said == f"UserError: can't write to {closed}: Permission denied"
    assert list(closed.iterdir()) == []


def test_a_clock_that_goes_back_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- two at once -----------------------------------------------------------------------------------
@pytest.mark.parametrize(("job", "races"), [(QUICK, 1), pytest.param(JOBS["compare"], 3, marks=LONG)])
def test_two_at_once_one_works_the_other_says_who_holds_the_lock(job: Job, races: int, tmp_path: Path) -> None:
    expected, _ = undisturbed(job, tmp_path / "undisturbed")
    for i in range(races):
        folder = tmp_path / str(i)
        prepare(job, folder)
        assert race(job, folder) == ""
        assert left_in(folder) == expected
        assert leftovers(folder) == []


def test_a_lock_whose_owner_is_dead_is_free(tmp_path: Path) -> None:
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


def test_who_has_just_taken_a_lock_has_time_to_say_so(tmp_path: Path) -> None:
    lock, holder = filelock.FileLock(tmp_path / ".out.lock"), tmp_path / ".out.holder"
    with lock:
        with pytest.raises(UserError, match="written by another process;"), artifacts.locked(tmp_path / "out"):
            pass
        holder.touch()
        timer = threading.Timer(0.3, holder.write_text, ["process 1 on there since then\n"])
        timer.start()
        with (
            pytest.raises(UserError, match="written by process 1 on there since then;"),
            artifacts.locked(tmp_path / "out"),
        ):
            pass
        timer.join()


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    artifacts.publish(out, {"a.json": b"1"})
    litter = [
        tmp_path / f".out{artifacts.WRITING}x" / "out" / "a.json",
        out / f".a.json{artifacts.WRITING}x",
        tmp_path / ".out.checkpoint" / f".state.npz{artifacts.WRITING}x",
    ]
    others = [
        tmp_path / f".other{artifacts.WRITING}x",
        tmp_path / f".outer{artifacts.WRITING}x",
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
def test_who_is_told_to_begin_anew_goes_on_from_nothing(tmp_path: Path, force: bool, extends: bool) -> None:
    """But who extends a result does, where it was interrupted; in the end nothing is left."""
    out = tmp_path / "result"
    kept = artifacts.kept_beside(out)
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


def test_a_checkpoint_that_outlived_its_run_goes(tmp_path: Path) -> None:
    """A run that is killed once it has published, before it has cleared away."""
    out, parameters = tmp_path / "out", {"seed": 0}

    def made() -> Outcome:
        return run(out, parameters, lambda: {"metrics.json": b"{}"}, force=False)

    assert not made().reused
    artifacts.Checkpoint(out, parameters).save({"rows": np.zeros(3)}, {"iteration": 1})
    assert [*tmp_path.glob(".*.checkpoint")] != []
    assert made().reused
    assert [*tmp_path.glob(".*.checkpoint")] == []
