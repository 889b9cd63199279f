"""The schema of params.yaml: frozen pydantic models, one class for each section."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

MAX_COUNT = 2**53
"""Upper limit of all counts: every integer up to it is exact as a float."""
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Amount: TypeAlias = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**32)]
Width: TypeAlias = Annotated[float, Field(gt=0, le=4)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=1e9)]

MIN_LABELS = 20
"""Minimum number of labels: fewer don't characterise a space."""
Goal: TypeAlias = Literal["space", "network", "both"]
"""What labels are collected for: to shrink the space, to find the best network, or half for each."""
LabelCount: TypeAlias = Annotated[int, Field(ge=MIN_LABELS, le=MAX_COUNT)]

FULL_SPACE = ("full", "full_balanced")
"""Baselines of the ranking stage: the full space, paths drawn uniformly or in proportion to their parameters."""

MIN_FIRST_SIZE = 100
"""Minimum size of a first sample set by rule, in architectures; half of the space if that is less."""
MAX_THREADS = 4_096


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class PipelineConfig(_Section):
    """Benchmarks and seeds that `dvc repro` runs."""

    benchmarks: Annotated[list[str], Field(min_length=1, description="benchmarks to shrink and compare on")]
    seeds: Annotated[list[Seed], Field(min_length=1, description="random seeds; every benchmark runs with each")]
    one_shot: list[str] = Field(description="benchmarks that run supernet, search and retrain, with the first seed")


class PredictorConfig(_Section):
    """Hyperparameters of XGBoost, and the size of its test set."""

    trees: Count = Field(description="boosting rounds")
    depth: Annotated[int, Field(ge=1, le=32, description="maximum depth of a tree")]
    eta: Share = Field(description="learning rate")
    subsample: Share = Field(description="share of the labels that each tree is fitted on")
    colsample: Share = Field(description="share of the features that each tree is fitted on")
    min_child_weight: Annotated[float, Field(ge=0, le=MAX_COUNT, description="minimum number of labels in a leaf")]
    held_out: Count = Field(description="unlabelled architectures that the predictor stage tests it on")


class LocalityConfig(_Section):
    """The locality stage: random walks, pairs at an exact edit distance, and small samples of the space."""

    seed: Seed = Field(description="random seed of the locality stage")
    pairs: Annotated[int, Field(ge=100, le=10**6, description="pairs for each edit distance and kind of edit")]
    distances: Annotated[int, Field(ge=1, le=8, description="edit distances; more while the correlation is >= .3")]
    walks: Annotated[int, Field(ge=2, le=10**5, description="random walks")]
    steps: Annotated[int, Field(ge=1, le=10**5, description="steps of each walk, one edit each")]
    lags: Count = Field(description="maximum lag of the autocorrelation, in steps")
    resamples: Annotated[int, Field(ge=100, le=10**5, description="bootstrap resamples for each interval")]
    sample: Annotated[int, Field(ge=10, le=MAX_COUNT, description="architectures in each small sample")]
    repeats: Count = Field(description="number of small samples")


class CompareConfig(_Section):
    """The compare stage: methods, and the curve of mean accuracy against FLOPs coverage."""

    methods: Annotated[list[str], Field(min_length=1)] | Literal["all"] = Field(description="methods, or all")
    diversities: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)] = Field(
        description="values of shrink.elite.diversity, one point of the curve each"
    )


class ImagesConfig(_Section):
    """Images for training and evaluating networks."""

    source: Literal["packaged", "cifar10", "cifar100", "folder"] = Field(description="source of the images")
    folder: str | None = Field(description="folder of CIFAR or of the images; unused by packaged images")
    download: bool = Field(description="whether torchvision may download CIFAR into the folder")
    side: Annotated[int, Field(ge=8, le=1024, description="height and width of an image, in pixels")]
    validation: Count = Field(description="training images held out for selection; at most half of a folder's")
    seed: Seed = Field(description="random seed of the validation split, batches and augmentation")


