"""Commands killed at random times resume to the same bytes: short form of `make study NAME=faults`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from tests.robustness import faults as study_faults
from tests.robustness.faults import JOBS, QUICK, Job, trials

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)


KILLS = (("shrink", 3), ("compare", 2), ("search", 2), ("label", 1))
LONG = [pytest.param(JOBS[name], kills, marks=pytest.mark.faults, id=name) for name, kills in KILLS]


@pytest.mark.parametrize(("job", "kills"), [pytest.param(QUICK, 1, id="quick"), *LONG])
def test_killed_command_resumes_to_the_same_bytes(job: Job, kills: int, tmp_path: Path) -> None:
    found = list(trials(job, tmp_path, kills, SIGNALS))
    assert len(found) == kills
    assert [one for one in found if not one.sound] == []
    for one in found:
        # Other signals than SIGKILL have exit code 128 + number, unless the command was about to exit.
        assert one.code in (-signal.Signals[one.signal], 128 + signal.Signals[one.signal], 0)


def test_interrupted_study_runs_only_missing_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def raced(job: Job, folder: Path, count: int, done: int) -> Iterator[dict[str, Any]]:
        for i in range(done, done + count):
            made.append(i)
            if made == [0, 1, 2]:
                raise KeyboardInterrupt
            yield {"job": job.name, "wrong": "torn" if i == 3 else "", "equal": True, "left": "", "sound": i != 3}

    monkeypatch.setattr(study_faults, "_raced", raced)
    monkeypatch.setattr(study_faults, "WORK", tmp_path)
    with pytest.raises(KeyboardInterrupt):
        study_faults.races()
    rows, page = study_faults.races()
    assert made == [0, 1, 2, *range(2, 100)]
    assert [row["wrong"] for row in rows] == ["", "", "", "torn"] + [""] * 96
    assert "started twice simultaneously 100 times. 99 times one process did" in page
