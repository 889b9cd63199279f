"""The options that commands and flows share. `--help` imports this module, so it imports nothing heavy."""

from __future__ import annotations

import inspect
import os
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
    "lissnas, lissnas_paper, abs, abs_then_rank, abs_pairs, nse, nse_then_rank, padnas, padnas_then_rank, greedynas, "
    "greedynas_v2, dds, dds_then_rank, half_space, distilled, lamoo, hep_nas, dsm_nas, lapt, top30, top20, top10, "
    "top5, no_neighbors, no_locality, flops, params, flops_then_rank, best_first, best_first_quota, genetic, "
    "genetic_quota, score_all, lissnas_collect"
)
"""The names in `methods.METHODS`, repeated here because its import takes a second."""


def _option(text: str, **more: Any) -> Any:
    return typer.Option(help=text, **more)


def _checked_out(out: Path | None) -> Path | None:
    """Return the output folder; raises UserError, before any work, if files of the user are in the way."""
    if out is not None and os.path.lexists(out):  # nothing is in the way otherwise, in object storage neither
        from lissnas.artifacts.ownership import check_folder

        check_folder(out)
    return out


def out_option(text: str) -> Any:
    """Return an option for the output folder, which is checked before any work."""
    return typer.Option("--out", help=text, callback=_checked_out)


