"""The layout of the code: rooms, floors, no upward import, no cycle, no file too long, no module out of place."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from statistics import median

import pytest

from tests.closure import ROOT, TREES, code_of, imports, modules

FLOORS = (
    ("lissnas.core",),
    ("lissnas.config", "lissnas.artifacts", "lissnas.spaces", "lissnas.spaces.declared"),
    ("lissnas.oracles", "lissnas.predictors", "lissnas.tracking", "infra"),
    (
        *("lissnas.benchmarks.official", "lissnas.benchmarks", "lissnas.metrics", "lissnas.searchers"),
        *("lissnas.nets",),
    ),
    ("lissnas.plots", "lissnas.shrinkers"),
    ("lissnas.stages", "lissnas.stages.report", "lissnas.study", "lissnas.api", "lissnas.testing"),
    ("lissnas.cli",),
    ("flows", "studies"),
)
"""Rooms by floor, bottom up. A room imports from lower floors, and of its own floor from rooms before it."""
FACE = ("lissnas", "lissnas.version")
"""Root modules that belong to no floor: importing them loads nothing else."""
ORDER = [room for floor in FLOORS for room in floor]
SINGLE = ("lissnas.study", "lissnas.api")
"""Root modules that stand on a floor by themselves; they are files, not rooms."""
MAX_LINES = 400
MAX_ROOMS = 24


@cache
def room_of(module: str) -> str:
    """Return the room of a module: the longest listed name that it is, or is inside of."""
    rooms = [room for room in ORDER if module == room or module.startswith(f"{room}.")]
    if not rooms and module not in FACE:
        raise LookupError(f"{module} is in no room: add its package to FLOORS in {__file__}")
    return max(rooms, key=len, default=module)


def test_every_module_is_in_a_room() -> None:
    for name in modules():
        room_of(name)
    folders = {path.parent for path in modules().values()} - {ROOT / "lissnas"}
    assert len(folders) <= MAX_ROOMS, sorted(map(str, folders))
    assert len(FLOORS) == 8
    assert {str(f.relative_to(ROOT)).replace("/", ".") for f in folders} == set(ORDER) - set(SINGLE)


def test_the_root_has_few_modules() -> None:
    assert len(list((ROOT / "lissnas").glob("*.py"))) <= 4


def test_imports_lead_down() -> None:
    upward = [
        f"{name} ({room_of(name)}) imports {target} ({room_of(target)})"
        for name in modules()
        if name not in FACE
        for target in imports(name)
        if target not in FACE and room_of(name) != room_of(target)
        if ORDER.index(room_of(target)) > ORDER.index(room_of(name))
    ]
    assert not upward, "\n".join(upward)


def test_modules_form_no_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cyclic dependency: {' -> '.join([*path, module])}"
        if module not in done:
            for target in imports(module):
                # A package names parts of itself; a part that imports the package would be a cycle.
                if target != module:
                    visit(target, (*path, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_no_file_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules().values()}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}
    assert median(n for name, n in lines.items() if not name.endswith("__init__.py")) <= 200


def test_no_tree_is_forgotten() -> None:
    trees = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {p.parent.name for p in ROOT.glob("*/*.py")}
    assert trees == {*TREES, "tests", "docs"}  # hooks of the documentation site stand on no floor


@pytest.mark.parametrize(
    "stage",
    ["prepare", "predictor", "locality", "shrink", "compare", "supernet", "search", "retrain", "ranking", "report"],
)
def test_dvc_knows_the_code_of_a_stage(stage: str) -> None:
    from ruamel.yaml import YAML

    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    declared = stages[stage].get("do", stages[stage])["deps"]
    assert {d for d in declared if d.startswith("lissnas/")} == code_of(stage)


def test_import_is_light() -> None:
    code = (
        "import sys, lissnas, lissnas.spaces, lissnas.benchmarks, lissnas.tracking\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'dvc'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
