"""Load parameters: merge YAML files and overrides over the built-in values, validate, report all problems at once."""

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

from lissnas.config.schema import FULL_SPACE, Params
from lissnas.core.errors import ConfigError, first_line, short, unknown_name
from lissnas.core.process import err

ParamFiles: TypeAlias = Path | Sequence[Path] | None
"""Parameter files, later ones override earlier ones; None: ./params.yaml if it exists and belongs to lissnas."""

OPTIONS = {
    "shrink.target_size": "target_size",
    "shrink.labels": "label_budget",  # `--labels` is the file of labels
    "shrink.goal": "goal",
    "shrink.max_queries": "max_queries",
    "shrink.memory": "memory",
    "shrink.variant": "variant",
    "shrink.method.diversity": "diversity",
    "torch.device": "device",
    "torch.threads": "threads",
    "images.source": "source",
    "images.folder": "folder",
    "search.by": "by",
    "search.max_mflops": "max_mflops",
    "search.max_mparams": "max_mparams",
    "retrain.networks": "networks",
    "label.networks": "networks",
    "ranking.networks": "networks",
}
"""Parameters with a dedicated option, by dotted path; `--set section.key=value` sets all others."""

_BEST_FIRST = "the best seed_fraction of the target is expanded, then the loop stops: delete the line"
REMOVED = {
    "shrink.elite.shrink_rate": _BEST_FIRST,
    "shrink.elite.min_turnover": _BEST_FIRST,
    "search.oracle": "it is search.by now, which can also be all or labels: rename it",
}
"""Parameters of earlier versions, with what replaces them."""

BUILT_IN = "built-in params.yaml"
LOCAL = Path("params.yaml")
"""The file that is read if `--params` is not given."""
LOCAL_SOURCE = "params.yaml (read from the current folder; for the built-in values, give --params /dev/null)"
_QUOTE = Repr()
_QUOTE.maxlevel = 2
_QUOTE.maxstring = 60


def load(
    paths: ParamFiles,
    overrides: Mapping[str, Any],
    benchmarks: Iterable[str],
    requested: Iterable[tuple[str, str]] = (),
    methods: Iterable[str] = (),
    spaces: Iterable[str] = (),
) -> Params:
    """Load parameter files over the built-in values, apply `overrides` (dotted path -> value) and validate the result.

    In an override, `shrink.method.x` means x of the selected variant. `benchmarks`, `methods` and `spaces` are the
    registered names (empty `methods` or `spaces`: not checked). `requested` are pairs (option, benchmark name), which
    are checked in the same pass. Raises ConfigError with all problems.
    """
    known = list(benchmarks)
    source, tree = _read(paths)
    problems = [f"{where}: {unknown_name('benchmark', n, known)}" for where, n in requested if n not in known]
    given: dict[str, str] = {}
    for dotted, value in overrides.items():
        path = _resolve(dotted, tree, overrides)
        given[path] = "--" + OPTIONS[dotted].replace("_", "-") if dotted in OPTIONS else "--set"
        problems += _put(tree, path, value)
    recipes = tree["recipes"]
    if isinstance(recipes, dict):
        tree["recipes"], wrong = _inherited(recipes)
        problems += wrong
    params: Params | None = None
    try:
        params = Params.model_validate(tree)
    except ValidationError as error:
        problems += [_line(e, given) for e in error.errors(include_url=False) if not _of_base(e["loc"], recipes)]
    problems += _unknown_names(tree, known, list(spaces), list(methods))
    if problems or params is None:
        raise ConfigError(source, problems)
    return params


def _read(paths: ParamFiles) -> tuple[str, dict[str, Any]]:
    """Return the names of the files that were read, and their values merged over the built-in ones."""
    tree = deepcopy(_built_in())
    if not paths and LOCAL.exists():
        found = _parse(LOCAL_SOURCE, _bytes(LOCAL))
        if Params.model_fields.keys() & found:
            return LOCAL_SOURCE, _merged(tree, found)
        _note_foreign()
    chosen = [paths] if isinstance(paths, Path) else list(paths or ())
    for path in chosen:
        found = _parse(str(path), _bytes(path))
        if found and not Params.model_fields.keys() & found:
            raise ConfigError(str(path), [f"expected sections {', '.join(Params.model_fields)}"])
        tree = _merged(tree, found)
    return ", ".join(map(str, chosen)) or BUILT_IN, tree


@cache
def _note_foreign() -> None:
    err.print("Note: ./params.yaml has no section of lissnas and is not used.", markup=False)


@cache
def _built_in() -> dict[str, Any]:
    return _parse(BUILT_IN, (files("lissnas") / "params.yaml").read_bytes())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file; omit --params to use the built-in values"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"can't be read: {error.strerror}"]) from None


