"""Create a small result of every kind, from real accuracies and real images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lissnas import artifacts, benchmarks, config
from lissnas.artifacts import journal
from lissnas.oracles.label_collection import Attempt, LabelLog
from lissnas.shrinkers.problem import Source
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.one_shot import one_shot
from lissnas.stages.predictor import predictor_stage
from lissnas.stages.prepare import data_stage
from lissnas.stages.shrink import shrink_stage
from tests.pipeline.test_one_shot import TINY
from tests.small import LOCALITY

BENCHMARK = "nas_bench_macro"
SMALL: dict[str, Any] = {
    **TINY,
    **LOCALITY,
    "pipeline.seeds": [0],
}
TABLED = ("prepared", "predictor", "locality", "compare", "shrunk")
TRAINED = ("search/supernet", "search", "search/best")
LOG_DEPENDS = {"space": BENCHMARK}


@dataclass(frozen=True)
class Results:
    """Folders of the stages in `kinds`, the checkpoint of an interrupted run, and a label log."""

    folder: Path
    params: config.Params
    checkpoint: artifacts.Checkpoint
    kinds: tuple[str, ...]

    def stage(self, name: str) -> Path:
        return self.folder / name


def make(folder: Path, networks: bool) -> Results:
    """Run every stage once with small parameters; with `networks`, also the stages that train."""
    params = config.load(None, SMALL, benchmarks.names())
    benchmark = benchmarks.get(BENCHMARK)
    data_stage(benchmark, folder / "prepared")
    predictor_stage(params, benchmark, folder / "predictor", threads=1)
    locality_stage(params, benchmark, folder / "locality", threads=1)
    compare_stage(params, benchmark, ("lissnas", "top10"), [0], folder / "compare", threads=1)
    shrink_stage(params, Source.of(benchmark), 0, folder / "shrunk", threads=1)
    if networks:
        one_shot(params, benchmark.space, benchmark, folder / "shrunk", 0, folder / "search")
    with LabelLog.opened(folder / "labels" / journal.LOG, LOG_DEPENDS) as log:
        for i, arch in enumerate(benchmark.space.format(benchmark.space.enumerate()[:12])):
            log.append(Attempt(arch, None if i == 5 else 80.0 + i, "out of memory" if i == 5 else None, 1.5))
    checkpoint = artifacts.Checkpoint(folder / "interrupted", {"seed": 0})
    checkpoint.save({"archs": benchmark.space.enumerate()[:500], "scores": np.arange(500.0)}, {"iteration": 3})
    return Results(folder, params, checkpoint, (*TABLED, *(TRAINED if networks else ())))
