"""Resolve parameters for one space or benchmark: label budget, target size, width, recipe."""

from __future__ import annotations

import math
from typing import Any

from lissnas.config.schema import (
    MIN_FIRST_SIZE,
    MIN_LABELS,
    BenchmarkConfig,
    EliteConfig,
    ImagesConfig,
    PaperConfig,
    Params,
    ShrinkParams,
    TrainingConfig,
)
from lissnas.core.errors import ConfigError, UnknownName


def shrink_params(
    params: Params, benchmark: str, seed: int, size: int, table_sha256: str, known: int | None = None
) -> ShrinkParams:
    """Return the parameters of a shrink of `benchmark`, a space of `size` architectures.

    `known` is the number of given labels if no further ones can be requested. Raises ConfigError if a number
    doesn't fit the space.
    """
    shrink, own = params.shrink, benchmark_settings(params, benchmark)
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
        # The paper's rule stops on a plateau: only an explicit target applies.
        target = shrink.target_size
    problems = _size_problems(size, labels, target, first, shrink.max_queries, method, known or 0)
    if not 0 <= seed < 2**32:
        problems.append(f"seed: expected 0 to 2^32 - 1, found {seed}")
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


def with_default_width(params: Params, benchmark: str) -> Params:
    """Return the parameters with `supernet.width` set: if it is null, to the benchmark's width, else to 1."""
    own = benchmark_settings(params, benchmark).width or 1.0
    if params.supernet.width is not None:
        return params
    return params.model_copy(update={"supernet": params.supernet.model_copy(update={"width": own})})


def label_images(params: Params) -> ImagesConfig:
    """Return the image settings for training labels: the section `images` with the resolution `label.side`."""
    return params.images.model_copy(update={"side": params.label.side})


def label_width(params: Params, space: str) -> float:
    """Return `label.width`; if it is null, the width of the space or of its first benchmark that has one, else 1."""
    own = [b.width for name, b in params.benchmarks.items() if name.partition("/")[0] == space and b.width]
    return params.label.width or (own[0] if own else 1.0)


def benchmark_settings(params: Params, benchmark: str) -> BenchmarkConfig:
    """Return the entry of `benchmarks` for NAME or NAME@METRIC, or an empty one."""
    return params.benchmarks.get(benchmark.partition("@")[0], BenchmarkConfig())


def label_budget(params: Params, benchmark: str, size: int) -> int:
    """Return `shrink.labels`; if it is null, the benchmark's labels, else 15 % of `size` within 20 to 1,000."""
    own = benchmark_settings(params, benchmark).labels
    labels = params.shrink.labels if params.shrink.labels is not None else own
    return labels if labels is not None else max(MIN_LABELS, min(1000, _label_rule(size)))


def _label_rule(size: int) -> int:
    return math.ceil(0.15 * size)


def _size_problems(
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
    needed = known + max(0 if known else uniform, min(MIN_FIRST_SIZE, size // 2) if first is None else first)
    if budget is not None and budget < needed:
        problems.append(f"max_queries: {budget:,} does not pay for the first sample ({needed:,} architectures)")
    if isinstance(method, PaperConfig) and target is not None and first is not None and first <= target:
        problems.append(
            f"paper.first_size: the first sample ({first:,}) must be larger than the target ({target:,}), "
            "else the result is a random sample"
        )
    return problems


def recipe_of(params: Params, name: str, where: str) -> TrainingConfig:
    """Return the recipe of a name; raises UnknownName with `where`, the parameter that names it."""
    if name not in params.recipes:
        raise UnknownName(f"recipe in {where}", name, params.recipes)
    return params.recipes[name]


def image_parameters(params: Params) -> dict[str, Any]:
    """Return the image settings that determine the images, for digests."""
    return params.images.model_dump(mode="json", exclude={"download"})
