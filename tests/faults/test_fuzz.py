"""Fuzz readers for a few seconds: short form of `make study NAME=fuzz`, which takes half an hour."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="there is no atheris for this system")
pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from tests.robustness.fuzz import fuzz_page, fuzzed

pytestmark = pytest.mark.faults


def test_label_reader_handles_fuzzed_inputs(tmp_path: Path) -> None:
    row = fuzzed("parquet", tmp_path, 10)
    assert row["harm"] == ""
    assert row["inputs"] > 100
    assert len(list((tmp_path / "parquet").iterdir())) > 1  # inputs that reached new branches
    assert f"| parquet | 10 | {row['inputs']:,} |" in fuzz_page([row])


def test_harmful_input_is_found_and_shown(tmp_path: Path) -> None:
    row = fuzzed("harmful", tmp_path, 60, "tests.faults.fuzz_harmful")
    assert re.fullmatch(r"RuntimeError: a dollar at b'.*\$.*'", row["harm"])
    assert "RuntimeError: a dollar" in fuzz_page([row])
