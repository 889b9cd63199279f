"""params.yaml as frozen records: checked once, all problems reported together with their paths."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

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
