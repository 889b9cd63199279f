"""The locality stage: correlation of accuracy with edit distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import How, Outcome, ignore, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.metrics import locality
from lissnas.oracles.base import Oracle
from lissnas.oracles.direction import metric_label, stated
from lissnas.plots import figures
from lissnas.predictors.accuracy import Predictor
from lissnas.spaces import Archs, FloatArray

ABOUT = "locality.json"
WRITES = ("locality.parquet", "walk.parquet", "differences.parquet", "locality.json", "locality.png", "metrics.json")
"""Names of the files of a result."""


@remote_out(WRITES)
def locality_stage(
    params: Params, benchmark: Benchmark, out: Path, predictor: Predictor | None = None, **how: Unpack[How]
) -> Outcome:
    """Measure locality on a benchmark's table, or on `predictor`."""
    settings, space, call = params.locality, benchmark.space, how.get("call", run_here)
    parameters = {
        "benchmark": benchmark.name,
        "table_sha256": benchmark.sha256,
        "predictor_sha256": None if predictor is None else predictor.sha256(),
        "locality": settings.model_dump(mode="json"),
    }

    def predicted(archs: Archs) -> FloatArray:
        assert predictor is not None
        return predictor.value(predictor.score(archs, how.get("threads", 0)))

    oracle: Oracle = benchmark if predictor is None else predicted

    def work() -> dict[str, bytes]:
        def random(*names: str | int) -> np.random.Generator:
            return stream(settings.seed, "locality", *names)

        visited = call(locality.walk, space, oracle, settings, random("walk"))
        walks = locality.autocorrelation(visited, settings.lags, settings.resamples, random("walk", "bootstrap"))
        rows, bins = [], []
        for change in (locality.ANY, *space.kinds):
            for distance in range(1, space.max_edits + 1):
                drawn = call(locality.pairs, space, oracle, distance, change, settings.pairs, random(change, distance))
                if distance > 1 and not len(drawn.a):
                    break  # no pairs at this distance
                rows.append(locality.measure(drawn, settings.resamples, random(change, distance, "bootstrap")))
                if change == locality.ANY:
                    bins += locality.differences(drawn)
                how.get("on_progress", ignore)(
                    f"distance {distance}, {change}: correlation {rows[-1]['correlation']:.3f}"
                )
                if locality.is_last_distance(rows[-1], settings):
                    break
        about_metric = stated(benchmark.metric, benchmark.minimize)
        limits = call(locality.threshold, rows, space.max_edits)
        check = locality.sample_check(space, oracle, settings, random("sample"))
        about = {
            "benchmark": benchmark.name,
            "space": space.name,
            **about_metric,
            "oracle": "table" if predictor is None else "predictor",
            **limits,
            "pairs": settings.pairs,
            "walks": settings.walks,
            "sample_check": check,
        }
        near = {
            f"{name}_{r['distance']}": r[name]
            for r in rows
            if r["change"] == locality.ANY
            for name in ("correlation", "aad")
        }
        metrics = {
            "benchmark": benchmark.name,
            **about_metric,
            "threshold_distance": limits["threshold_distance"],
            **near,
        }
        title, metric = f"{benchmark.name}: locality", metric_label(benchmark.metric, benchmark.minimize)
        return {
            "locality.parquet": artifacts.rows_to_parquet(rows),
            "walk.parquet": artifacts.rows_to_parquet(walks),
            "differences.parquet": artifacts.rows_to_parquet(bins),
            ABOUT: artifacts.to_json(about),
            "locality.png": figures.png(figures.locality(rows, walks, limits["threshold_distance"], title, metric)),
            "metrics.json": artifacts.to_json({**metrics, "share_not_rejected": check["share_not_rejected"]}),
        }

    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=how.get("record", NO_RECORDER))


def read_threshold(folder: Path, space: str) -> int:
    """Return the threshold edit distance of a locality result; raises UserError if it is of another space."""
    manifest = artifacts.verify(folder)
    if ABOUT not in manifest:
        raise UserError(f"{folder} holds no locality result; give an output folder of `lissnas locality`")
    about = json.loads(artifacts.read_verified(folder, ABOUT, manifest))
    if about["space"] != space:
        raise UserError(f"{folder} holds the locality of space {about['space']!r}, not of {space!r}; give another one")
    return int(about["threshold_distance"])
