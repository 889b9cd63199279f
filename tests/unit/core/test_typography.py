"""Quotes, dashes and spaces pasted from a document are named in the message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from lissnas.core.errors import UserError
from lissnas.core.typography import pasted
from lissnas.oracles.command import split_command
from lissnas.oracles.label_table import read_labels
from lissnas.spaces.declared import parse_space

YAML = """\
name: s
metric: {name: acc, direction: maximize}
positions:
  - {name: a, choices: [1, 2, 3, 4, 5]}
  - {name: b, choices: [x-1, y, z]}
"""
SPACE = parse_space(YAML, "space.yaml")
ROWS = [f"{a},{b},{80 + a + len(b)}" for a in range(1, 6) for b in ("x-1", "y", "z")]
LABELS = "\n".join(["a,b,acc", *ROWS]) + "\n"
FROM_DOCUMENT = r"\(U\+{0}\), as pasted from a document; "


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("python “train.py”", "201C"),
        ("“python train.py”", "201C"),
        ("python –u train.py", "2013"),
        ("python —version", "2014"),
        ("python\u00a0train.py", "00A0"),
        ("python train.py --name ‘a b’", "2018"),
        ("python train.py\u200b", "200B"),
    ],
)
def test_commands_are_refused_with_the_character(text: str, code: str) -> None:
    with pytest.raises(UserError, match=r"--oracle-command: .* has .*" + FROM_DOCUMENT.format(code)):
        split_command(text, "--oracle-command")


def test_typographic_characters_in_quotes_and_in_names_of_files_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run–1.py").touch()
    assert split_command("python run–1.py", "x") == ("python", "run–1.py")
    assert split_command("python -c 'print(“é”)'", "x") == ("python", "-c", "print(“é”)")


@pytest.mark.parametrize(
    ("change", "line", "code"),
    [
        (lambda t: t.replace("name: s\n", "name: “s”\n"), 1, "201C"),
        (lambda t: t.replace("metric: ", "metric:\u00a0"), 2, "00A0"),
        (lambda t: t.replace("  - {name: b", "\u00a0\u00a0- {name: b"), 5, "00A0"),
        (lambda t: t.replace("  - {name: b", "  – {name: b"), 5, "2013"),
        (lambda t: t.replace("name: b", "name: b\u200b"), 5, "200B"),
        (lambda t: t.replace("y, z", "“y”, z"), 5, "201C"),
        (lambda t: t + "constraints:\n  - {forbid: {b: x–1}}\n", 7, "2013"),
        (lambda t: t + "costs:\n  flops: {base: −2}\n", 7, "2212"),
    ],
)
def test_declarations_are_refused_with_the_character(change: Callable[[str], str], line: int, code: str) -> None:
    with pytest.raises(UserError, match=rf"line {line}: .*" + FROM_DOCUMENT.format(code)):
        parse_space(change(YAML), "space.yaml")


@pytest.mark.parametrize(
    ("change", "line", "code"),
    [
        (lambda t: t.replace("x-1", "x–1"), 2, "2013"),
        (lambda t: t.replace(",y,", ",“y”,"), 3, "201C"),
        (lambda t: t.replace("a,b,acc", "a,b,“acc”"), 1, "201C"),
        (lambda t: t.replace("a,b,acc", "“a”,“b”,acc"), 1, "201C"),
        (lambda t: t.replace(",82", ",–82"), 3, "2013"),
        (lambda t: t.replace(",82", ",“82”"), 3, "201C"),
    ],
)
def test_labels_are_refused_with_the_character(
    change: Callable[[str], str], line: int, code: str, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(change(LABELS))
    with pytest.raises(UserError, match=rf"labels\.csv:{line}: .*" + FROM_DOCUMENT.format(code)):
        read_labels(path, SPACE)


def test_typographic_minus_signs_and_spaces_around_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(re.sub(r",(\d+)$", "\u00a0,\u2212\\1e\u22121\u00a0", LABELS, flags=re.MULTILINE))
    labels = read_labels(path, SPACE, min_labels=0)
    assert sorted(labels.values.tolist()) == sorted(-float(row.split(",")[2]) / 10 for row in ROWS)
    assert "typographic minus signs of acc read as -" in labels.describe()


def test_characters_of_valid_names_are_not_reported() -> None:
    assert pasted("x–1", ["y–2"]) == ""
    assert pasted("plain - 'text' \"é\"") == ""