OutOption = Annotated[Path, out_option("Output folder.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Random seed.")]
BenchmarkOption = Annotated[str, typer.Option(help="Benchmark, e.g. nasbench101 (see `lissnas spaces`).")]
TableOption = Annotated[Path | None, typer.Option(help="Output folder of `lissnas data`. Default: the packaged table.")]
ThreadsOption = Annotated[
    int, typer.Option(min=0, max=MAX_THREADS, help="Number of threads; 0: one for each core. Does not change results.")
]
LocalityOption = Annotated[
    Path | None, typer.Option(help="Output folder of `lissnas locality`; its threshold distance limits max_edits.")
]
MethodsOption = Annotated[
    str | None, typer.Option(help=f"Methods, comma-separated, or all. Default: compare.methods. Available: {METHODS}.")
]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="Another shrinker alone: a rival, e.g. abs, or module:function.")
]
MoreMethodsOption = Annotated[
    list[str] | None,
    typer.Option("--method", metavar="MODULE:FUNCTION", help="Also compare a shrinker of your own; repeatable."),
]
SeedsOption = Annotated[str | None, typer.Option(help="Random seeds, e.g. 0,1,2 or 0-9. Default: from params.yaml.")]
SearchedOption = Annotated[
    str, typer.Option("--benchmark", help="Benchmark, or a space, e.g. fairnas (see `lissnas spaces`).")
]
PredictorOption = Annotated[
    Path | None, typer.Option("--predictor", help="Folder of a shrink: measure on its predictor, not the table.")
]
SubspaceOption = Annotated[
    Path, typer.Option("--subspace", help="subspace.parquet of a finished shrink, or its folder.")
]
SupernetOption = Annotated[
    Path | None, typer.Option("--supernet", help="Folder of a trained supernet. Default: train one in OUT/supernet.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace an existing result; labels of an oracle are requested again.")
]
KeepFailedOption = Annotated[
    bool, typer.Option("--keep-failed", help="Do not request again the labels that failed in an earlier run.")
]
ReuseAnswersOption = Annotated[
    bool, typer.Option("--reuse-answers", help="Use stored labels of another program, recipe or declaration too.")
]
ParamsOption = Annotated[
    list[Path] | None,
    typer.Option("--params", help="Parameter file, repeatable; later ones take precedence. Default: ./params.yaml."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one parameter, repeatable."),
]
NetworksOption = Annotated[int | None, typer.Option(help="Number of networks. Default: from params.yaml.")]

_source = partial(_option, rich_help_panel="Space and oracle")
GoalOption = Annotated[
    str | None,
    typer.Option(
        help="What labels are collected for: space, network, or both, half of each batch each. "
        "Default: space with a table, else both."
    ),
]
MinimizeOption = Annotated[
    bool | None,
    typer.Option(
        "--minimize/--maximize",
        help="Whether less or more of the metric is better, unless space.yaml declares it. Default: more.",
        rich_help_panel="Space and oracle",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class SourceOptions:
    """The space to shrink and its oracle: a benchmark, or a space with labels, a program or a model."""

    benchmark: Annotated[str | None, _source("Benchmark, e.g. nasbench101 (see `lissnas spaces`).")] = None
    table: Annotated[Path | None, _source("Output folder of `lissnas data`. Default: the packaged table.")] = None
    space: Annotated[str | None, _source("Instead of a benchmark: a space.yaml file, or the name of a space.")] = None
    labels: Annotated[Path | None, _source("Its labels, .csv or .parquet: architectures and their metric.")] = None
    metric: Annotated[str | None, _source("Column of the metric, if there are several candidates.")] = None
    minimize: MinimizeOption = None
    labels_from: Annotated[
        Literal["training", "surrogate"] | None,
        _source("Collect labels while shrinking, by training networks or from the space's published predictor."),
    ] = None
    oracle_command: Annotated[
        str | None, _source("Collect labels from a program: reads an architecture, prints a number on each line.")
    ] = None
    oracle_timeout: Annotated[
        float | None, _source("Its time limit for one architecture, in seconds. Default: none.", min=0.01)
    ] = None
    oracle_supernet: Annotated[Path | None, _source("Collect labels from a supernet of the full space (folder).")] = (
        None
    )
    oracle_model: Annotated[
        Path | None,
        _source("Evaluate by an XGBoost model (.ubj, .json) of the space's features, or the NAS-Bench-301 folder."),
    ] = None


@dataclass(frozen=True)
class Settings:
    """Parameter files, and overrides of single parameters."""

    params: ParamsOption = None
    assignments: SetOption = None
    networks_of: ClassVar[str] = ""
    """The section whose `networks` this group sets; `config.OPTIONS` maps all other options."""

    def overrides(self, more: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the overrides, dotted path -> value, of `--set`, the options and `more`; raises UserError."""
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
    """Target size, budgets and variant of a shrink."""

    target_size: Annotated[int | None, typer.Option(help="Architectures to keep (shrink.target_size).")] = None
    label_budget: Annotated[int | None, typer.Option(help="Labels to request (shrink.labels).")] = None
    max_queries: Annotated[int | None, typer.Option(help="Maximum number of architectures to score.")] = None
    variant: Annotated[str | None, typer.Option(help="Variant of the method: elite or paper.")] = None
    diversity: Annotated[
        float | None, typer.Option(help="Share reserved for each stratum of FLOPs (shrink.elite.diversity).")
    ] = None
    memory: Annotated[float | None, typer.Option(help="Memory limit of a shrink, in GiB.")] = None
    goal: GoalOption = None


@dataclass(frozen=True)
class TrainingSettings(Settings):
    """Device, threads and images for training."""

    device: Annotated[str | None, typer.Option(help="Device: cpu, cuda or auto.")] = None
    threads: Annotated[int | None, typer.Option(help="Threads on a CPU; 0: one for each core.")] = None
    source: Annotated[str | None, typer.Option(help="Images: packaged, cifar10, cifar100 or folder.")] = None
    folder: Annotated[str | None, typer.Option(help="Folder of CIFAR or of the images.")] = None


@dataclass(frozen=True)
class RetrainSettings(TrainingSettings):
    """Number of retrained networks, and training settings."""

    networks: NetworksOption = None
    networks_of: ClassVar[str] = "retrain"


@dataclass(frozen=True)
class SearchSettings(RetrainSettings):
    """What ranks networks in a search, and its cost limits."""

    by: Annotated[
        str | None,
        typer.Option(help="What ranks networks: all (labels, predictor, supernet), or one of them, or table."),
    ] = None
    max_mflops: Annotated[float | None, typer.Option(help="Maximum multiply-adds, in millions.")] = None
    max_mparams: Annotated[float | None, typer.Option(help="Maximum parameters, in millions.")] = None


@dataclass(frozen=True)
class LabelSettings(RetrainSettings):
    """Number of labelled networks, and training settings."""

    networks_of: ClassVar[str] = "label"


@dataclass(frozen=True)
class RankingSettings(RetrainSettings):
    """Number of ranked networks, and training settings."""

    networks_of: ClassVar[str] = "ranking"


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that has the fields of its dataclass parameters (`SourceOptions`, `Settings`) as options."""
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
    """Return the dotted path and the value, parsed as YAML, of `section.key=value`; raises UserError."""
    from ruamel.yaml import YAML

    path, _, value = text.partition("=")
    if not value or not re.fullmatch(r"[^.\s]+(\.[^.\s]+)+", path):
        raise UserError(f"--set {text!r}: expected section.key=value, e.g. --set shrink.elite.neighbors=12 (or =null)")
    try:
        return path, YAML(typ="safe", pure=True).load(value)
    except Exception:
        raise UserError(f"--set {text!r}: {value!r} is not valid YAML; quote a text with special characters") from None


def comparison_overrides(methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return the overrides of `--methods` and `--seeds` of a comparison; raises UserError for invalid seeds."""
    names = _names(methods)
    return _given({"compare.methods": "all" if names == ["all"] else names, "pipeline.seeds": seed_list(seeds)})


def ranking_overrides(benchmark: str, methods: str | None, seeds: str | None) -> dict[str, Any]:
    """Return the overrides of `--methods` and `--seeds` of a ranking; raises UserError for invalid seeds."""
    return _given({"ranking.methods": _names(methods), f"ranking.benchmarks.{benchmark}.seeds": seed_list(seeds)})


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {path: value for path, value in values.items() if value is not None}


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def seed_list(text: str | None) -> list[int] | None:
    """Return the distinct seeds of a text such as `0,1,2` or `0-9`, None for None; raises UserError."""
    if text is None:
        return None
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:\s*-\s*(\d{1,10}))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < first + MAX_SEEDS:
            raise UserError(f"--seeds: {part.strip()!r} is neither a seed nor a range such as 0-9 (in {text!r})")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
