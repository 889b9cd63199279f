"""params.yaml as frozen, validated models: what is in it, how it is read, what one benchmark gets."""

from __future__ import annotations

from lissnas.config.loading import OPTIONS, ParamFiles, load
from lissnas.config.resolve import (
    label_budget,
    label_images,
    label_width,
    own_settings,
    shrink_params,
    sized,
)
from lissnas.config.schema import (
    FULL_SPACE,
    LEAST_FIRST,
    MIN_LABELS,
    BenchmarkConfig,
    EliteConfig,
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
    "LEAST_FIRST",
    "MIN_LABELS",
    "OPTIONS",
    "BenchmarkConfig",
    "EliteConfig",
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
    "label_budget",
    "label_images",
    "label_width",
    "load",
    "own_settings",
    "shrink_params",
    "sized",
]
