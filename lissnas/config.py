"""params.yaml as frozen records: checked once, all problems reported together with their paths."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    NodeEvent,
    ScalarEvent,
)

from lissnas.errors import ConfigError, first_line, short, unknown_name

LARGEST = 2**53
"""No number counts more than this: it is exact as a float too."""
Count: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST)]
Amount: TypeAlias = Annotated[int, Field(ge=0, le=LARGEST)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Width: TypeAlias = Annotated[float, Field(gt=0, le=4)]

MIN_LABELS = 20
"""Fewer labels than this say nothing about a space."""
LabelCount: TypeAlias = Annotated[int, Field(ge=MIN_LABELS, le=LARGEST)]

FULL_SPACE = ("full", "full_balanced")
"""What a ranking has beside the methods: the whole space, its paths drawn uniformly or by parameters."""

LEAST_FIRST = 250
"""Smallest first sample by rule, where the space has twice as many."""
MOST_THREADS = 4_096
CLASHING = ("recipe", "seed", "images")
"""Fields that several sections have, or a command itself: their options get the section's name before."""
RENAMED = {"shrink.labels": "label_budget"}
"""`--labels` is the file of labels that there are already."""
DEEPEST, LONGEST, MOST_NODES = 20, 1_000, 20_000
"""Nesting of params.yaml, characters of a text in it, and its nodes with each alias written out."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PipelineConfig(_Section):
    """What `dvc repro` runs."""

    benchmarks: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    one_shot: list[str] = Field(description="benchmarks whose space of the first seed is searched and retrained")


class PredictorConfig(_Section):
    """XGBoost's settings, and how many architectures assess it."""

    trees: Count = Field(description="boosting rounds")
    depth: Annotated[int, Field(ge=1, le=32, description="depth of a tree")]
    eta: Share = Field(description="learning rate")
    subsample: Share = Field(description="share of the labels that a tree sees")
    colsample: Share = Field(description="share of the features that a tree sees")
    min_child_weight: Annotated[float, Field(ge=0, le=LARGEST, description="least number of labels in a leaf")]
    held_out: Count = Field(description="architectures that the predictor stage assesses it on")


class LocalityConfig(_Section):
    """The locality stage: random walks, pairs at exact distance, and how far to trust small samples."""

    seed: Seed = Field(description="seed of the locality study")
    pairs: Annotated[int, Field(ge=100, le=10**6, description="pairs at each distance and kind of edit")]
    distances: Annotated[int, Field(ge=1, le=8, description="distances measured in any case; more while not weak")]
    walks: Annotated[int, Field(ge=2, le=10**5, description="random walks")]
    steps: Annotated[int, Field(ge=1, le=10**5, description="steps of a walk")]
    lags: Count = Field(description="lags of the autocorrelation")
    resamples: Annotated[int, Field(ge=100, le=10**5, description="bootstrap resamples of an interval")]
    sample: Annotated[int, Field(ge=10, le=LARGEST, description="networks of a sample that should stand for the space")]
    repeats: Count = Field(description="how many such samples are drawn")


class CompareConfig(_Section):
    """The compare stage: which methods, and the trade of mean against diversity."""

    methods: Annotated[list[str], Field(min_length=1)] | Literal["all"]
    diversities: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class ImagesConfig(_Section):
    """The images that networks are trained and judged on."""

    source: Literal["packaged", "cifar10", "cifar100", "folder"] = Field(description="where images come from")
    folder: str | None = Field(description="where cifar or a folder of images is; packaged images need none")
    download: bool
    side: Annotated[int, Field(ge=8, le=1024, description="side of an image in pixels")]
    validation: Count = Field(description="training images set apart to select on; test images are only reported")
    seed: Seed


