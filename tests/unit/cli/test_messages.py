"""Error messages word by word: `messages.yaml` is both the table of cases and the source of the reference page."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.pipeline.harness import lissnas_here

TOPICS = YAML(typ="safe").load(Path(__file__).with_name("messages.yaml"))
BOX = re.compile(r"[╭╰].*|│ (.*?) *│")
"""The frame around what is wrong with an option."""
CASES = [pytest.param(case, id=case["about"]) for topic in TOPICS for case in topic["cases"]]


def printed(folder: Path, case: dict[str, Any]) -> tuple[int | None, str]:
    """Return the exit code and the message of a case that is run in a folder."""
    for name in ("space.yaml", "labels.csv"):
        text = (files("lissnas") / "example" / name).read_text()
        old, new = case.get("change", {}).get(name, ("", ""))
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))
    for name, text in case.get("write", {}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    done = lissnas_here(folder, *shlex.split(case["run"]))
    lines = [BOX.sub(r"\1", line).rstrip() for line in done.err.replace(str(folder), ".").splitlines()]
    return done.code, "\n".join(line for line in lines if line)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LISSNAS_DATA", str(tmp_path / "imported"))
    monkeypatch.setenv("TERMINAL_WIDTH", "500")
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("case", CASES)
def test_message_is_printed_word_by_word(case: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    code, message = printed(folder, case)
    assert message == case["message"].strip()
    assert code == case.get("code", 2)
    left = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert left == {"space.yaml", "labels.csv", *(name.partition("/")[0] for name in case.get("write", {}))}


def test_every_message_names_a_fix() -> None:
    """A message says more than that something is wrong; the table has some fifty of them, each of its own."""
    messages = [case["message"] for topic in TOPICS for case in topic["cases"]]
    assert len(messages) >= 50
    assert len({*messages}) == len(messages)
