"""The layout of the code: packages in layers, no upward imports, no cyclic imports, limits of size."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from statistics import median

import pytest

from tests.closure import ROOT, TREES, code_of, imports, modules

LAYERS = (
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
"""Packages by layer, bottom up. A package imports from lower layers, and from packages before it in its own layer."""
PUBLIC = ("lissnas", "lissnas.version")
"""Root modules outside all layers: importing them loads no other module."""
ORDER = [package for layer in LAYERS for package in layer]
SINGLE = ("lissnas.study", "lissnas.api")
"""Root modules in a layer that are files, not packages."""
MAX_LINES = 400
MAX_PACKAGES = 24


@cache
def package_of(module: str) -> str:
    """Return the listed package that contains a module; the innermost if there are several."""
    packages = [package for package in ORDER if module == package or module.startswith(f"{package}.")]
    if not packages and module not in PUBLIC:
        raise LookupError(f"{module} is in no layer: add its package to LAYERS in {__file__}")
    return max(packages, key=len, default=module)


def test_every_module_is_in_a_layer() -> None:
    for name in modules():
        package_of(name)
    folders = {path.parent for path in modules().values()} - {ROOT / "lissnas"}
    assert len(folders) <= MAX_PACKAGES, sorted(map(str, folders))
    assert len(LAYERS) == 8
    assert {str(f.relative_to(ROOT)).replace("/", ".") for f in folders} == set(ORDER) - set(SINGLE)


def test_the_root_has_few_modules() -> None:
    assert len(list((ROOT / "lissnas").glob("*.py"))) <= 4


def test_no_module_imports_from_a_higher_layer() -> None:
    upward = [
        f"{name} ({package_of(name)}) imports {target} ({package_of(target)})"
        for name in modules()
        if name not in PUBLIC
        for target in imports(name)
        if target not in PUBLIC and package_of(name) != package_of(target)
        if ORDER.index(package_of(target)) > ORDER.index(package_of(name))
    ]
    assert not upward, "\n".join(upward)


def test_there_are_no_cyclic_imports() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cyclic dependency: {' -> '.join([*path, module])}"
        if module not in done:
            for target in imports(module):
                # A package may import its submodules; a submodule that imports its package would be a cycle.
                if target != module:
                    visit(target, (*path, module))
            done.add(module)

    for module in modules():
        visit(module, ())


def test_no_file_is_too_long() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules().values()}
    assert {name: n for name, n in lines.items() if n > MAX_LINES} == {}
    assert median(n for name, n in lines.items() if not name.endswith("__init__.py")) <= 200


def test_every_source_folder_is_checked() -> None:
    trees = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {p.parent.name for p in ROOT.glob("*/*.py")}
    assert trees == {*TREES, "tests", "docs"}  # docs/*.py, hooks of the documentation site, are in no layer


@pytest.mark.parametrize(
    "stage",
    ["prepare", "predictor", "locality", "shrink", "compare", "supernet", "search", "retrain", "ranking", "report"],
)
def test_dvc_deps_list_the_code_of_a_stage(stage: str) -> None:
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
