"""Parameters (params.yaml) as frozen, validated models: schema, loading, values for one benchmark."""

from __future__ import annotations

from lissnas.config.loading import OPTIONS, ParamFiles, load
from lissnas.config.resolve import (
    benchmark_settings,
    label_budget,
    label_images,
    label_width,
    shrink_params,
    with_default_width,
)
from lissnas.config.schema import (
    FULL_SPACE,
    MIN_FIRST_SIZE,
    MIN_LABELS,
    BenchmarkConfig,
    EliteConfig,
    Goal,
    ImagesConfig,
    LocalityConfig,
    PaperConfig,
    Params,
    PredictorConfig,
    SearchConfig,
    ShrinkParams,
    TorchConfig,
    TrainingConfig,
)

__all__ = [
    "FULL_SPACE",
    "MIN_FIRST_SIZE",
    "MIN_LABELS",
    "OPTIONS",
    "BenchmarkConfig",
    "EliteConfig",
    "Goal",
    "ImagesConfig",
    "LocalityConfig",
    "PaperConfig",
    "ParamFiles",
    "Params",
    "PredictorConfig",
    "SearchConfig",
    "ShrinkParams",
    "TorchConfig",
    "TrainingConfig",
    "benchmark_settings",
    "label_budget",
    "label_images",
    "label_width",
    "load",
    "shrink_params",
    "with_default_width",
]
