"""Imports of the command line: `--help` and `--version` load no numerical library."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lissnas
from lissnas.benchmarks import official
from lissnas.cli import data

ROOT = Path(__file__).parents[3]
LIBRARIES = ("numpy", "scipy", "xgboost", "pyarrow", "matplotlib", "torch", "mlflow", "prefect", "pandas")
HEAVY = (*LIBRARIES, "sklearn", "ruamel")
HELP = f"""
import sys
from contextlib import redirect_stdout
from io import StringIO
import typer
from lissnas.cli.app import app

def subcommands(command, path=()):
    yield path
    for name, inner in getattr(command, "commands", {{}}).items():
        yield from subcommands(inner, (*path, name))

every = list(subcommands(typer.main.get_command(app)))
for path in [*every, ("--version",)]:
    text = StringIO()
    with redirect_stdout(text):
        app(args=[*path, "--help"], prog_name="lissnas", standalone_mode=False)
    assert "Usage" in text.getvalue() or path == ("--version",), path
print(len(every), *sorted(sys.modules.keys() & set({HEAVY!r})))
"""


def python(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_help_of_every_command_imports_nothing_heavy() -> None:
    count, *heavy = python("-c", HELP).split()
    assert int(count) >= 15
    assert heavy == []


def test_python_m_runs_the_command_and_the_version_is_defined_once() -> None:
    assert python("-m", "lissnas.cli", "--version") == f"lissnas {lissnas.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "lissnas.version.__version__"}


def test_the_help_lists_all_kinds_of_official_files() -> None:
    assert data.KINDS.split(", ") == list(official.KINDS)


SHRINK = """
import sys
from lissnas.cli.app import app
app(args=["shrink", "--space", {space!r}, "--labels", {labels!r}, "--out", "r"], standalone_mode=False)
names = ["sklearn", "scipy.stats", "scipy.cluster", "torch", "mlflow", "prefect"]
print(*(name for name in names if name in sys.modules), "end", "xgboost" in sys.modules)
"""
AFTER = """
import sys
from lissnas.predictors.boosting import xgb
assert "sklearn" not in sys.modules and xgb.Booster
from sklearn.manifold import TSNE
print(TSNE.__name__)
"""


def test_a_shrink_imports_no_unused_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = Path(lissnas.__file__).parent / "example"
    script = SHRINK.format(space=str(example / "space.yaml"), labels=str(example / "labels.csv"))
    assert python("-c", script).splitlines()[-1] == "end True"


def test_scikit_learn_can_be_imported_after_xgboost_was_imported_without_it() -> None:
    pytest.importorskip("sklearn")
    assert python("-c", AFTER) == "TSNE\n"
