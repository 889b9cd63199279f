"""Reading parameters: YAML, overrides, and one check that reports every problem at once."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
    ScalarEvent,
)

from lissnas.config.schema import FULL_SPACE, Params
from lissnas.core.errors import ConfigError, first_line, short, unknown_name

CLASHING = ("recipe", "seed", "images")
"""Fields that several sections have, or a command itself: their options get the section's name before."""


RENAMED = {"shrink.labels": "label_budget"}
"""`--labels` is the file of labels that there are already."""


DEEPEST, LONGEST, MOST_NODES = 20, 1_000, 20_000
"""Nesting of params.yaml, characters of a text in it, and its nodes with each alias written out."""


def load(
    path: Path | None,
    overrides: Mapping[str, Any],
    benchmarks: Iterable[str],
    asked: Iterable[tuple[str, str]] = (),
    methods: Iterable[str] = (),
    spaces: Iterable[str] = (),
) -> Params:
    """Read params.yaml, put `overrides` (dotted path -> value) in, and check everything.

    `path` None means ./params.yaml, or the same values as packaged where there is none. In an override
    `shrink.method.x` is x of the chosen variant. `benchmarks`
    are the known names; `asked` are (where it was asked for, benchmark name) to check in the same
    pass; `methods` are the known methods of a comparison and `spaces` the known spaces, where the caller
    knows them. Raises ConfigError with every problem.
    """
    known = list(benchmarks)
    source, tree = _read(path)
    problems = [f"{where}: {unknown_name('benchmark', n, known)}" for where, n in asked if n not in known]
    for dotted, value in overrides.items():
        _put(tree, _resolve(dotted, tree, overrides).split("."), value)
    params: Params | None = None
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        options = {_resolve(dotted, tree, overrides) for dotted in overrides}
        problems += [_line(e, options) for e in error.errors()]
    problems += _unknown_benchmarks(tree, known, list(spaces)) + _unknown_methods(tree, list(methods))
    if problems or params is None:
        raise ConfigError(source, problems)
    return params


def _read(path: Path | None) -> tuple[str, dict[str, Any]]:
    if path is None:
        local = Path("params.yaml")
        if local.exists():
            path = local
    if path is None:
        text = (files("lissnas") / "params.yaml").read_text(encoding="utf-8")
        source = "built-in params.yaml"
    else:
        source = str(path)
        try:
            text = path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            raise ConfigError(source, ["no such file; leave --params out to take the built-in values"]) from None
        except UnicodeDecodeError as error:
            raise ConfigError(source, [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
        except OSError as error:
            raise ConfigError(source, [f"can't be read: {error.strerror}"]) from None
    try:
        if (excess := _excess(text)) is not None:
            raise ConfigError(source, [excess])
        tree = YAML(typ="safe", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(source, [f"{where}: {first_line(error.problem)}"]) from None
    except (YAMLError, ValueError, TypeError) as error:
        raise ConfigError(source, [f"not YAML: {first_line(error)}"]) from None
    if not isinstance(tree, dict):
        raise ConfigError(source, ["expected sections pipeline, predictor, shrink, benchmarks"])
    return source, tree


def option_name(path: str) -> str:
    """Return the name of the option that overrides a path, underscores in it."""
    section, _, own = path.rpartition(".")
    return RENAMED.get(path) or (f"{section}_{own}" if own in CLASHING and section != "locality" else own)


def _excess(text: str) -> str | None:
    """Return what YAML has that no parameters need and that could fill the memory, None where it has nothing such."""
    sizes: dict[str | None, int] = {}
    begun: list[tuple[str | None, int]] = []  # anchor of each open list or mapping, and its nodes so far
    for event in YAML(typ="safe", pure=True).parse(text):
        if not isinstance(event, NodeEvent | CollectionEndEvent):
            continue
        where = f"line {event.start_mark.line + 1}"
        anchor, tag, size = getattr(event, "anchor", None), getattr(event, "tag", None), 1
        if tag is not None:
            return f"{where}: the tag {short(tag)}; leave tags out"
        if isinstance(event, ScalarEvent) and len(event.value) > LONGEST:
            return f"{where}: a text of {len(event.value):,} characters, at most {LONGEST:,} are allowed"
        if isinstance(event, CollectionStartEvent):
            begun.append((anchor, 1))
            if len(begun) > DEEPEST:
                return f"{where}: more than {DEEPEST} lists and mappings inside each other"
            continue
        if isinstance(event, CollectionEndEvent):
            anchor, size = begun.pop()
        if isinstance(event, AliasEvent):
            size = sizes.get(anchor, 1)
        else:
            sizes[anchor] = size
        if begun:
            begun[-1] = begun[-1][0], begun[-1][1] + size
            if begun[-1][1] > MOST_NODES:
                return f"{where}: more than {MOST_NODES:,} values, each alias written out"
    return None


def _resolve(dotted: str, tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    if not dotted.startswith("shrink.method."):
        return dotted
    section = tree.get("shrink")
    variant = overrides.get("shrink.variant", section.get("variant") if isinstance(section, dict) else None)
    return dotted.replace("method", variant if variant in ("elite", "paper") else "elite", 1)


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = tree.get(name)
        if not isinstance(inner, dict):
            return  # the section is missing or no mapping, which the check reports
        tree = inner
    tree[path[-1]] = value


def _line(error: Any, options: Container[str]) -> str:
    """Say one of pydantic's errors in a line that starts with the path."""
    path = ".".join(str(part) for part in error["loc"])
    given = f" (option --{option_name(path).replace('_', '-')})" if path in options else ""
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown key{given}; remove it or correct its spelling"
    return f"{path}: {error['msg']}, found {short(repr(error['input']))}{given}"


def _unknown_methods(tree: Mapping[str, Any], known: list[str]) -> list[str]:
    lists = (("compare", known), ("ranking", [*FULL_SPACE, *known])) if known else ()
    return [
        f"{section}.methods.{i}: {unknown_name('method', name, names)}"
        for section, names in lists
        for i, name in _listed(tree, section, "methods")
        if name not in names
    ]


def _unknown_benchmarks(tree: Mapping[str, Any], known: list[str], spaces: list[str]) -> list[str]:
    """Return lines about names of benchmarks; `benchmarks` itself may name a space too, where those are known."""
    ranking = tree.get("ranking")
    maps = {"benchmarks": tree, "ranking.benchmarks": ranking if isinstance(ranking, dict) else {}}
    own = [
        (f"{path}.{name}", str(name))
        for path, holder in maps.items()
        if isinstance(holder.get("benchmarks"), dict) and (spaces or holder is not tree)
        for name in holder["benchmarks"]
        if not (holder is tree and name in spaces)
    ]
    for where, key in (("pipeline", "benchmarks"), ("pipeline", "one_shot")):
        own += [(f"{where}.{key}.{i}", name) for i, name in _listed(tree, where, key)]
    return [f"{path}: {unknown_name('benchmark', name, known)}" for path, name in own if name not in known]


def _listed(tree: Mapping[str, Any], section: str, key: str) -> list[tuple[int, str]]:
    """Return the texts of a list and their places, whatever else is wrong with the tree."""
    inner = tree.get(section)
    found = inner.get(key) if isinstance(inner, dict) else None
    return [(i, name) for i, name in enumerate(found if isinstance(found, list) else ()) if isinstance(name, str)]
