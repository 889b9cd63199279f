"""The predictor stage: fit a predictor on uniform labels and test it, for each seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from lissnas import artifacts
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.remote import remote_out
from lissnas.artifacts.stage_run import PARAMETERS, How, Outcome, run, run_here
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, PredictorConfig, label_budget
from lissnas.core.errors import UserError
from lissnas.core.rng import stream
from lissnas.predictors.accuracy import Predictor, assess
from lissnas.predictors.recorded import predictor_model
from lissnas.spaces import FloatArray

WRITES = ("assessment.parquet", "models/*", "metrics.json")
"""Names of the files of a result."""


@dataclass(frozen=True)
class Draw:
    """Rows and values of the training and the test set."""

    fit: tuple[Any, FloatArray]
    held_out: tuple[Any, FloatArray]


def draw_labels(benchmark: Benchmark, labels: int, held_out: int, seed: int) -> Draw:
    """Draw uniform labels, and up to `held_out` further architectures as a disjoint test set."""
    space = benchmark.space
    rng = stream(seed, "predictor", "labels")
    rows = space.sample_distinct(min(space.size(), labels + held_out), rng)
    values = benchmark(rows)
    return Draw((rows[:labels], values[:labels]), (rows[labels:], values[labels:]))


def fit(benchmark: Benchmark, draw: Draw, settings: PredictorConfig, seed: int, threads: int) -> Predictor:
    """Fit the predictor to the labels."""
    return Predictor.fit(benchmark.space, *draw.fit, settings, seed, threads)


def assess_held_out(predictor: Predictor, draw: Draw, threads: int) -> dict[str, float]:
    """Return the metrics of the predictor on the test set."""
    return assess(predictor, *draw.held_out, threads)


@remote_out(WRITES)
def predictor_stage(params: Params, benchmark: Benchmark, out: Path, **how: Unpack[How]) -> Outcome:
    """Fit a predictor on uniform labels for each seed of the pipeline, and test it."""
    size = benchmark.space.size()
    seeds = params.pipeline.seeds
    labels = label_budget(params, benchmark.name, size)
    if labels >= size:
        raise UserError(f"labels: {labels:,} of {size:,} architectures of {benchmark.name} leave no test set; lower it")
    settings, call, threads = params.predictor, how.get("call", run_here), how.get("threads", 0)
    parameters = {
        "benchmark": benchmark.name,
        "table_sha256": benchmark.sha256,
        "labels": labels,
        "seeds": seeds,
        "predictor": settings.model_dump(mode="json"),
    }

    def work() -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        rows = []
        for seed in seeds:
            draw = call(draw_labels, benchmark, labels, settings.held_out, seed)
            model = call(fit, benchmark, draw, settings, seed, threads)
            quality = call(assess_held_out, model, draw, threads)
            quality |= model.member_metrics()
            rows.append({"seed": seed, "labels": labels, "held_out": len(draw.held_out[1]), **quality})
            files |= model.files(f"models/predictor-{seed}")
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        means = {name: float(np.mean(columns[name])) for name in quality}
        files["assessment.parquet"] = artifacts.to_parquet(columns)
        files["metrics.json"] = artifacts.to_json({"benchmark": benchmark.name, "labels": labels, **means})
        return files

    record = how.get("record", NO_RECORDER)
    return run(out, parameters, work, how.get("force", False), writes=WRITES, record=record, summary=_summary)


def _summary(record: Recorder, outcome: Outcome) -> None:
    """Record the assessment by seed, and the predictor of the first seed as a version in the model registry."""
    parameters, rows = outcome.json(PARAMETERS), outcome.table("assessment.parquet").to_pylist()
    for row in rows:
        record.metrics({f"seed/{name}": value for name, value in row.items() if name != "seed"}, row["seed"])
    first = rows[0]
    held_out = {"table_sha256": parameters["table_sha256"]}
    held_out |= {name: first[name] for name in ("seed", "labels", "held_out")}
    version = {
        "name": f"lissnas-predictor-{parameters['benchmark']}".replace("/", "-"),
        "metric": "tau",
        "value": first["tau"],
        "held_out": held_out,
        "about": f"Predicts the values of networks of {parameters['benchmark']}; tau on held-out networks",
    }
    model = predictor_model(record, outcome.folder / "models" / f"predictor-{first['seed']}.ubj", first["tau"])
    record.model({**model, "register": version})
