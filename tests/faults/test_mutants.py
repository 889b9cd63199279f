"""The study of mutants tells a test that notices a change from one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lissnas.core.errors import LissnasError
from tests.robustness.mutants import check_tests, mutants, mutants_page, trier

CODE = """\
from __future__ import annotations


def longer(first: list[int] | None, second: list[int]) -> bool:
    return len(first or []) + 1 > len(second)
"""
NOTICES = """\
from small import longer


def test_longer() -> None:
    assert longer([1], [2]) and longer(None, []) and not longer([], [1]) and not longer([1, 2], [1, 2, 3])
    assert longer([1, 2, 3], [1]) and not longer([1], [1, 2, 3, 4])
"""
SLEEPS = "def test_nothing() -> None:\n    import small\n"


@pytest.mark.parametrize(("test", "outcome"), [(NOTICES, "killed"), (SLEEPS, "survived")])
def test_what_a_test_makes_of_a_change(tmp_path: Path, test: str, outcome: str) -> None:
    (tmp_path / "small.py").write_text(CODE)
    (tmp_path / "test_small.py").write_text(test)
    found = mutants(tmp_path, 1000, core=("small.py",))
    assert {m.line for m in found} == {5}  # nothing evaluates the annotations of line 4
    some = [m for m in found if m.operator in ("core/ReplaceBinaryOperator_Add_Sub", "core/ReplaceOrWithAnd")]
    assert len(some) == 2
    name = test.partition("def ")[2].partition("(")[0]
    with trier(tmp_path) as tried:
        rows = [tried(one, [f"test_small.py::{name}"], 1.0) for one in some]
    assert [row["outcome"] for row in rows] == [outcome, outcome], rows
    assert (tmp_path / "small.py").read_text() == CODE
    page = mutants_page(rows, "Made here.")
    assert f"| all | 2 | {2 if outcome == 'killed' else 0} |" in page
    assert ("+    return len(first or []) - 1 > len(second)" in page) == (outcome == "survived")


def test_a_line_that_no_test_runs_is_not_noticed(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(CODE)
    with trier(tmp_path) as tried:
        row = tried(mutants(tmp_path, 1, core=("small.py",))[0], [], 0.0)
    assert (row["outcome"], row["tests"]) == ("survived", 0)


def test_tests_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    """Otherwise pytest's code would say that they had noticed something."""
    (tmp_path / "test_small.py").write_text(
        "import pytest\n\n\n@pytest.mark.parametrize('name', ['1x8|2x16'])\ndef test_it(name):\n    pass\n"
    )
    check_tests(tmp_path, [])
    check_tests(tmp_path, ["test_small.py::test_it[1x8|2x16]"])
    with pytest.raises(LissnasError, match=r"tests that are not there: .*test_small.py::test_it"):
        check_tests(tmp_path, ["test_small.py::test_it[1x8|2x16]", "test_small.py::test_it[1x8"])
