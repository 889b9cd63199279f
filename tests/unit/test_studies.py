"""The command line of the studies: rows and page of the named study, an error for an unknown name."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studies.run import run_study, table

ROWS = [{"space": "a", "size": 3}, {"space": "b", "size": 4}]


def study(name: str) -> int:
    """Run a study in the current folder; return the exit code."""
    sys.argv = ["studies", "--name", name]
    with pytest.raises(SystemExit) as ended:
        run_study({"small": lambda: (ROWS, table({k: str(v) for k, v in row.items()} for row in ROWS))})
    return int(ended.value.code or 0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_study_writes_rows_and_page(tmp_path: Path) -> None:
    assert study("small") == 0
    assert (tmp_path / "studies/results/small.csv").read_text() == '"space","size"\n"a",3\n"b",4\n'
    first, *rest = (tmp_path / "studies/results/small.md").read_text().splitlines()
    assert first.startswith("Made by `make study NAME=small` on ")
    assert rest == ["", "| space | size |", "| --- | --- |", "| a | 3 |", "| b | 4 |"]


def test_unknown_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study("smal") == 2
    assert "Did you mean 'small'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
