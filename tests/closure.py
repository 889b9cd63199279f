"""Find the modules that a module imports, directly and transitively, from the source without importing anything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
TREES = ("lissnas", "flows", "studies", "infra")


@cache
def modules() -> dict[str, Path]:
    """Return the files of all modules of TREES by module name."""
    files = [path for tree in TREES for path in sorted((ROOT / tree).rglob("*.py"))]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in files}


def imports(module: str, typing_too: bool = True) -> Iterator[str]:
    """Yield the modules of TREES that a module imports directly, including imports inside functions."""
    for node in _statements(ast.parse(modules()[module].read_text()), typing_too):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules() else node.module for name in names]
        else:
            continue
        yield from (name for name in names if name in modules())


def _statements(tree: ast.AST, typing_too: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            continue
        yield node
        yield from _statements(node, typing_too)


def closure(module: str) -> set[str]:
    """Return all modules that importing and running a module may load, including parent packages.

    The public API, `lissnas/__init__`, is left out: it loads its names lazily.
    """
    found: set[str] = set()
    left = [module]
    while left:
        name = left.pop()
        if name in found or name == "lissnas":
            continue
        found.add(name)
        left += imports(name, typing_too=False)
        left.append(name.rpartition(".")[0] or name)
    return found


STAGES = {
    **{stage: (stage,) for stage in ("prepare", "predictor", "locality", "shrink", "compare", "supernet", "retrain")},
    "search": ("one_shot",),
    "ranking": ("ranking",),
    "report": ("report.stage",),
}
"""Stages of dvc.yaml, and the modules of `lissnas.stages` that implement them."""


def code_of(stage: str) -> set[str]:
    """Return the code that a stage of dvc.yaml depends on: files of `lissnas/stages`, and other packages."""
    loaded = set().union(*(closure(f"lissnas.stages.{module}") for module in STAGES[stage]))
    found = set()
    for _, package, *rest in (name.split(".") for name in loaded):
        place = f"lissnas/{package}" if package != "stages" else f"lissnas/stages/{rest[0]}" if rest else ""
        found.add(f"{place}.py" if (ROOT / f"{place}.py").exists() else place)
    return found - {""}
