"""Rank networks with supernets of several spaces, trained with the same budget: one task for each space and seed.

python -m flows.ranking --benchmark nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers import description
from lissnas.stages.ranking import COEFFICIENTS, ranking_stage

SHOWN = ("method", "sample", "size", "networks", *COEFFICIENTS, "found_true")


def prepared(
    benchmark: str,
    params: ParamFiles,
    table: Path | None,
    overrides: common.Overrides,
    methods: str | None,
    seeds: str | None,
) -> tuple[Params, Benchmark]:
    """Return validated parameters and the benchmark; raise UserError if any input is invalid."""
    merged = {**(overrides or {}), **options.ranking_overrides(benchmark, methods, seeds)}
    return description.load(benchmark, params, merged, table)


@flow(name="ranking", flow_run_name="ranking {benchmark}", persist_result=False)
def ranking(
    benchmark: options.BenchmarkOption,
    out: common.OutOption = None,
    params: ParamFiles = None,
    table: options.TableOption = None,
    overrides: common.Overrides = None,
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    threads: int = 0,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Train and evaluate a supernet on each space into `out`, log it to MLflow."""
    checked, source = prepared(benchmark, params, table, overrides, methods, seeds)
    common.limit_gpu_tasks()
    how: How = {"call": common.train_step, "on_progress": common.log_line, "force": force, "threads": threads}
    how["on_training"] = common.training_log()
    how["record"] = record = common.recorder("ranking")
    outcome = ranking_stage(checked, source, out or common.DATA / "ranking" / benchmark, **how)
    rows = [{name: row[name] for name in SHOWN} for row in outcome.csv("summary.csv")]
    common.table_artifact(f"ranking {benchmark}", rows, f"Supernets ranking networks of {benchmark}, means over seeds")
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(ranking, prepared, render.show_ranking, options.RankingSettings))
