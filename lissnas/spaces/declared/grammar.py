"""Reading space.yaml. All problems of a declaration are reported together, each with its line."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml.nodes import Node

from lissnas.core.errors import short, unknown_name
from lissnas.spaces.declared.declaration import (
    Cell,
    CellDeclaration,
    Constraint,
    Exchange,
    Inactive,
    Limit,
    Metric,
    Position,
    ProductDeclaration,
)
from lissnas.spaces.declared.fields import Index
from lissnas.spaces.declared.yaml import compose, locate, plain, problems_in

_MODELS: dict[str, type[BaseModel]] = {
    "metric": Metric,
    "positions": Position,
    "constraints": Constraint,
    "at_most": Limit,
    "inactive": Inactive,
    "equivalent": Exchange,
    "cell": Cell,
}
"""The model of the mapping below each key."""
_EXPECTED = {"string_type": "a text", "dict_type": "a mapping", "model_type": "a mapping", "tuple_type": "a list"}
"""What was expected, for each type of pydantic error."""


def read_declaration(text: str, source: str) -> ProductDeclaration | CellDeclaration:
    """Return the declaration in a YAML text; raises ConfigError with all problems."""
    root = compose(text, source)
    problems: list[tuple[int, str]] = []
    tree = plain(root, problems)
    if not isinstance(tree, dict):
        keys = ", ".join(_keys(ProductDeclaration))
        raise problems_in(source, [(locate(root, ())[0], f"expected a mapping with the keys {keys}")])
    model = CellDeclaration if tree.get("kind") == "cell" else ProductDeclaration
    problems += _repeated(tree.get("positions"), root)
    try:
        declaration = model.model_validate(tree, context=Index.of(tree))
    except ValidationError as error:
        problems += [_problem(details, root, model) for details in error.errors(include_url=False)]
    if problems:
        raise problems_in(source, problems)
    if isinstance(declaration, CellDeclaration):
        declaration.cell.declared_in(locate(root, ("cell",))[0])
        return declaration
    for key, rules in (
        ("constraints", declaration.constraints),
        ("inactive", declaration.inactive),
        ("equivalent", declaration.exchanges),
    ):
        for i, rule in enumerate(rules):
            rule.declared_in(locate(root, (key, i))[0])
    return declaration.model_copy(update={"inactive": _in_order(list(declaration.inactive), source)})


def _keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of a model in space.yaml."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _repeated(positions: Any, root: Node) -> list[tuple[int, str]]:
    """Return the duplicate names of positions as problems, each with its line."""
    lines: dict[str, int] = {}
    out = []
    for i, position in enumerate(positions if isinstance(positions, list) else ()):
        name = position.get("name") if isinstance(position, dict) else None
        if isinstance(name, str) and name:
            line, _ = locate(root, ("positions", i))
            if name in lines:
                out.append((line, f"duplicate position {short(repr(name))}, first in line {lines[name]}"))
            lines.setdefault(name, line)
    return out


def _problem(error: Any, root: Node, model: type[BaseModel]) -> tuple[int, str]:
    """Return the line and the message of a pydantic error."""
    path, kind, found, what = error["loc"], error["type"], error["input"], error["msg"]
    if kind in ("missing", "extra_forbidden"):
        holder = next((_MODELS[part] for part in reversed(path[:-1]) if part in _MODELS), model)
        missing = f"the key {path[-1]!r} is missing"
        what = missing if kind == "missing" else unknown_name("key", str(path[-1]), _keys(holder))
    elif kind == "value_error":
        what = str(error["ctx"]["error"])
    elif kind == "literal_error":
        what = f"expected {error['ctx']['expected']}, found {_shown(found)}"
    elif kind in _EXPECTED:
        what = f"expected {_EXPECTED[kind]}, found {_shown(found)}"
    line, where = locate(root, path)
    if kind == "extra_forbidden":
        where = locate(root, path[:-1])[1]
    return line, f"{where}: {what}" if where else what


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"the text {short(repr(value))}" if value else "nothing"
    return "a list" if isinstance(value, list) else "a mapping" if value else "an empty mapping"


def _in_order(rules: list[Inactive], source: str) -> tuple[Inactive, ...]:
    """Return the rules so that those which can deactivate a position of `when` come first; raises ConfigError."""
    tested = [{p for p, _ in rule.match} for rule in rules]
    before = {i: [j for j, other in enumerate(rules) if when & {*other.positions}] for i, when in enumerate(tested)}
    try:
        return tuple(rules[i] for i in TopologicalSorter(before).static_order())
    except CycleError as error:
        cycle = sorted(rules[i].line for i in error.args[1][1:])
        what = f"inactive: cyclic dependency of the rules of lines {', '.join(map(str, cycle))}"
        raise problems_in(source, [(cycle[0], what)]) from None
