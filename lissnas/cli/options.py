"""The options that commands and flows share, each defined once. Nothing heavy is imported: `--help` shows them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import typer

from lissnas.core.errors import UserError

MAX_SEEDS = 10_000
MAX_SUGGESTED = 1_000_000
MAX_THREADS = 4_096
METHODS = (
    "lissnas, lissnas_paper, abs, nse, padnas, greedynas, greedynas_v2, dds, top30, top20, top10, top5, "
    "no_neighbors, no_locality, flops, params, score_all, lissnas_collect"
)
"""The names of `comparison.METHODS`, which takes a second to import."""


def _option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, **more)


SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every random draw.")]
BenchmarkOption = Annotated[str, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`).")]
TableOption = Annotated[Path | None, typer.Option(help="Folder that `lissnas data` wrote; else the packaged table.")]
ThreadsOption = Annotated[
    int, typer.Option(min=0, max=MAX_THREADS, help="Threads; 0 takes all cores. Never changes a result.")
]
LocalityOption = Annotated[
    Path | None, typer.Option(help="Folder that `lissnas locality` wrote; its threshold distance caps the edits.")
]
MethodsOption = Annotated[
    str | None, typer.Option(help=f"Methods, comma-separated, or all; else params.yaml's. Known: {METHODS}.")
]
SeedsOption = Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2 or 0-9; else params.yaml's.")]
SearchedOption = Annotated[
    str, typer.Option("--benchmark", help="Benchmark, or a space without one, e.g. fairnas (see `lissnas spaces`).")
]
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
ParamsOption = Annotated[
    list[Path] | None,
    typer.Option("--params", help="Parameter file, repeatable, later ones override earlier ones; else ./params.yaml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a value of params.yaml, repeatable."),
]
NetworksOption = Annotated[int | None, typer.Option(help="Number of networks; else params.yaml's.")]

_source = partial(_option, rich_help_panel="What to shrink, and what scores it")


@dataclass(frozen=True)
class SourceOptions:
    """What to shrink: a benchmark by its table, or a space and what scores it."""

    benchmark: Annotated[str | None, _source("Benchmark, e.g. nasbench101 (see `lissnas spaces`).")] = None
    table: Annotated[Path | None, _source("Folder that `lissnas data` wrote; else the packaged table.")] = None
    space: Annotated[str | None, _source("Instead: a space.yaml of your own, or the name of a space.")] = None
    labels: Annotated[Path | None, _source("Its labels, .csv or .parquet: architectures and their metric.")] = None
    metric: Annotated[str | None, _source("The labels' column to go by, where several could be.")] = None
    labels_from: Annotated[
        Literal["training"] | None, _source("Collect labels while shrinking, by training networks.")
    ] = None
    oracle_command: Annotated[
        str | None, _source("Collect labels from a program: an architecture a line in, a number a line out.")
    ] = None
    oracle_timeout: Annotated[float, _source("Seconds that program may take for a batch of 64.", min=0.01)] = 600.0
    oracle_supernet: Annotated[
        Path | None, _source("Collect labels from a supernet of the whole space: its folder.")
    ] = None
    oracle_model: Annotated[
        Path | None,
        _source("Score by an XGBoost model (.ubj, .json) of the space's features, or NAS-Bench-301's imported folder."),
    ] = None


@dataclass(frozen=True)
class Settings:
    """Parameter files, and single values that override them."""

    params: ParamsOption = None
    assignments: SetOption = None
    networks_of: ClassVar[str] = ""
    """The section whose `networks` is set here; `config.OPTIONS` has the parameters of all other options."""

    def overrides(self, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return dotted path -> value: those of `--set`, of the options, and `more`; raises UserError."""
        from lissnas.config import OPTIONS

        given = {
            path: value
            for path, name in OPTIONS.items()
            if name != "networks" or path == f"{self.networks_of}.networks"
            if (value := getattr(self, name, None)) is not None
        }
        return {**dict(map(_assignment, self.assignments or ())), **given, **(more or {})}


