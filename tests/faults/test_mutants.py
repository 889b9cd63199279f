"""The mutation study relocates mutants in code that has moved, and detects which tests notice a mutant."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed (the extra `dev`)")

from lissnas.core.errors import LissnasError
from tests.robustness.mutants import LineCoverage, Mutant, mutants_page, relocated, run_mutant

pytestmark = pytest.mark.faults

CODE = """\
LIMIT = 1


def longer(first: list[int], second: list[int]) -> bool:
    return len(first) + 1 > len(second) + LIMIT + 1
"""
TESTS = """\
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
    (tmp_path / "test_small.py").write_text(TESTS)
    return tmp_path


def test_mutants_are_relocated_by_the_text_of_their_line(project: Path) -> None:
    gone = {**ROWS[0], "diff": "-    yield None + nothing.at_all\n+    yield None - nothing.at_all"}
    found = relocated(project, [*ROWS, gone], core=("small.py",))
    operator = "core/ReplaceBinaryOperator_Add_Sub"
    assert found == [Mutant("small.py", operator, 0, 5), Mutant("small.py", operator, 2, 5)]


@pytest.mark.parametrize(("test", "outcome"), [("test_longer", "killed"), ("test_nothing", "survived")])
def test_outcome_of_a_mutant(project: Path, test: str, outcome: str) -> None:
    (mutant, *_) = relocated(project, ROWS, core=("small.py",))
    row = run_mutant(project, mutant, [f"test_small.py::{test}"])
    assert (row["outcome"], row["tests"]) == (outcome, 1), row
    assert (project / "small.py").read_text() == CODE
    page = mutants_page([row])
    assert f"| all | 1 | {1 if outcome == 'killed' else 0} |" in page
    assert ("+    return len(first) - 1 > len(second) + LIMIT + 1" in page) == (outcome == "survived")


def test_mutant_of_an_uncovered_line_survives(project: Path) -> None:
    row = run_mutant(project, Mutant("small.py", "core/NumberReplacer", 0, 1), [])
    assert (row["outcome"], row["tests"]) == ("survived", 0)


def test_missing_tests_are_an_error(project: Path) -> None:
    """Otherwise pytest's exit code would count as a noticed mutant."""
    (mutant, *_) = relocated(project, ROWS, core=("small.py",))
    with pytest.raises(LissnasError, match=r"(?s)missing tests: .*test_small.py::test_other"):
        run_mutant(project, mutant, ["test_small.py::test_other"])


def test_tests_of_a_line_are_found(project: Path) -> None:
    coverage = LineCoverage(project, project, ["-p", "no:xdist", "test_small.py"])
    assert coverage.tests(Mutant("small.py", "core/NumberReplacer", 0, 5)) == ["test_small.py::test_longer"]
