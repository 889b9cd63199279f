"""The stages of the pipeline as plain functions: what the command runs and what the flows run.

A stage takes checked parameters and a folder, and leaves whole files with a manifest there, the same
bytes for the same parameters. The flows hand in a `call` that runs a step as a task.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lissnas import store
from lissnas.benchmarks import Benchmark
from lissnas.config import Params, PredictorConfig, label_budget, shrink_params
from lissnas.errors import UserError
from lissnas.predictor import Predictor, assess
from lissnas.quality import good_threshold, prob_good, share_good
from lissnas.report import figures
from lissnas.rng import stream
from lissnas.shrinkers.lissnas import Call, ShrinkResult, plain_call, shrink
from lissnas.shrinkers.state import ITERATION_COLUMNS, Problem, State
from lissnas.spaces import Archs, FloatArray, Keys

PARAMETERS = "parameters.json"
VERSIONED = ("lissnas", "numpy", "pyarrow", "scipy", "xgboost-cpu", "xgboost")


def run_here(step: Callable[..., Any], *args: Any) -> Any:
    """Run a step here and now."""
    return step(*args)


@dataclass(frozen=True)
class Outcome:
    """What a stage left in its folder; `reused` when the same result was there already."""

    folder: Path
    metrics: Mapping[str, Any]
    reused: bool

    def table(self, name: str) -> pa.Table:
        """Return one of the folder's parquet files."""
        return pq.read_table(self.folder / name)


def shrink_stage(
    params: Params,
    benchmark: Benchmark,
    seed: int,
    out: Path,
    call: Call = plain_call,
    on_iteration: Callable[[State], None] | None = None,
    force: bool = False,
    threads: int = 0,
) -> Outcome:
    """Shrink a benchmark's space into the files of a shrink; goes on where an earlier run was ended.

    Raises ConfigError for numbers that don't fit the space, and UserError for a folder that is in
    use or holds the result of other parameters.
    """
    p = shrink_params(params, benchmark.name, seed, benchmark.space.size(), benchmark.sha256)
    problem = Problem(benchmark.space, benchmark, p, benchmark, benchmark.point, threads)
    parameters = p.model_dump(mode="json")

    def work() -> dict[str, bytes]:
        checkpoint = store.Checkpoint(out, parameters)
        state = None
        if force:
            checkpoint.clear()
        elif (saved := checkpoint.load()) is not None:
            state = State.from_arrays(benchmark.space, *saved)

        def after_iteration(now: State) -> None:
            checkpoint.save(*now.to_arrays())
            if on_iteration is not None:
                on_iteration(now)

        return shrink_files(shrink(problem, call, state, after_iteration), benchmark)

    return _run(out, parameters, work, force)


def data_stage(benchmark: Benchmark, out: Path, force: bool = False, call: Callable[..., Any] = run_here) -> Outcome:
    """Write a benchmark's whole table, with the notation of each architecture, and what it means."""
    parameters = {"benchmark": benchmark.name, "table_sha256": benchmark.sha256}

    def work() -> dict[str, bytes]:
        return call(write, benchmark, call(key, benchmark))  # type: ignore[no-any-return]

    return _run(out, parameters, work, force)


def key(benchmark: Benchmark) -> tuple[Archs, Keys]:
    """Return every architecture of the benchmark's space and its key."""
    rows = benchmark.space.enumerate()
    return rows, benchmark.space.key(rows)


def write(benchmark: Benchmark, keyed: tuple[Archs, Keys]) -> dict[str, bytes]:
    """Return the files of a prepared table."""
    space, (rows, keys) = benchmark.space, keyed
    about = {
        "benchmark": benchmark.name,
        "space": space.name,
        "size": space.size(),
        "metric": benchmark.metric,
        "licence": benchmark.licence,
        "source": space.source,
    }
    columns = {"key": keys, "arch": space.format(rows), "value": benchmark.look_up(keys)}
    metrics = {**about, "mean": float(benchmark.values.mean()), "max": benchmark.best}
    return {
        "benchmark.json": store.to_json(about),
        "table.parquet": store.to_parquet(columns),
        "metrics.json": store.to_json(metrics),
    }