@dataclass(frozen=True)
class ShrinkSettings(Settings):
    """How far to shrink, at what cost."""

    target_size: Annotated[int | None, typer.Option(help="Architectures to shrink the space to.")] = None
    label_budget: Annotated[int | None, typer.Option(help="True accuracies to request (shrink.labels).")] = None
    max_queries: Annotated[int | None, typer.Option(help="Distinct architectures sent to the predictor.")] = None
    variant: Annotated[str | None, typer.Option(help="Variant of the method: elite or paper.")] = None
    diversity: Annotated[
        float | None, typer.Option(help="Share reserved for each stratum of FLOPs (shrink.elite.diversity).")
    ] = None
    memory: Annotated[float | None, typer.Option(help="GiB that a shrink may take.")] = None


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Where networks are trained, and on which images."""

    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda or auto.")] = None
    threads: Annotated[int | None, typer.Option(help="Threads on a CPU; 0: one a core.")] = None
    source: Annotated[str | None, typer.Option(help="Images: packaged, cifar10, cifar100 or folder.")] = None
    folder: Annotated[str | None, typer.Option(help="Folder of CIFAR or of the images.")] = None


@dataclass(frozen=True)
class RetrainSettings(TrainingSettings):
    """How many networks are retrained, and where."""

    networks: NetworksOption = None
    networks_of: ClassVar[str] = "retrain"


@dataclass(frozen=True)
class SearchSettings(RetrainSettings):
    """What scores networks in a search, and the limits that they keep."""

    oracle: Annotated[
        str | None, typer.Option(help="What scores networks in the search: supernet, table or predictor.")
    ] = None
    max_mflops: Annotated[float | None, typer.Option(help="Maximum of multiply-adds, in millions.")] = None
    max_mparams: Annotated[float | None, typer.Option(help="Maximum of parameters, in millions.")] = None


@dataclass(frozen=True)
class LabelSettings(RetrainSettings):
    """How many networks are labelled, and where."""

    networks_of: ClassVar[str] = "label"


@dataclass(frozen=True)
class RankingSettings(RetrainSettings):
    """How many networks are ranked, and where."""

    networks_of: ClassVar[str] = "ranking"


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that are the fields of its dataclass parameters (`SourceOptions`, `Settings`)."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)}
    flat = []
    for own in signature.parameters.values():
        if own.name not in groups:
            flat.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(groups[own.name], include_extras=True)
        flat += [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
            for f in fields(groups[own.name])
        ]

    def wrapper(**given: Any) -> None:
        made = {name: group(**{f.name: given.pop(f.name) for f in fields(group)}) for name, group in groups.items()}
        command(**given, **made)

    wrapper.__doc__ = command.__doc__
    wrapper.__name__ = command.__name__
    wrapper.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    return wrapper


def _assignment(text: str) -> tuple[str, Any]:
    """Return the dotted path and the value of `section.key=value`, the value read as YAML; raises UserError."""
    from ruamel.yaml import YAML

    path, _, value = text.partition("=")
    if not value or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", path):
        raise UserError(f"--set {text!r}: expected section.key=value, e.g. --set shrink.elite.neighbors=12 (or =null)")
    try:
        return path, YAML(typ="safe", pure=True).load(value)
    except Exception:
        raise UserError(f"--set {text!r}: {value!r} is not YAML; quote a text that has special characters") from None


def comparison_overrides(methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return what `--methods` and `--seeds` override; raises UserError for seeds that don't parse."""
    names = _names(methods)
    return _given({"compare.methods": "all" if names == ["all"] else names, "pipeline.seeds": seed_list(seeds)})


def ranking_overrides(benchmark: str, methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return what `--methods` and `--seeds` of a ranking override; raises UserError for seeds that don't parse."""
    return _given({"ranking.methods": _names(methods), f"ranking.benchmarks.{benchmark}.seeds": seed_list(seeds)})


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in values.items() if value is not None}


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def seed_list(text: str | None) -> list[int] | None:
    """Return the seeds of `0,1,2` or `0-9`, each once; None for None. Raises UserError."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_SEEDS:
            raise UserError(f"--seeds: {part.strip()!r} is neither a seed nor a range such as 0-9 (given {text!r})")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
