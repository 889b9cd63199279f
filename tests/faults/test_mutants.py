"""The study of mutants finds them again in code that has moved, and tells tests that notice from those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed (the extra `dev`)")

from lissnas.core.errors import LissnasError
from tests.robustness.mutants import Mutant, Reaching, found_again, mutants_page, tried

pytestmark = pytest.mark.faults

CODE = """\
LIMIT = 1


def longer(first: list[int], second: list[int]) -> bool:
    return len(first) + 1 > len(second) + LIMIT + 1
"""
NOTICES = """\
from small import longer


def test_longer() -> None:
    assert longer([1], [1]) is False
    assert longer([1, 2, 3], [1]) and not longer([1], [1, 2, 3, 4])


def test_nothing() -> None:
    import small
"""
ROWS = [
    {
        "file": "before/large.py",
        "operator": "core/ReplaceBinaryOperator_Add_Sub",
        "diff": f"--- before/large.py\n+++ \n@@ -7 +7 @@\n-  return len(one) + 1 > len(second) + LIMIT + 1\n+  {added}",
    }
    for added in ("return len(one) - 1 > len(second) + LIMIT + 1", "return len(one) + 1 > len(second) + LIMIT - 1")
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(CODE)
    (tmp_path / "test_small.py").write_text(NOTICES)
    return tmp_path


def test_mutants_are_found_again_by_the_text_of_their_line(project: Path) -> None:
    gone = {**ROWS[0], "diff": "-    yield None + nothing.at_all\n+    yield None - nothing.at_all"}
    found = found_again(project, [*ROWS, gone], core=("small.py",))
    operator = "core/ReplaceBinaryOperator_Add_Sub"
    assert found == [Mutant("small.py", operator, 0, 5), Mutant("small.py", operator, 2, 5)]


@pytest.mark.parametrize(("test", "outcome"), [("test_longer", "killed"), ("test_nothing", "survived")])
def test_what_a_test_makes_of_a_change(project: Path, test: str, outcome: str) -> None:
    (mutant, *_) = found_again(project, ROWS, core=("small.py",))
    row = tried(project, mutant, [f"test_small.py::{test}"])
    assert (row["outcome"], row["tests"]) == (outcome, 1), row
    assert (project / "small.py").read_text() == CODE
    page = mutants_page([row])
    assert f"| all | 1 | {1 if outcome == 'killed' else 0} |" in page
    assert ("+    return len(first) - 1 > len(second) + LIMIT + 1" in page) == (outcome == "survived")


def test_a_line_that_no_test_runs_is_not_noticed(project: Path) -> None:
    row = tried(project, Mutant("small.py", "core/NumberReplacer", 0, 1), [])
    assert (row["outcome"], row["tests"]) == ("survived", 0)


def test_tests_that_are_not_there_are_an_error(project: Path) -> None:
    """Otherwise pytest's code would say that they had noticed something."""
    (mutant, *_) = found_again(project, ROWS, core=("small.py",))
    with pytest.raises(LissnasError, match=r"(?s)tests that are not there: .*test_small.py::test_other"):
        tried(project, mutant, ["test_small.py::test_other"])


def test_the_tests_of_a_line(project: Path) -> None:
    reaching = Reaching(project, project, ["-p", "no:xdist", "test_small.py"])
    assert reaching.tests(Mutant("small.py", "core/NumberReplacer", 0, 5)) == ["test_small.py::test_longer"]
