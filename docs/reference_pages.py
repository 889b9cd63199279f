"""Write the reference pages of the command line and of params.yaml, from the code, when the site is built.

MkDocs loads this file as a hook (mkdocs.yml). Nothing that it makes is committed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files as package_files
from typing import Any

from ruamel.yaml import YAML
from typer.main import get_command

from lissnas.cli.app import app
from lissnas.config import Params
from lissnas.config.schema import MAX_COUNT

COMMAND_LINE = "reference/command_line.md"
PARAMETERS = "reference/params.md"
MAPPINGS = ("recipes", "benchmarks", "ranking.benchmarks")
"""Sections whose keys are user-defined names; all entries have the same parameters."""


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to the site; a hook of MkDocs."""
    from mkdocs.structure.files import File

    for path, text in ((COMMAND_LINE, command_line()), (PARAMETERS, parameters())):
        files.append(File.generated(config, path, content=text))
    return files


# -- the command line ------------------------------------------------------------------------------
def commands(name: str = "lissnas", command: Any = None) -> Iterator[tuple[str, Any]]:
    """Yield the full name and the parser of `lissnas` and of each of its commands, groups before their members."""
    root = get_command(app) if command is None else command
    yield name, root
    for word, inner in sorted(getattr(root, "commands", {}).items()):
        yield from commands(f"{name} {word}", inner)


def command_line() -> str:
    """Return the page of the command line: usage, arguments and options of each command."""
    text = [
        "# Command line\n",
        "This page lists every command and option of `lissnas`, as `--help` prints them.\n",
        "Exit codes: 0 for success, 1 for a failure, 2 for invalid input (nothing was written).\n",
        "Every flow takes the options of its command: `python -m flows.shrink --help`. A parameter without an option "
        "is set with `--set section.key=value`; [params.yaml](params.md) lists them all.\n",
    ]
    for name, command in commands():
        context = command.make_context(name, [], resilient_parsing=True)
        text.append(f"{'#' * (1 + len(name.split()))} {name}\n")
        text.append(f"{_prose(command.help or '')}\n")
        text.append(f"```text\n{command.get_usage(context).removeprefix('Usage: ').strip()}\n```\n")
        panels: dict[str, list[list[str]]] = {}
        for parameter in command.params:
            if (record := parameter.get_help_record(context)) is not None:
                kind = "Options" if record[0].startswith("-") else "Arguments"
                panel = getattr(parameter, "rich_help_panel", None) or kind
                panels.setdefault(panel, []).append([_code(record[0]), _prose(record[1])])
        for panel in sorted(panels, key=lambda title: title == "Options"):
            text.append(_table([panel, "what it does"], panels[panel]))
    return "\n".join(text)


# -- params.yaml -----------------------------------------------------------------------------------
def parameters() -> str:
    """Return the page of params.yaml: each parameter with its type, range, built-in value and meaning."""
    source = (package_files("lissnas") / "params.yaml").read_text(encoding="utf-8")
    values, schema = YAML(typ="safe", pure=True).load(source), Params.model_json_schema()
    text = [
        "# params.yaml\n",
        "This page lists every parameter with its type, range and built-in value. It is generated from the schema in "
        "`lissnas/config/schema.py`.\n",
        "`--set section.key=value` overrides one parameter; `--params FILE` lays a file over the built-in values. Both "
        "can be repeated, and later ones win. Without `--params`, `./params.yaml` is read if it exists. All problems "
        "of all files are reported together, with exit code 2.\n",
        f"An integer without an upper limit below is at most {MAX_COUNT:,}, which is exact as a float too.\n",
    ]
    for section in schema["properties"]:
        text.extend(_section(section, schema["properties"][section], values[section], schema, _comments(source)))
    return "\n".join(text)


def _section(
    path: str, about: Mapping[str, Any], value: Any, schema: Mapping[str, Any], comments: Mapping[str, str]
) -> Iterator[str]:
    """Yield heading, purpose and table of a section, then its inner sections."""
    section = _resolved(about, schema)
    yield f"{'#' * (2 + path.count('.'))} {path}\n"
    if path in MAPPINGS:
        entry = _resolved(section["additionalProperties"], schema)
        yield f"{entry['description'].splitlines()[0]} One entry for each name.\n"
        rows = [[_code(f"{path}.NAME.{key}"), *_meaning(one, schema, "")] for key, one in entry["properties"].items()]
        yield _table(["parameter", "type and range", "meaning"], rows)
        yield "Built-in entries:\n"
        yield _table(["name", "values"], [[_code(name), _code(_flow(entry))] for name, entry in value.items()])
        return
    yield f"{section['description'].splitlines()[0]}\n"
    inner = {key: one for key, one in section["properties"].items() if "properties" in _resolved(one, schema)}
    inner |= {key: one for key, one in section["properties"].items() if f"{path}.{key}" in MAPPINGS}
    rows = [
        [_code(f"{path}.{key}"), kind, _code(_flow(value[key])), meaning]
        for key, one in section["properties"].items()
        if key not in inner
        for kind, meaning in [_meaning(one, schema, comments.get(f"{path}.{key}", ""))]
    ]
    if rows:
        yield _table(["parameter", "type and range", "built-in value", "meaning"], rows)
    for key, one in inner.items():
        yield from _section(f"{path}.{key}", one, value[key], schema, comments)


def _meaning(about: Mapping[str, Any], schema: Mapping[str, Any], comment: str) -> tuple[str, str]:
    described = about.get("description") or next(
        (one["description"] for one in about.get("anyOf", ()) if "description" in one), comment
    )
    return _kind(about, schema), _prose(described)


def _kind(about: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return the type and range of a parameter in words."""
    if "anyOf" in about:
        return " or ".join(_kind(one, schema) for one in about["anyOf"])
    if "const" in about:
        return _code(str(about["const"]))
    if "enum" in about:
        return ", ".join(_code(str(one)) for one in about["enum"])
    kind = about.get("type", "mapping")
    if kind == "array":
        return f"list of {_kind(about['items'], schema)}"
    words = {
        "integer": "integer",
        "number": "number",
        "boolean": "`true` or `false`",
        "string": "text",
        "null": "`null`",
    }
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {_number(about[k])}" for k, sign in signs.items() if about.get(k, MAX_COUNT) != MAX_COUNT]
    return " ".join([words.get(kind, kind), ", ".join(limits)]).strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _comments(source: str) -> dict[str, str]:
    """Return the comment at the end of the line of each parameter, by dotted path."""
    found, path = dict[str, str](), list[str]()
    for line in source.splitlines():
        if match := re.match(r"( *)([\w/]+):.*?(?: # ?(.*))?$", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            found[".".join(path)] = match[3] or ""
    return found


def _resolved(about: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in about:
        return about
    target: Mapping[str, Any] = schema["$defs"][about["$ref"].rpartition("/")[2]]
    return target


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_flow(one)}" for key, one in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


# -- Markdown --------------------------------------------------------------------------------------
def _code(text: str) -> str:
    return f"`{text}`"


def _prose(text: str) -> str:
    """Return a text as a Markdown paragraph or table cell, with `<` and `|` escaped."""
    return " ".join(text.split()).replace("<", "&lt;").replace("|", r"\|")


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