class TrainingConfig(_Section):
    """A training recipe, for a supernet or for a stand-alone network."""

    steps: Count = Field(description="optimizer steps")
    batch_size: Count = Field(description="images in a step, over all processes")
    rate: Annotated[float, Field(gt=0, le=1e9, description="learning rate after warm-up")]
    schedule: Literal["cosine", "linear"] = Field(description="decay of the learning rate to zero")
    warmup: Amount = Field(description="steps of linear warm-up")
    momentum: Annotated[float, Field(ge=0, lt=1, description="Nesterov momentum")]
    weight_decay: Annotated[float, Field(ge=0, le=1e9, description="weight decay; not applied to norms and biases")]
    label_smoothing: Annotated[float, Field(ge=0, lt=1, description="label smoothing of the cross-entropy; 0: none")]
    ghost_batch: Amount = Field(description="images that share batch statistics; 0: all images of a process")
    clip: Annotated[float, Field(ge=0, le=1e9, description="maximum norm of the gradient; 0: no clipping")]
    ema: Annotated[float, Field(ge=0, lt=1, description="decay of the moving average of the weights; 0: no average")]
    curriculum: Annotated[float, Field(ge=0, le=1, description="share of the steps that widens from one path to all")]
    padding: Amount = Field(description="zero padding before the random crop, in pixels")
    flip: bool = Field(description="whether images are flipped horizontally at random")
    cutout: Amount = Field(description="side of the square that is cut out, in pixels; 0: none")
    jitter: Annotated[float, Field(ge=0, lt=1, description="maximum change of brightness, contrast, saturation")]
    mixed_precision: bool = Field(description="whether to compute in bfloat16 (autocast)")
    channels_last: bool = Field(description="whether tensors have the memory format channels_last")
    checkpoint_every: Count = Field(description="steps between checkpoints")
    report_every: Count = Field(description="steps between progress reports")


class TorchConfig(_Section):
    """Device and threads of torch; not part of a result's parameters."""

    device: str = Field(description="cpu, cuda, or auto")
    threads: Annotated[int, Field(ge=0, le=MAX_THREADS, description="threads on a CPU; 0: one for each core")]


class SupernetConfig(_Section):
    """The supernet stage."""

    width: Width | None = Field(description="multiplier of all channels; null: the benchmark's width, else 1")
    stem_stride: Count | None = Field(description="stride of the stem; null: as published")
    sampler: Literal["uniform", "fair", "balanced"] = Field(description="distribution of the paths that a step trains")
    shots: Annotated[int, Field(ge=1, le=64, description="supernets in a K-shot dictionary; 1: a single supernet")]
    recipe: str = Field(description="name of its training recipe")


class SearchConfig(_Section):
    """The search stage: evolution as in SPOS, and the evaluation of a supernet's paths."""

    by: Literal["all", "labels", "predictor", "supernet", "table"] = Field(
        description="what ranks networks; all: labels, predictor and supernet together"
    )
    population: Count = Field(description="architectures in a generation")
    generations: Count = Field(description="number of generations")
    parents: Count = Field(description="best architectures so far, the parents of the next generation")
    mutation: Share = Field(description="probability that a decision is redrawn; at most two at once")
    top: Count = Field(description="number of best architectures to return")
    max_mflops: Annotated[float, Field(gt=0, le=1e12)] | None = Field(description="maximum multiply-adds, in millions")
    max_mparams: Annotated[float, Field(gt=0, le=1e12)] | None = Field(description="maximum parameters, in millions")
    images: Count = Field(description="maximum number of validation images for each path")
    batch_size: Count = Field(description="images in a batch")
    recalibration_batches: Amount = Field(description="batches that recalibrate the norms; 0: no recalibration")


class RetrainConfig(_Section):
    """The retrain stage."""

    networks: Amount = Field(description="best networks of the search that are trained from scratch; 0: none")
    recipe: str = Field(description="name of their training recipe")


class LabelConfig(_Section):
    """The label stage: accuracies of networks that are trained from scratch."""

    networks: Count = Field(description="architectures to label, distinct, drawn uniformly")
    recipe: str = Field(description="name of their training recipe")
    width: Width | None = Field(description="multiplier of all channels; null: the width of the space, else 1")
    side: Annotated[int, Field(ge=8, le=1024, description="height and width of an image, in pixels")]
    stem_stride: Count | None = Field(description="stride of the stem; null: as published")
    attempts: Annotated[int, Field(ge=1, le=100, description="maximum number of trainings of each network")]
    time_limit: Seconds | None = Field(description="time limit of a training, in seconds; null: none")


class RankedConfig(_Section):
    """Recipe and seeds of the ranking stage on one benchmark."""

    recipe: str = Field(description="name of the training recipe of each supernet")
    seeds: Annotated[list[Seed], Field(min_length=1, description="random seeds")]