class TrainingConfig(_Section):
    """A recipe: how weights are trained, of a supernet or of a network on its own."""

    steps: Count = Field(description="optimiser steps")
    batch_size: Count = Field(description="images of a step, over all processes")
    rate: Annotated[float, Field(gt=0, le=1e9, description="learning rate after warm-up")]
    schedule: Literal["cosine", "linear"] = Field(description="how the rate falls to zero")
    warmup: Amount = Field(description="steps of linear warm-up")
    momentum: Annotated[float, Field(ge=0, lt=1, description="Nesterov momentum")]
    weight_decay: Annotated[float, Field(ge=0, le=1e9, description="of weights; norms and biases don't decay")]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)]
    ghost_batch: Amount = Field(description="images that share batch statistics; 0: all of a process")
    clip: Annotated[float, Field(ge=0, le=1e9, description="largest norm of a gradient; 0: no limit")]
    ema: Annotated[float, Field(ge=0, lt=1, description="decay of the moving average of weights; 0: none")]
    curriculum: Annotated[float, Field(ge=0, le=1, description="share of the steps that widens from one path to all")]
    padding: Amount = Field(description="pixels of zeros that a random crop may take in")
    flip: bool
    cutout: Amount = Field(description="side of the square that is cut out; 0: none")
    jitter: Annotated[float, Field(ge=0, lt=1, description="change of brightness, contrast and saturation, at most")]
    mixed_precision: bool
    channels_last: bool
    checkpoint_every: Count
    report_every: Count


class TorchConfig(_Section):
    """Where torch computes; no part of what a result is a function of."""

    device: str = Field(description="cpu, cuda, or auto")
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS, description="threads on a CPU; 0: one a core")]


class SupernetConfig(_Section):
    """The supernet stage."""

    width: Width | None = Field(description="multiplies all channels; the benchmark's if not given")
    stem_stride: Count | None = Field(description="stride of the stem; the published one if not given")
    sampler: Literal["uniform", "fair", "balanced"] = Field(description="which paths a step trains")
    shots: Annotated[int, Field(ge=1, le=64, description="supernets of a K-shot dictionary; 1: a single one")]
    recipe: str = Field(description="the section of recipes that trains it")


class SearchConfig(_Section):
    """The search stage: evolution with SPOS' settings, and how a path of a supernet is judged."""

    oracle: Literal["supernet", "table", "predictor"] = Field(description="who judges a network")
    population: Count = Field(description="networks of a generation")
    generations: Count
    parents: Count = Field(description="best networks that a generation comes from")
    mutation: Share = Field(description="probability that a decision is redrawn; at most two are at once")
    top: Count = Field(description="networks that are returned, and retrained")
    max_mflops: Annotated[float, Field(gt=0, le=1e12)] | None = Field(description="most multiply-adds, in millions")
    max_mparams: Annotated[float, Field(gt=0, le=1e12)] | None = Field(description="most parameters, in millions")
    images: Count = Field(description="validation images that a path is judged on, at most")
    batch_size: Count
    recalibration_batches: Amount = Field(description="batches that norms are recalibrated on; 0: not")


class RetrainConfig(_Section):
    """The retrain stage."""

    networks: Amount = Field(description="how many of the best are trained from scratch; 0: none")
    recipe: str = Field(description="the section of recipes that trains them")


class LabelConfig(_Section):
    """The label stage: networks trained from scratch for their accuracy."""

    networks: Count = Field(description="networks that are drawn, uniform and distinct")
    recipe: str = Field(description="the section of recipes that trains each")
    width: Width | None = Field(description="multiplies all channels; the space's if not given")
    side: Annotated[int, Field(ge=8, le=1024, description="side of an image in pixels")]
    stem_stride: Count | None = Field(description="stride of the stem; the published one if not given")
    attempts: Annotated[int, Field(ge=1, le=100, description="trainings of a network until it counts as failed")]
    time_limit: Annotated[
        float, Field(gt=0, le=1e9, description="seconds of a training; one that takes longer is ended")
    ]


class RankedConfig(_Section):
    """What the ranking stage does on one benchmark."""

    recipe: str = Field(description="the section of recipes that trains each supernet")
    seeds: Annotated[list[Seed], Field(min_length=1)]


