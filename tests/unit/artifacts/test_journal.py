"""The journal that labels, answers, finished tasks, results that wait for MLflow and studies are kept in."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lissnas.artifacts.journal import TASKS, Journal
from lissnas.artifacts.verification import verified
from lissnas.core.errors import DamagedFile, UserError

ROWS: list[dict[str, Any]] = [{"b": 1, "a": "ü\n"}, {"x": [0.1, None]}]


def reread(path: Path, parameters: object = "p", restart: bool = False) -> list[dict[str, Any]]:
    with Journal.opened(path, parameters, restart) as journal:
        return journal.records


def written(path: Path) -> Path:
    with Journal.opened(path, "p") as journal:
        for row in ROWS:
            journal.append(row)
        assert journal.records == ROWS
    return path


def test_records_come_back_with_their_keys_in_order(tmp_path: Path) -> None:
    found = reread(written(tmp_path / "j"))
    assert found == ROWS
    assert [list(row) for row in found] == [list(row) for row in ROWS]


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    assert reread(path) == ROWS[:1]
    with Journal.opened(path, "p") as journal:
        journal.append(ROWS[1])
    assert path.read_bytes() == whole


def test_other_parameters_are_refused_or_start_from_scratch(tmp_path: Path) -> None:
    path = written(tmp_path / "j")
    with pytest.raises(UserError, match="j holds records of other parameters"):
        reread(path, "q")
    assert reread(path) == ROWS
    assert reread(path, "q", restart=True) == []
    assert reread(path, "q") == []


def test_a_flipped_bit_is_damage_and_verify_names_it(tmp_path: Path) -> None:
    path = written(tmp_path / ".out.tasks" / TASKS)
    (sound,) = verified(path.parent)
    assert (sound.kind, sound.damages) == ("task log", ())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DamagedFile, match=r"line 3 of .*Delete that line, and its entry is made again"):
        reread(path)
    (damaged,) = verified(tmp_path / "out")
    assert "line 3" in str(damaged.damages[0])


def test_who_waits_gets_it_when_it_is_free(tmp_path: Path) -> None:
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


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, where a file of records belongs"):
        reread(tmp_path)
