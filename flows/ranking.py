"""Rank networks with supernets of several spaces, all trained with one budget: one task a space and seed.

python -m flows.ranking --benchmark nas_bench_macro
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from flows.common import (
    DATA,
    GPU,
    OutOption,
    command_of,
    limit_gpu_tasks,
    log_to_mlflow,
    main,
    run_named_step,
    say,
    table_artifact,
    training_log,
)
from lissnas.artifacts.stage_run import Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.cli.options import BenchmarkOption, ForceOption, MethodsOption, RankingSettings, SeedsOption, TableOption
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers import description
from lissnas.stages.ranking import COEFFICIENTS, ranking_stage

SHOWN = ("method", "sample", "size", "networks", *COEFFICIENTS, "found_true")


def prepared(
    benchmark: str,
    params: ParamFiles,
    table: Path | None,
    overrides: dict[str, Any] | None,
    methods: str | None,
    seeds: str | None,
) -> tuple[Params, Benchmark]:
    """Return checked parameters and the benchmark; raises UserError for any mistake."""
    own = {**(overrides or {}), **options.ranking_overrides(benchmark, methods, seeds)}
    return description.load(benchmark, params, own, table)


@flow(name="ranking", flow_run_name="ranking {benchmark}", persist_result=False)
def ranking(
    benchmark: BenchmarkOption,
    out: OutOption = None,
    params: ParamFiles = None,
    table: TableOption = None,
    overrides: dict[str, Any] | None = None,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    threads: int = 0,
    force: ForceOption = False,
) -> tuple[Outcome, str]:
    """Train and evaluate a supernet on each space into `out`, log it to MLflow."""
    checked, source = prepared(benchmark, params, table, overrides, methods, seeds)
    limit_gpu_tasks()
    folder, call = out or DATA / "ranking" / benchmark, partial(run_named_step, tags=[GPU])
    outcome = ranking_stage(checked, source, folder, call, say, training_log(), force, threads)
    rows = [{name: row[name] for name in SHOWN} for row in outcome.csv("summary.csv")]
    table_artifact(f"ranking {benchmark}", rows, f"Supernets ranking networks of {benchmark}, means over seeds")
    return outcome, log_to_mlflow("ranking", outcome)


if __name__ == "__main__":
    main(command_of(ranking, prepared, render.show_ranking, RankingSettings))
