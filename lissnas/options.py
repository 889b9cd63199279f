"""Command-line options made from the configuration, so that each of its fields has one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import BaseModel

from lissnas import benchmarks, config
from lissnas.benchmarks import Benchmark

PANEL = "Parameters (they override params.yaml)"

SeedOption = Annotated[int, typer.Option(help="Seed of every random draw.")]
BenchmarkOption = Annotated[str, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`).")]
ParamsOption = Annotated[
    Path | None,
    typer.Option("--params", help="Parameter file; else ./params.yaml, else the built-in values."),
]
TableOption = Annotated[Path | None, typer.Option(help="Folder that `lissnas data` wrote; else the packaged table.")]
ThreadsOption = Annotated[int, typer.Option(min=0, help="Threads; 0 takes all cores. Never changes a result.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")]


def config_options() -> dict[str, tuple[str, Any]]:
    """Return for each option its dotted path in the configuration, and its annotation."""
    found: dict[str, tuple[str, Any]] = {}
    sections: list[tuple[str, type[BaseModel]]] = [
        ("shrink", config.ShrinkConfig),
        ("shrink.method", config.EliteConfig),
        ("shrink.method", config.PaperConfig),
        ("predictor", config.PredictorConfig),
    ]
    for path, section in sections:
        for name, field in section.model_fields.items():
            kind = _plain_type(field.annotation)
            if kind is not None and name not in found:
                option = typer.Option(help=f"{field.description} ({path}.{name})", rich_help_panel=PANEL)
                found[name] = (f"{path}.{name}", Annotated[kind | None, option])
    return found


def _plain_type(annotation: Any) -> type | None:
    """Return int, float or str for a field that one word on the command line can set."""
    if isinstance(annotation, type):
        return annotation if annotation in (int, float, str) else None
    if get_origin(annotation) in (Union, UnionType):
        kinds = {_plain_type(a) for a in get_args(annotation)} - {None, type(None)}
        return kinds.pop() if len(kinds) == 1 else None
    if get_origin(annotation) is Annotated:
        return _plain_type(get_args(annotation)[0])
    return str if get_args(annotation) and all(isinstance(a, str) for a in get_args(annotation)) else None


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, which takes `overrides`, an option for every field of the configuration."""
    options = config_options()
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.name != "overrides"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [
        inspect.Parameter(name, keyword, default=None, annotation=annotation)
        for name, (_, annotation) in options.items()
    ]

    def wrapper(**given: Any) -> None:
        overrides = {path: given.pop(name) for name, (path, _) in options.items()}
        command(**given, overrides={k: v for k, v in overrides.items() if v is not None})

    wrapper.__doc__ = command.__doc__
    wrapper.__name__ = command.__name__
    wrapper.__signature__ = inspect.Signature([p.replace(kind=keyword) for p in own] + extra)  # type: ignore[attr-defined]
    return wrapper


def load(
    benchmark: str, params: Path | None, overrides: Mapping[str, Any], table: Path | None
) -> tuple[config.Params, Benchmark]:
    """Return checked parameters and the benchmark; raises with all that is wrong, writing nothing."""
    checked = config.load(params, overrides, benchmarks.names(), [("--benchmark", benchmark)])
    source = benchmarks.get(benchmark) if table is None else benchmarks.read_prepared(benchmark, table)
    return checked, source


__all__ = [
    "BenchmarkOption",
    "ForceOption",
    "ParamsOption",
    "SeedOption",
    "TableOption",
    "ThreadsOption",
    "load",
    "with_config_options",
]
