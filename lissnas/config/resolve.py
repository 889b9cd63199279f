"""What one space or benchmark gets from the parameters: label budget, target, width, recipe."""

from __future__ import annotations

import math
from typing import Any

from lissnas.config.schema import (
    LEAST_FIRST,
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


def recipe_of(params: Params, name: str, where: str) -> TrainingConfig:
    """Return a recipe by its name; raises UnknownName that says where it was asked for."""
    if name not in params.recipes:
        raise UnknownName(f"recipe in {where}", name, params.recipes)
    return params.recipes[name]


def image_parameters(params: Params) -> dict[str, Any]:
    """Return what images are a function of."""
    return params.images.model_dump(mode="json", exclude={"download"})
