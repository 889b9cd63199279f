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

from lissnas import benchmarks, comparison, config, spaces, store
from lissnas.benchmarks import Benchmark
from lissnas.benchmarks.official import nasbench301_models
from lissnas.errors import Problems, UserError
from lissnas.labels import read_labels
from lissnas.oracles import Oracle
from lissnas.predictor import Scorer
from lissnas.redaction import without_passwords
from lissnas.remote import here
from lissnas.sources import Source, from_space, get_space
from lissnas.spaces import Space
from lissnas.spaces.declared import Declared
from lissnas.stages.base import need_torch
from lissnas.stages.label import TrainingOracle
from lissnas.user_oracles import CommandOracle, Remembered, SurrogateScorer, model_scorer

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
    typer.Option(help=f"Methods, comma-separated, or all; else params.yaml's. Known: {', '.join(comparison.METHODS)}."),
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


def load(
    benchmark: str, params: Path | None, overrides: Mapping[str, Any], table: Path | None
) -> tuple[config.Params, Benchmark]:
    """Return checked parameters and the benchmark; raises with all that is wrong, writing nothing."""
    # NAME@METRIC is a metric of an imported table, which says itself what it doesn't have.
    checked = load_params(params, overrides, [] if "@" in benchmark else [("--benchmark", benchmark)])
    source = benchmarks.get(benchmark) if table is None else benchmarks.read_prepared(benchmark, table)
    return checked, source


def load_source(
    given: Mapping[str, Any], params: Path | None, overrides: Mapping[str, Any], out: Path
) -> tuple[config.Params, Source]:
    """Return checked parameters and what to shrink: a benchmark, or a space and who judges it (`SOURCE_OPTIONS`).

    `out` is the folder of the result; answers of a user's oracle are kept beside it. Raises with all that is
    wrong, writing nothing.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    if ("benchmark" in asked) == ("space" in asked):
        raise UserError("give either --benchmark, a table of true accuracies, or --space, a space and --labels")
    if "benchmark" in asked:
        if extra := sorted(asked.keys() - {"benchmark", "table", "oracle_timeout"}):
            raise UserError(f"--{extra[0].replace('_', '-')} belongs to --space; a benchmark is judged by its table")
        checked, benchmark = load(asked["benchmark"], params, overrides, asked.get("table"))
        return checked, Source.of(benchmark)
    if "table" in asked:
        raise UserError("--table belongs to --benchmark; a space is judged by --labels or an oracle")
    judges = [name for name in ("labels_from", "oracle_command", "oracle_supernet", "oracle_model") if name in asked]
    if len(judges) > 1:
        raise UserError(f"--{judges[0].replace('_', '-')} and --{judges[1].replace('_', '-')}: one oracle is enough")
    if "oracle_model" in asked and "labels" in asked:
        raise UserError(
            "--labels: a model is asked directly and learns from none; leave --labels or --oracle-model out"
        )
    problems = Problems()
    read_params = problems.of(lambda: load_params(params, overrides))
    read_space = problems.of(lambda: get_space(asked["space"]))
    if read_params is None and read_space is not None and "labels" in asked:
        problems.of(lambda: read_labels(asked["labels"], read_space, asked.get("metric")))
    problems.raise_any()
    assert read_params is not None
    assert read_space is not None
    checked, space = for_space(read_params, read_space), read_space
    oracle, scorer, judge = _judge_of(asked, checked, space, here(out))
    return checked, from_space(space, asked.get("labels"), asked.get("metric"), oracle, scorer, judge)


def _judge_of(
    asked: Mapping[str, Any], checked: config.Params, space: Space, out: Path
) -> tuple[Oracle | None, Scorer | None, str]:
    """Return the oracle or the scorer that was asked for, and a word on who it is; neither where labels are all."""
    if "oracle_command" in asked:
        judge = f"command {without_passwords(asked['oracle_command'])}"
        command = CommandOracle.parse(space, asked["oracle_command"], asked["oracle_timeout"])
        return Remembered(command, space, out.parent / f".{out.name}.answers", judge), None, judge
    if "oracle_model" in asked:
        return None, *_model_of(asked["oracle_model"], space)
    if "oracle_supernet" in asked:
        need_torch("a supernet")
        from lissnas.stages.one_shot import supernet_judge  # torch takes seconds to load

        oracle, digest = supernet_judge(checked, space, None, asked["oracle_supernet"])
        asked_with = checked.search.model_dump(include={"images", "batch_size", "recalibration_batches"})
        return oracle, None, f"supernet {store.digest({'supernet': digest, **asked_with})}"
    if "labels_from" in asked:
        trained = TrainingOracle.of(checked, space, out.parent / f".{out.name}.training")
        return trained, None, trained.about
    return None, None, ""


def _model_of(path: Path, space: Space) -> tuple[Scorer, str]:
    """Return a model file as a scorer, or NAS-Bench-301's imported models, and a word on which it is."""
    if not path.is_dir():
        return model_scorer(path, space), f"model {store.sha256(path.read_bytes())}"
    if space.name != "nasbench301" or isinstance(space, Declared):
        raise UserError(f"--oracle-model: {path} is a folder; only NAS-Bench-301's imported models are asked in one")
    values = nasbench301_models.ensemble(path)
    return SurrogateScorer(values), f"models {store.sha256((path / store.MANIFEST).read_bytes())}"


def for_space(params: config.Params, space: Space) -> config.Params:
    """Return the parameters without what benchmarks have of their own, as one of which a user's space may be called."""
    return params.model_copy(update={"benchmarks": {}}) if isinstance(space, Declared) else params


def load_searched(
    name: str, params: Path | None, overrides: Mapping[str, Any], table: Path | None
) -> tuple[config.Params, Space, Benchmark | None]:
    """Return checked parameters, the space to search, and its table of true values where `name` is a benchmark."""
    if name in spaces.names() and name not in benchmarks.names():
        if table is not None:
            raise UserError(f"--table: {name} is a space without a benchmark, so no table belongs to it")
        return config.sized(load_params(params, overrides), name), spaces.get(name), None
    checked, source = load(name, params, overrides, table)
    return config.sized(checked, name), source.space, source


def load_params(
    params: Path | None, overrides: Mapping[str, Any], asked: Sequence[tuple[str, str]] = ()
) -> config.Params:
    """Return parameters checked against all registries."""
    return config.load(params, overrides, benchmarks.names(), asked, comparison.METHODS, spaces.names())


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
    "load",
    "load_params",
    "load_searched",
    "load_source",
    "ranking_overrides",
    "with_config_options",
    "with_source_options",
]
