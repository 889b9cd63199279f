"""Command-line options made from the configuration, so that each of its fields has one."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel

from lissnas import config
from lissnas.core.errors import UserError
from lissnas.shrinkers.methods import METHODS

MOST_SEEDS = 10_000
MOST_SUGGESTED = 1_000_000

PANEL = "Parameters (they override params.yaml)"

SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random draw.")]
BenchmarkOption = Annotated[str, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`).")]
ParamsOption = Annotated[
    Path | None,
    typer.Option("--params", help="Parameter file; else ./params.yaml, else the built-in values."),
]
TableOption = Annotated[Path | None, typer.Option(help="Folder that `lissnas data` wrote; else the packaged table.")]
ThreadsOption = Annotated[
    int, typer.Option(min=0, max=config.MOST_THREADS, help="Threads; 0 takes all cores. Never changes a result.")
]
LocalityOption = Annotated[
    Path | None, typer.Option(help="Folder that `lissnas locality` wrote; its threshold distance caps the edits.")
]
MethodsOption = Annotated[
    str | None,
    typer.Option(help=f"Methods, comma-separated, or all; else params.yaml's. Known: {', '.join(METHODS)}."),
]
SeedsOption = Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2 or 0-9; else params.yaml's.")]
SearchedOption = Annotated[
    str, typer.Option("--benchmark", help="Benchmark, or a space without one, e.g. fairnas (see `lissnas spaces`).")
]
SOURCE = "What to shrink, and who judges it"
SOURCE_OPTIONS: dict[str, Any] = {
    "benchmark": Annotated[
        str | None,
        typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`).", rich_help_panel=SOURCE),
    ],
    "table": Annotated[
        Path | None,
        typer.Option(help="Folder that `lissnas data` wrote; else the packaged table.", rich_help_panel=SOURCE),
    ],
    "space": Annotated[
        str | None,
        typer.Option(help="Instead: a space.yaml of your own, or the name of a space.", rich_help_panel=SOURCE),
    ],
    "labels": Annotated[
        Path | None,
        typer.Option(help="Its labels, .csv or .parquet: architectures and their metric.", rich_help_panel=SOURCE),
    ],
    "metric": Annotated[
        str | None, typer.Option(help="The labels' column to go by, where several could be.", rich_help_panel=SOURCE)
    ],
    "labels_from": Annotated[
        Literal["training"] | None,
        typer.Option(help="Collect labels while shrinking, by training networks.", rich_help_panel=SOURCE),
    ],
    "oracle_command": Annotated[
        str | None,
        typer.Option(
            help="Collect labels from a program: an architecture a line in, a number a line out.",
            rich_help_panel=SOURCE,
        ),
    ],
    "oracle_timeout": Annotated[
        float, typer.Option(help="Seconds that program may take for a batch of 64.", min=0.01, rich_help_panel=SOURCE)
    ],
    "oracle_supernet": Annotated[
        Path | None,
        typer.Option(help="Collect labels from a supernet of the whole space: its folder.", rich_help_panel=SOURCE),
    ],
    "oracle_model": Annotated[
        Path | None,
        typer.Option(
            help="Score by an XGBoost model (.ubj, .json) of the space's features, or NAS-Bench-301's imported folder.",
            rich_help_panel=SOURCE,
        ),
    ],
}
"""Options that say what to shrink, for the command and for the flow; `load_source` reads them."""
SOURCE_DEFAULTS: dict[str, Any] = {"oracle_timeout": 600.0}
PredictorOption = Annotated[
    Path | None, typer.Option("--predictor", help="Folder of a finished shrink: measure on its predictor instead.")
]
SubspaceOption = Annotated[
    Path, typer.Option("--subspace", help="subspace.parquet of a finished shrink, or the folder that has it.")
]
SupernetOption = Annotated[
    Path | None, typer.Option("--supernet", help="Folder of a trained supernet; else one is trained in OUT/supernet.")
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace what is in the folder.")]


SECTIONS: dict[str, list[tuple[str, type[BaseModel]]]] = {
    "shrink": [
        ("shrink", config.ShrinkConfig),
        ("shrink.method", config.EliteConfig),
        ("shrink.method", config.PaperConfig),
        ("predictor", config.PredictorConfig),
    ],
    "locality": [("locality", config.LocalityConfig)],
    "supernet": [
        ("supernet", config.SupernetConfig),
        ("torch", config.TorchConfig),
        ("images", config.ImagesConfig),
    ],
    "retrain": [
        ("retrain", config.RetrainConfig),
        ("supernet", config.SupernetConfig),
        ("torch", config.TorchConfig),
        ("images", config.ImagesConfig),
    ],
    "label": [
        ("label", config.LabelConfig),
        ("torch", config.TorchConfig),
        ("images", config.ImagesConfig),
    ],
    "ranking": [
        ("ranking", config.RankingConfig),
        ("supernet", config.SupernetConfig),
        ("torch", config.TorchConfig),
        ("images", config.ImagesConfig),
    ],
    "search": [
        ("search", config.SearchConfig),
        ("torch", config.TorchConfig),
        ("supernet", config.SupernetConfig),
        ("retrain", config.RetrainConfig),
        ("images", config.ImagesConfig),
    ],
}
"""The sections of the configuration that a command's options override."""


