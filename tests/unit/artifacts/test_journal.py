"""Journals, which store labels, oracle answers, finished tasks, studies, and results still to be logged to MLflow."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lissnas.artifacts.journal import TASKS, Journal, Others
from lissnas.artifacts.verification import verified
from lissnas.core.errors import DamagedFile, UserError

ROWS: list[dict[str, Any]] = [{"b": 1, "a": "ü\n"}, {"x": [0.1, None]}]


def reread(path: Path, parameters: object = "p", others: Others = "refuse") -> list[dict[str, Any]]:
    with Journal.opened(path, parameters, others) as journal:
        return journal.records


def write_journal(path: Path) -> Path:
    with Journal.opened(path, "p") as journal:
        for row in ROWS:
            journal.append(row)
        assert journal.records == ROWS
    return path


def test_records_are_read_back_with_their_keys_in_order(tmp_path: Path) -> None:
    found = reread(write_journal(tmp_path / "j"))
    assert found == ROWS
    assert [list(row) for row in found] == [list(row) for row in ROWS]


def test_incomplete_last_line_is_removed(tmp_path: Path) -> None:
    path = write_journal(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    assert reread(path) == ROWS[:1]
    with Journal.opened(path, "p") as journal:
        journal.append(ROWS[1])
    assert path.read_bytes() == whole


def test_journal_of_other_parameters_is_refused_kept_or_replaced(tmp_path: Path) -> None:
    path = write_journal(tmp_path / "j")
    with pytest.raises(UserError, match="j holds records of other parameters"):
        reread(path, "q")
    assert reread(path) == ROWS
    before = path.read_bytes()
    assert reread(path, "q", "keep") == ROWS
    assert path.read_bytes() == before
    assert reread(path, "q", "replace") == []
    assert reread(path, "q") == []


def test_records_appended_together_are_all_there_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.opened(tmp_path / "j", "p") as journal:
        journal.append(*ROWS)
        before = (tmp_path / "j").read_bytes()

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                journal.append(*ROWS)
        assert journal.records == ROWS
    assert (tmp_path / "j").read_bytes() == before
    assert reread(tmp_path / "j") == ROWS


def test_flipped_bit_is_found_by_reading_and_by_verify(tmp_path: Path) -> None:
    path = write_journal(tmp_path / ".out.tasks" / TASKS)
    (intact,) = verified(path.parent)
    assert (intact.kind, intact.damages) == ("task log", ())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedFile, match=r"line 3 of .*Delete that line; its entry is made again"):
        reread(path)
    (damaged,) = verified(tmp_path / "out")
    assert "line 3" in str(damaged.damages[0])


def test_waiting_process_opens_the_journal_once_it_is_released(tmp_path: Path) -> None:
    path, free = tmp_path / "j", threading.Event()

    def hold() -> None:
        with Journal.opened(path, "p") as journal:
            free.wait(10)
            journal.append(ROWS[0])

    holder = threading.Thread(target=hold)
    holder.start()
    while not path.exists():
        time.sleep(0.01)
    with pytest.raises(UserError, match="is being written by process"):
        reread(path)
    free.set()
    with Journal.opened(path, "p", wait=10.0) as journal:
        assert journal.records == ROWS[:1]
    holder.join()


def test_folder_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; expected a file of records"):
        reread(tmp_path)
