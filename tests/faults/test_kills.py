"""Commands killed at random instants go on, to the same bytes; `make study NAME=faults` is the long form."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from flows.study_faults import JOBS, trials

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT)


@pytest.mark.parametrize(("name", "kills"), [("shrink", 3), ("compare", 2), ("search", 2), ("label", 1)])
def test_killed_at_random_it_goes_on_to_the_same_bytes(name: str, kills: int, tmp_path: Path) -> None:
    found = list(trials(JOBS[name], tmp_path, kills, SIGNALS))
    assert len(found) == kills
    assert [one for one in found if not one.sound] == []
    for one in found:
        # A signal that is not SIGKILL has an exit code of its own, unless the command was about to end.
        assert one.code in (-signal.Signals[one.signal], 128 + signal.Signals[one.signal], 0)