def config_options(stage: str) -> dict[str, tuple[str, Any]]:
    """Return for each option of a stage its dotted path in the configuration, and its annotation."""
    found: dict[str, tuple[str, Any]] = {}
    for path, section in SECTIONS[stage]:
        for own, field in section.model_fields.items():
            name = config.option_name(f"{path}.{own}")
            kind = _plain_type(field.annotation)
            if kind is not None and name not in found:
                option = typer.Option(help=f"{field.description} ({path}.{own})", rich_help_panel=PANEL)
                found[name] = (f"{path}.{own}", Annotated[kind | None, option])
    return found


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command, which takes `given`, the options that say what to shrink."""
    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != "given"]
    more = [
        inspect.Parameter(name, keyword, default=SOURCE_DEFAULTS.get(name), annotation=annotation)
        for name, annotation in SOURCE_OPTIONS.items()
    ]

    def wrapper(**given: Any) -> None:
        source = {name: given.pop(name) for name in SOURCE_OPTIONS}
        command(**given, given=source)

    return _shaped(wrapper, command, [*more, *own])


def _shaped(
    wrapper: Callable[..., None], command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    """Give a wrapper the name and text of what it wraps, and its own parameters."""
    wrapper.__doc__ = command.__doc__
    wrapper.__name__ = command.__name__
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return wrapper


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


def with_config_options(stage: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command, which takes `overrides`, an option for every field of its stage's configuration."""
    return lambda command: _with_options(command, config_options(stage))


def _with_options(command: Callable[..., None], options: Mapping[str, tuple[str, Any]]) -> Callable[..., None]:
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

    return _shaped(wrapper, command, [p.replace(kind=keyword) for p in own] + extra)


def comparison_overrides(methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return what `--methods` and `--seeds` override; raises UserError for seeds that don't parse."""
    found: dict[str, Any] = {}
    if methods is not None:
        names = [name.strip() for name in methods.split(",") if name.strip()]
        found["compare.methods"] = "all" if names == ["all"] else names
    if seeds is not None:
        found["pipeline.seeds"] = seed_list(seeds)
    return found


def ranking_overrides(benchmark: str, methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return what `--methods` and `--seeds` of a ranking override; raises UserError for seeds that don't parse."""
    found: dict[str, Any] = {}
    if methods is not None:
        found["ranking.methods"] = [name.strip() for name in methods.split(",") if name.strip()]
    if seeds is not None:
        found[f"ranking.benchmarks.{benchmark}.seeds"] = seed_list(seeds)
    return found


def seed_list(text: str) -> list[int]:
    """Return the seeds of `0,1,2` or `0-9`, each once; raises UserError."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MOST_SEEDS:
            raise UserError(f"--seeds: {part.strip()!r} is neither a seed nor a range such as 0-9 (given {text!r})")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


__all__ = [
    "BenchmarkOption",
    "ForceOption",
    "LocalityOption",
    "MethodsOption",
    "ParamsOption",
    "PredictorOption",
    "SearchedOption",
    "SeedOption",
    "SeedsOption",
    "SubspaceOption",
    "SupernetOption",
    "TableOption",
    "ThreadsOption",
    "comparison_overrides",
    "ranking_overrides",
    "with_config_options",
    "with_source_options",
]
