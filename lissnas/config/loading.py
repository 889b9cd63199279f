"""Read parameters: YAML files laid over the built-in values, overrides, and one check that reports every problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from reprlib import Repr
from typing import Any, TypeAlias, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from lissnas.config.recipes import inherited
from lissnas.config.schema import FULL_SPACE, Params
from lissnas.core.errors import ConfigError, first_line, short, unknown_name

ParamFiles: TypeAlias = Path | Sequence[Path] | None
"""Parameter files, later ones over earlier ones; None: ./params.yaml if there is one of lissnas', else none."""

OPTIONS = {
    "shrink.target_size": "target_size",
    "shrink.labels": "label_budget",  # `--labels` is the file of labels
    "shrink.max_queries": "max_queries",
    "shrink.memory": "memory",
    "shrink.variant": "variant",
    "shrink.method.diversity": "diversity",
    "torch.device": "device",
    "torch.threads": "threads",
    "images.source": "source",
    "images.folder": "folder",
    "search.oracle": "oracle",
    "search.max_mflops": "max_mflops",
    "search.max_mparams": "max_mparams",
    "retrain.networks": "networks",
    "label.networks": "networks",
    "ranking.networks": "networks",
}
"""The parameters that have an option of their own; all others are set by `--set section.key=value`."""

BUILT_IN = "built-in params.yaml"
_QUOTE = Repr()
_QUOTE.maxlevel = 2
_QUOTE.maxstring = 60


def load(
    paths: ParamFiles,
    overrides: Mapping[str, Any],
    benchmarks: Iterable[str],
    asked: Iterable[tuple[str, str]] = (),
    methods: Iterable[str] = (),
    spaces: Iterable[str] = (),
) -> Params:
    """Read parameter files over the built-in values, apply `overrides` (dotted path -> value), check everything.

    In an override `shrink.method.x` is x of the chosen variant. `benchmarks` are the known names; `asked` are
    (option, benchmark name) to check in the same pass; `methods` are the known methods of a comparison and `spaces`
    the known spaces, if the caller knows them. Raises ConfigError with every problem.
    """
    known = list(benchmarks)
    source, tree = _read(paths)
    problems = [f"{where}: {unknown_name('benchmark', n, known)}" for where, n in asked if n not in known]
    given: dict[str, str] = {}
    for dotted, value in overrides.items():
        path = _resolve(dotted, tree, overrides)
        given[path] = "--" + OPTIONS[dotted].replace("_", "-") if dotted in OPTIONS else "--set"
        problems += _put(tree, path, value)
    recipes = tree["recipes"]
    if isinstance(recipes, dict):
        tree["recipes"], wrong = inherited(recipes)
        problems += wrong
    params: Params | None = None
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        problems += [_line(e, given) for e in error.errors(include_url=False) if not _of_base(e["loc"], recipes)]
    problems += _unknown_benchmarks(tree, known, list(spaces)) + _unknown_methods(tree, list(methods))
    if problems or params is None:
        raise ConfigError(source, problems)
    return params


def _read(paths: ParamFiles) -> tuple[str, dict[str, Any]]:
    """Return what was read, in words, and the files' values over the built-in ones."""
    tree = deepcopy(_built_in())
    local = Path("params.yaml")
    if not paths and local.exists() and Params.model_fields.keys() & (found := _parse(str(local), _bytes(local))):
        return str(local), _merged(tree, found)
    chosen = [paths] if isinstance(paths, Path) else list(paths or ())
    for path in chosen:
        found = _parse(str(path), _bytes(path))
        if not Params.model_fields.keys() & found:
            raise ConfigError(str(path), [f"expected sections {', '.join(Params.model_fields)}"])
        tree = _merged(tree, found)
    return ", ".join(map(str, chosen)) or BUILT_IN, tree


@cache
def _built_in() -> dict[str, Any]:
    return _parse(BUILT_IN, (files("lissnas") / "params.yaml").read_bytes())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file; leave --params out to take the built-in values"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from None


def _parse(source: str, data: bytes) -> dict[str, Any]:
    """Return the mapping that a YAML file holds; raises ConfigError if it is no YAML or holds no mapping."""
    try:
        tree = YAML(typ="safe", pure=True).load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(source, [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(source, [f"{where}: {first_line(error.problem)}"]) from None
    except RecursionError:
        raise ConfigError(source, ["lists and mappings are nested too deep"]) from None
    except Exception as error:  # ruamel's constructors raise what int(), strptime() and others do
        raise ConfigError(source, [f"not YAML: {first_line(error)}"]) from None
    if not isinstance(tree, dict):
        raise ConfigError(source, [f"expected sections {', '.join(Params.model_fields)}"])
    return tree


def _merged(below: dict[str, Any], above: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return one tree over another: mappings are merged, all else is replaced; so is a recipe that has a base."""
    tree = dict(below)
    for key, value in above.items():
        own, replaces = tree.get(key), path == ("recipes",) and isinstance(value, dict) and "base" in value
        if isinstance(own, dict) and isinstance(value, dict) and not replaces:
            value = _merged(own, value, (*path, key))
        tree[key] = value
    return tree


def _resolve(dotted: str, tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> str:
    if not dotted.startswith("shrink.method."):
        return dotted
    section = tree["shrink"]
    variant = overrides.get("shrink.variant", section.get("variant") if isinstance(section, dict) else None)
    return dotted.replace("method", variant if variant in ("elite", "paper") else "elite", 1)


def _put(tree: dict[str, Any], path: str, value: Any) -> list[str]:
    """Set a value in the tree, sections made where there are none; return what is wrong with the path."""
    *sections, key = path.split(".")
    for i, name in enumerate(sections):
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return [f"{path}: {'.'.join(sections[: i + 1])} is no section"]
    tree[key] = value
    return []


def _of_base(path: Sequence[Any], recipes: Any) -> bool:
    """Return whether an error is at a key that a recipe has from its base, which has the same error."""
    own = recipes.get(path[1]) if len(path) > 2 and path[0] == "recipes" else None
    return isinstance(own, dict) and "base" in own and path[2] not in own


def _line(error: Any, given: Mapping[str, str]) -> str:
    """Return one of pydantic's errors as a line that starts with the path."""
    path = ".".join(short(str(part)) for part in error["loc"])
    option = f" (option {given[path]})" if path in given else ""
    if error["type"] == "missing":
        return f"{path}: missing"
    if error["type"] == "extra_forbidden":
        what = "key" if len(error["loc"]) > 1 else "section"
        name = unknown_name(what, str(error["loc"][-1]), _keys_of(error["loc"][:-1]))
        return f"{path}: {name}{option}"
    return f"{path}: {error['msg']}, found {_quoted(error['input'])}{option}"


def _quoted(value: Any) -> str:
    """Return a value for a message, cut off: a text, or lists that aliases make as large as the memory."""
    try:
        return short(_QUOTE.repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def _keys_of(path: Sequence[str]) -> list[str]:
    """Return the keys that the schema has at a path."""
    kind: Any = Params
    for part in path:
        is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
        kind = kind.model_fields[part].annotation if is_model else get_args(kind)[1]
    return list(kind.model_fields)


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