def _parse(source: str, data: bytes) -> dict[str, Any]:
    """Return the mapping in a YAML file; raises ConfigError if it is not YAML or not a mapping."""
    try:
        tree = YAML(typ="safe", pure=True).load(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(source, [f"byte {error.start} is not UTF-8; save the file as UTF-8"]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise ConfigError(source, [f"{where}: {first_line(error.problem)}"]) from None
    except RecursionError:
        raise ConfigError(source, ["lists and mappings are nested too deeply"]) from None
    except Exception as error:  # ruamel's constructors pass on the errors of int(), strptime() and others
        raise ConfigError(source, [f"not YAML: {first_line(error)}"]) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(source, [f"expected sections {', '.join(Params.model_fields)}"])
    return tree


def _merged(below: dict[str, Any], above: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return `below` updated by `above`: mappings are merged; other values, and recipes with a base, are replaced."""
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
    """Set a value in the tree and create missing sections; return the problems of the path."""
    *sections, key = path.split(".")
    for i, name in enumerate(sections):
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            return [f"{path}: {'.'.join(sections[: i + 1])} is not a section"]
    tree[key] = value
    return []


def _inherited(recipes: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the recipes merged over their `base`, and an error line for each base that is unknown or cyclic.

    Recipes with an invalid base are omitted.
    """
    out: dict[str, Any] = {}
    problems = []
    for name in recipes:
        chain = [name]
        while isinstance(own := recipes.get(chain[-1]), dict) and "base" in own and chain.count(chain[-1]) == 1:
            chain.append(str(own["base"]))
        last = chain[-1]
        if chain.count(last) > 1:
            problems.append(f"recipes.{name}.base: cycle {' -> '.join(map(str, chain))}")
        elif last not in recipes:
            problems.append(f"recipes.{chain[-2]}.base: {unknown_name('recipe', str(last), map(str, recipes))}")
        elif not isinstance(recipes[last], dict):
            out[name] = recipes[last]
        else:
            layers = [recipes[one] for one in reversed(chain)]
            out[name] = {key: value for layer in layers for key, value in layer.items() if key != "base"}
    return out, list(dict.fromkeys(problems))


def _of_base(path: Sequence[Any], recipes: Any) -> bool:
    """Return whether an error is at a key that a recipe inherits: it is reported at the base already."""
    own = recipes.get(path[1]) if len(path) > 2 and path[0] == "recipes" else None
    return isinstance(own, dict) and "base" in own and path[2] not in own


def _line(error: Any, given: Mapping[str, str]) -> str:
    """Return a pydantic error as a line that starts with the dotted path."""
    path = ".".join(short(str(part)) for part in error["loc"])
    option = f" (option {given[path]})" if path in given else ""
    if error["type"] == "missing":
        return f"{path}: missing"
    if path in REMOVED:
        return f"{path}: removed; {REMOVED[path]}{option}"
    if error["type"] == "extra_forbidden":
        what = "key" if len(error["loc"]) > 1 else "section"
        name = unknown_name(what, str(error["loc"][-1]), _keys_of(error["loc"][:-1]))
        return f"{path}: {name}{option}"
    return f"{path}: {error['msg']}, found {_quoted(error['input'])}{option}"


def _quoted(value: Any) -> str:
    """Return a truncated representation of a value: YAML aliases can make nested lists exceed the memory."""
    try:
        return short(_QUOTE.repr(value))
    except ValueError:  # Python converts at most 4,300 digits to text
        return "a number of more than 4,300 digits"


def _keys_of(path: Sequence[str]) -> list[str]:
    """Return the keys of the schema at a path."""
    kind: Any = Params
    for part in path:
        is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
        kind = kind.model_fields[part].annotation if is_model else get_args(kind)[1]
    return list(kind.model_fields)


def _unknown_names(tree: Mapping[str, Any], benchmarks: list[str], spaces: list[str], methods: list[str]) -> list[str]:
    """Return an error line for each unregistered name in the tree, which may be otherwise invalid.

    The section `benchmarks` may name spaces too. Registries that the caller did not pass are not checked.
    """
    known = {
        ("benchmarks",): ("benchmark", [*benchmarks, *spaces] if spaces else []),
        ("ranking", "benchmarks"): ("benchmark", benchmarks),
        ("pipeline", "benchmarks"): ("benchmark", benchmarks),
        ("pipeline", "one_shot"): ("benchmark", benchmarks),
        ("compare", "methods"): ("method", methods),
        ("ranking", "methods"): ("method", [*FULL_SPACE, *methods] if methods else []),
    }
    lines = []
    for path, (what, names) in known.items():
        found: Any = tree
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        places = [(str(name), str(name)) for name in found] if isinstance(found, dict) else []
        if isinstance(found, list):
            places = [(str(i), name) for i, name in enumerate(found) if isinstance(name, str)]
        wrong = [(place, name) for place, name in places if names and name not in names]
        lines += [f"{'.'.join((*path, place))}: {unknown_name(what, name, names)}" for place, name in wrong]
    return lines