class RankingConfig(_Section):
    """The ranking stage: how well supernets of several spaces rank networks, all with one budget."""

    benchmarks: dict[str, RankedConfig]
    methods: Annotated[list[str], Field(min_length=1)]
    networks: Annotated[int, Field(ge=3, le=LARGEST, description="networks of a sample that a supernet ranks")]


class MethodConfig(_Section):
    """What both variants of the method have."""

    first_size: Count | None = Field(description="architectures sampled first")
    first_labels: Share = Field(description="share of the labels that is drawn uniformly at first")
    label_rounds: Annotated[int, Field(ge=0, le=100, description="rounds that collect the other labels")]
    seed_fraction: Share = Field(description="share of the space that becomes seeds")
    neighbors: Count = Field(description="neighbours drawn for each seed")
    max_edits: Annotated[int, Field(ge=1, le=4, description="largest edit distance of a neighbour")]
    max_iterations: Count = Field(description="stop after so many iterations")


class EliteConfig(MethodConfig):
    """The next space is the best of everything seen."""

    diversity: Annotated[float, Field(ge=0, le=1, description="share reserved for each stratum of FLOPs")]
    shrink_rate: Share = Field(description="the space's size from one iteration to the next")
    min_turnover: Annotated[float, Field(ge=0, lt=1, description="stop when a smaller share is new")]


class PaperConfig(MethodConfig):
    """The next space is the seeds and all their neighbours."""

    max_labels: Count = Field(description="labels where none are asked for, at most 15 % of the space")
    tolerance: Annotated[float, Field(ge=0, le=1e9, description="least rise of the mean, in percent points")]


class ShrinkConfig(_Section):
    """The shrink stage: which variant, how far, at what cost."""

    variant: Literal["elite", "paper"] = Field(description="which rule makes the next space")
    target_size: Count | None = Field(description="architectures to shrink the space to")
    labels: LabelCount | None = Field(description="true accuracies to ask for")
    max_queries: Count | None = Field(description="distinct architectures sent to the predictor, at most")
    memory: Annotated[
        float, Field(ge=0.5, le=2**20, description="GiB that a shrink may take; the worst is forgotten beyond")
    ]
    elite: EliteConfig
    paper: PaperConfig

    @property
    def method(self) -> EliteConfig | PaperConfig:
        """The section of the chosen variant."""
        return self.elite if self.variant == "elite" else self.paper


class BenchmarkConfig(_Section):
    """What one benchmark has of its own, where the shrink, supernet and label sections say null."""

    target_size: Count | None = None
    labels: LabelCount | None = None
    width: Width | None = None


class Params(_Section):
    """All of params.yaml."""

    pipeline: PipelineConfig
    predictor: PredictorConfig
    locality: LocalityConfig
    shrink: ShrinkConfig
    compare: CompareConfig
    images: ImagesConfig
    recipes: dict[str, TrainingConfig]
    torch: TorchConfig
    supernet: SupernetConfig
    search: SearchConfig
    retrain: RetrainConfig
    label: LabelConfig
    ranking: RankingConfig
    benchmarks: dict[str, BenchmarkConfig]


class ShrinkParams(_Section):
    """Everything that one shrink is a function of; it is stored with the result."""

    benchmark: str
    table_sha256: str
    """Which true accuracies the labels came from."""
    seed: Seed
    variant: Literal["elite", "paper"]
    target_size: Count | None
    labels: Annotated[int, Field(ge=0)]
    max_queries: Count | None
    memory: float
    method: EliteConfig | PaperConfig
    predictor: PredictorConfig
    locality_distance: Count | None = None
    """The threshold edit distance that locality gave, where it was measured."""

    @property
    def max_edits(self) -> int:
        """The largest edit distance of a neighbour: as asked for, at most the threshold distance."""
        return min(self.method.max_edits, self.locality_distance or self.method.max_edits)

    @property
    def elite(self) -> EliteConfig | None:
        """The settings of the elite variant, None for the paper's."""
        return self.method if isinstance(self.method, EliteConfig) else None


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