# -- the steps of the predictor stage ---------------------------------------------------------------
@dataclass(frozen=True)
class Draw:
    """Rows and values to fit on, and other ones to assess on."""

    fit: tuple[Any, FloatArray]
    held_out: tuple[Any, FloatArray]


def draw_labels(benchmark: Benchmark, labels: int, held_out: int, seed: int) -> Draw:
    """Draw labels uniformly, and as many other architectures, disjoint from them, as there are up to `held_out`."""
    space = benchmark.space
    rng = stream(seed, "predictor", "labels")
    rows = space.sample_distinct(min(space.size(), labels + held_out), rng)
    values = benchmark(rows)
    return Draw((rows[:labels], values[:labels]), (rows[labels:], values[labels:]))


def fit(benchmark: Benchmark, draw: Draw, settings: PredictorConfig, seed: int, threads: int) -> Predictor:
    """Fit the predictor to the labels."""
    return Predictor.fit(benchmark.space, *draw.fit, settings, seed, threads)


def assess_held_out(predictor: Predictor, draw: Draw, threads: int) -> dict[str, float]:
    """Assess the predictor on the architectures that it has not seen."""
    return assess(predictor, *draw.held_out, threads)


def predictor_stage(
    params: Params,
    benchmark: Benchmark,
    out: Path,
    call: Callable[..., Any] = run_here,
    force: bool = False,
    threads: int = 0,
) -> Outcome:
    """Fit a predictor for every seed of the pipeline on uniform labels, and say how good each is."""
    size = benchmark.space.size()
    seeds = params.pipeline.seeds
    labels = label_budget(params, benchmark.name, size)
    if labels >= size:
        raise UserError(f"labels: {labels:,} leave nothing of {benchmark.name} to assess the predictor on")
    settings = params.predictor
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
            rows.append({"seed": seed, "labels": labels, "held_out": len(draw.held_out[1]), **quality})
            files[f"models/predictor-{seed}.ubj"], sidecar = model.dump()
            files[f"models/predictor-{seed}.json"] = store.to_json(sidecar)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        means = {name: float(np.mean(columns[name])) for name in quality}
        files["assessment.parquet"] = store.to_parquet(columns)
        files["metrics.json"] = store.to_json({"benchmark": benchmark.name, "labels": labels, **means})
        return files

    return _run(out, parameters, work, force)


# -- what a shrink leaves ---------------------------------------------------------------------------
def shrink_files(result: ShrinkResult, benchmark: Benchmark) -> dict[str, bytes]:
    """Return the files of a shrink, all functions of its parameters."""
    problem, state, space = result.problem, result.state, result.problem.space
    assert state.predictor is not None
    members = result.members
    labelled = np.flatnonzero(state.label_round >= 0)
    values = benchmark.look_up(state.keys[members])
    title = f"{benchmark.name}, seed {problem.params.seed}: {space.size():,} to {len(members):,} architectures"
    distributions = {
        "full space": benchmark.values,
        "first sample": benchmark.look_up(state.keys[: state.n_first]),
        "shrunk space": values,
    }
    model, sidecar = state.predictor.dump()
    columns = {n: [r[n] for r in state.records] for n in ITERATION_COLUMNS if n in state.records[0]}
    return {
        "subspace.json": store.to_json(result.subspace.describe()),
        "subspace.parquet": store.to_parquet(
            {
                "arch": space.format(state.rows[members]),
                "predicted": state.values(members),
                "distance": state.distance[members],
                "seed": space.format(state.rows[state.seed[members]]),
            }
        ),
        "iterations.parquet": store.to_parquet(columns),
        "metrics.json": store.to_json(shrink_metrics(result, benchmark)),
        "labels.parquet": store.to_parquet(
            {
                "arch": space.format(state.rows[labelled]),
                "value": state.labels[labelled],
                "round": state.label_round[labelled],
            }
        ),
        "predictor.ubj": model,
        "predictor.json": store.to_json(sidecar),
        "iterations.png": figures.iterations(state.records, title, benchmark.metric),
        "edf.png": figures.error_distributions(distributions, title, benchmark.metric),
    }