class RankingConfig(_Section):
    """The ranking stage: rank correlation of supernets of several spaces, trained with equal budgets."""

    benchmarks: dict[str, RankedConfig] = Field(description="recipe and seeds by benchmark")
    methods: Annotated[list[str], Field(min_length=1, description="spaces: full, full_balanced, or methods of compare")]
    networks: Annotated[int, Field(ge=3, le=MAX_COUNT, description="networks in each sample that a supernet ranks")]


class MethodConfig(_Section):
    """Parameters that both variants of the method share."""

    first_size: Count | None = Field(description="architectures in the first sample; null: set by rule")
    first_labels: Share = Field(description="share of the labels that is drawn uniformly before the first iteration")
    label_rounds: Annotated[int, Field(ge=0, le=100, description="rounds in which the remaining labels are collected")]
    seed_fraction: Share = Field(description="share of the current space that becomes seed architectures")
    neighbors: Count = Field(description="neighbours drawn for each seed architecture")
    max_edits: Annotated[int, Field(ge=1, le=4, description="maximum edit distance of a neighbour")]
    max_iterations: Count = Field(description="maximum number of iterations")


class EliteConfig(MethodConfig):
    """Variant elite: the next space is the best of all architectures seen so far."""

    diversity: Annotated[float, Field(ge=0, le=1, description="share of the space reserved for each stratum of FLOPs")]


class PaperConfig(MethodConfig):
    """Variant paper: the next space is the seed architectures and their neighbours."""

    max_labels: Count = Field(description="maximum of the label budget by rule; also at most 15 % of the space")
    tolerance: Annotated[float, Field(ge=0, le=1e9, description="minimum rise of the mean, in percentage points")]


class ShrinkConfig(_Section):
    """The shrink stage: variant, target size, budgets."""

    variant: Literal["elite", "paper"] = Field(description="rule that selects the next space")
    target_size: Count | None = Field(description="architectures to keep; null: the benchmark's, else set by rule")
    labels: LabelCount | None = Field(description="label budget; null: the benchmark's, else by rule")
    goal: Goal | None = Field(description="what labels are collected for; null: space with a table, else both")
    max_queries: Count | None = Field(description="maximum number of distinct architectures that the predictor scores")
    memory: Annotated[float, Field(ge=0.5, le=2**20, description="memory limit in GiB; drops the worst beyond it")]
    elite: EliteConfig
    paper: PaperConfig

    @property
    def method(self) -> EliteConfig | PaperConfig:
        """The section of the selected variant."""
        return self.elite if self.variant == "elite" else self.paper


class BenchmarkConfig(_Section):
    """Values for one benchmark, used if the sections shrink, supernet and label have null."""

    target_size: Count | None = Field(default=None, description="target size of a shrink, in architectures")
    labels: LabelCount | None = Field(default=None, description="label budget of a shrink")
    width: Width | None = Field(default=None, description="multiplier of all channels of its networks")


class Params(_Section):
    """All sections of params.yaml."""

    pipeline: PipelineConfig
    predictor: PredictorConfig
    locality: LocalityConfig
    shrink: ShrinkConfig
    compare: CompareConfig
    images: ImagesConfig
    recipes: dict[str, TrainingConfig] = Field(description="training recipes by name")
    torch: TorchConfig
    supernet: SupernetConfig
    search: SearchConfig
    retrain: RetrainConfig
    label: LabelConfig
    ranking: RankingConfig
    benchmarks: dict[str, BenchmarkConfig] = Field(description="values by benchmark or space")


class ShrinkParams(_Section):
    """All parameters of one shrink, stored with the result."""

    benchmark: str
    table_sha256: str
    """Digest of the table that the labels come from."""
    seed: Seed
    variant: Literal["elite", "paper"]
    target_size: Count | None
    labels: Annotated[int, Field(ge=0)]
    max_queries: Count | None
    memory: float
    method: EliteConfig | PaperConfig
    predictor: PredictorConfig
    locality_distance: Count | None = None
    """Threshold edit distance of the locality stage, if measured."""
    goal: Goal = "space"

    def stored(self) -> dict[str, Any]:
        """Return the parameters as JSON-serializable values; the goal `space` is left out, as by earlier versions."""
        return self.model_dump(mode="json", exclude={"goal"} if self.goal == "space" else None)

    @property
    def max_edits(self) -> int:
        """The maximum edit distance of a neighbour: `method.max_edits`, at most the threshold distance."""
        return min(self.method.max_edits, self.locality_distance or self.method.max_edits)