def shrink_params(
    params: Params, benchmark: str, seed: int, size: int, table_sha256: str, known: int | None = None
) -> ShrinkParams:
    """Return what a shrink of `benchmark`, a space of `size` architectures, is a function of.

    `known` labels are all that there are, where nobody can be asked for more. Raises ConfigError when the
    numbers don't fit the space.
    """
    shrink, own = params.shrink, own_settings(params, benchmark)
    method = shrink.method
    labels = label_budget(params, benchmark, size)
    if isinstance(method, PaperConfig) and shrink.labels is None:
        labels = max(MIN_LABELS, min(method.max_labels, _label_rule(size)))
    if known is not None:
        labels = known
    target = shrink.target_size if shrink.target_size is not None else own.target_size
    first = method.first_size
    if isinstance(method, PaperConfig):
        first = min(first or size, 4 * target if target else size, size)
        # The paper's rule stops on a plateau; a target is for those who ask for one.
        target = shrink.target_size
    problems = _misfits(size, labels, target, first, shrink.max_queries, method, known or 0)
    if not 0 <= seed < 2**32:
        problems.append(f"seed: {seed} is not in 0 to 2^32 - 1")
    if problems:
        raise ConfigError(f"benchmark {benchmark} ({size:,} architectures)", problems)
    return ShrinkParams(
        benchmark=benchmark,
        table_sha256=table_sha256,
        seed=seed,
        variant=shrink.variant,
        target_size=target,
        labels=labels,
        max_queries=shrink.max_queries,
        memory=shrink.memory,
        method=method.model_copy(update={"first_size": first}),
        predictor=params.predictor,
    )


def sized(params: Params, benchmark: str) -> Params:
    """Return the parameters with the width of networks filled in: as asked, as the benchmark has it, or 1."""
    own = own_settings(params, benchmark).width or 1.0
    if params.supernet.width is not None:
        return params
    return params.model_copy(update={"supernet": params.supernet.model_copy(update={"width": own})})


def label_images(params: Params) -> ImagesConfig:
    """Return the images that labels are trained on: those of the section, at the labels' own resolution."""
    return params.images.model_copy(update={"side": params.label.side})


def label_width(params: Params, space: str) -> float:
    """Return the width of networks that labels are trained on: as asked, else the space's or its benchmarks' own."""
    own = [b.width for name, b in params.benchmarks.items() if name.partition("/")[0] == space and b.width]
    return params.label.width or (own[0] if own else 1.0)


def own_settings(params: Params, benchmark: str) -> BenchmarkConfig:
    """Return what a benchmark has of its own, whichever of its metrics is meant (NAME@METRIC)."""
    return params.benchmarks.get(benchmark.partition("@")[0], BenchmarkConfig())


def label_budget(params: Params, benchmark: str, size: int) -> int:
    """Return how many labels a space of `size` gets: as asked, as the benchmark has it, or by rule."""
    own = own_settings(params, benchmark).labels
    asked = params.shrink.labels if params.shrink.labels is not None else own
    return asked if asked is not None else max(MIN_LABELS, min(1000, _label_rule(size)))


def _label_rule(size: int) -> int:
    return math.ceil(0.15 * size)


def _misfits(
    size: int,
    labels: int,
    target: int | None,
    first: int | None,
    budget: int | None,
    method: EliteConfig | PaperConfig,
    known: int,
) -> list[str]:
    problems = []
    for name, value in (("labels", labels), ("target_size", target), ("first_size", first)):
        if value is not None and value > size:
            problems.append(f"{name}: {value:,} is more than the space has")
    if target is not None and target == size:
        problems.append(f"target_size: {target:,} is the whole space; nothing would be shrunk")
    uniform = math.ceil(method.first_labels * labels)
    needed = known + max(0 if known else uniform, min(LEAST_FIRST, size // 2) if first is None else first)
    if budget is not None and budget < needed:
        problems.append(f"max_queries: {budget:,} does not pay for the first sample ({needed:,} architectures)")
    if isinstance(method, PaperConfig) and target is not None and first is not None and first <= target:
        problems.append(
            f"paper.first_size: the first sample ({first:,}) must be larger than the target ({target:,}), "
            "or the result is a random sample"
        )
    return problems


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