def shrink_metrics(result: ShrinkResult, benchmark: Benchmark) -> dict[str, Any]:
    """Return what `metrics.json` says of a shrunk space, against the benchmark's table."""
    state, params, size = result.state, result.problem.params, benchmark.space.size()
    values = benchmark.look_up(state.keys[result.members])
    threshold = good_threshold(benchmark.values)
    p, p_full = share_good(values, threshold), share_good(benchmark.values, threshold)
    tenth = np.sort(benchmark.values)[-min(10, size)]
    return {
        "benchmark": benchmark.name,
        "seed": params.seed,
        "variant": params.variant,
        "size": len(result.members),
        "full_size": size,
        "reduction": size / len(result.members),
        "queries": state.queries,
        "labels": state.n_labels,
        "iterations": state.iteration,
        "stop": state.stop,
        "notes": list(state.notes),
        "mean_predicted": float(state.values(result.members).mean()),
        "mean_true": float(values.mean()),
        "max_true": float(values.max()),
        "full_mean_true": float(benchmark.values.mean()),
        "full_max_true": benchmark.best,
        "kept_best": bool(values.max() == benchmark.best),
        # Equal values are equally good, so any ten that reach the tenth value will do.
        "top10_kept": int(min(10, (values >= tenth).sum())),
        "p_good": p,
        "shrink_index": p - p_full,
        "shrink_index_10_2": prob_good(p, 10, 2) - prob_good(p_full, 10, 2),
    }


def finished(folder: Path) -> Outcome:
    """Return the result that is in a folder; raises UserError where there is none, DamagedFile where it is off."""
    store.verify(folder, "Make it again: the command in its run.json with --force.")
    return Outcome(folder, json.loads((folder / "metrics.json").read_bytes()), reused=False)


# -- how every stage runs ---------------------------------------------------------------------------
def _run(out: Path, parameters: Mapping[str, Any], work: Callable[[], dict[str, bytes]], force: bool) -> Outcome:
    """Do the work under the folder's lock and publish it, unless its result is there already."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; choose a folder")
    with store.locked(out):
        if not force and (found := _reusable(out, parameters)) is not None:
            return found
        started, clock = datetime.now(UTC), time.perf_counter()
        files = {**work(), PARAMETERS: store.to_json(parameters)}
        store.publish(out, files, {"run.json": store.to_json(_run_record(started, clock))})
        store.Checkpoint(out, parameters).clear()
        return Outcome(out, json.loads(files["metrics.json"]), reused=False)


def _reusable(out: Path, parameters: Mapping[str, Any]) -> Outcome | None:
    """Return the sound result of the same parameters; raises UserError if there is one of others."""
    if store.read_manifest(out) is None:
        return None
    manifest = store.verify(out, f"Make it again: the same command with --force, or delete {out}.")
    text = (out / PARAMETERS).read_bytes() if PARAMETERS in manifest else b"{}"
    if text != store.to_json(parameters):
        theirs = json.loads(text)
        differ = sorted(k for k in parameters.keys() | theirs.keys() if parameters.get(k) != theirs.get(k))
        raise UserError(
            f"{out} holds the result of other parameters ({', '.join(differ)} differ); "
            "choose another folder, or replace it with --force"
        )
    return Outcome(out, json.loads((out / "metrics.json").read_bytes()), reused=True)


def _run_record(started: datetime, clock: float) -> dict[str, Any]:
    """Return what is no function of the parameters: times, versions, host, command."""
    versions = {}
    for package in VERSIONED:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - clock, 3),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "host": platform.node(),
        "versions": versions,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }
