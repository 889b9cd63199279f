"""Compare all methods on a benchmark: one task a method and seed.

python -m flows.compare --benchmark nasbench101 --seeds 0-9
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows.common import DATA, log_to_mlflow, main, run_named_step, table_artifact
from lissnas import comparison, console, options
from lissnas.options import (
    BenchmarkOption,
    ForceOption,
    MethodsOption,
    ParamsOption,
    SeedsOption,
    TableOption,
    ThreadsOption,
    with_config_options,
)
from lissnas.stages.base import Outcome
from lissnas.stages.compare import compare_stage

SHOWN = ("method", "size", "queries", "mean_true", "ours_mean_true", "ours_minus", "p_holm", "kept_best")


@flow(name="compare", flow_run_name="compare {benchmark}", persist_result=False)
def compare(
    benchmark: str,
    out: Path | None = None,
    params: Path | None = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
) -> tuple[Outcome, str]:
    """Compare the methods of the parameters on `benchmark` into `out`, log each row to MLflow."""
    checked, source = options.load(benchmark, params, overrides or {}, table)
    outcome = compare_stage(
        checked,
        source,
        comparison.chosen(checked.compare.methods),
        checked.pipeline.seeds,
        out or DATA / "compare" / benchmark,
        run_named_step,
        get_run_logger().info,
        force,
        threads,
    )
    rows = [{name: row[name] for name in SHOWN} for row in outcome.csv("summary.csv")]
    table_artifact(f"comparison {benchmark}", rows, f"Methods on {benchmark}, means over seeds")
    return outcome, log_to_mlflow("compare", outcome)


@with_config_options("shrink")
def command(
    benchmark: BenchmarkOption,
    overrides: dict[str, Any],
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/compare/...")] = None,
    params: ParamsOption = None,
    table: TableOption = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Compare methods in a Prefect flow run, each method and seed logged to MLflow."""
    overrides = {**overrides, **options.comparison_overrides(methods, seeds)}
    options.load(benchmark, params, overrides, table)
    outcome, place = compare(benchmark, out, params, table, overrides, threads, force)
    if "DVC_STAGE" not in os.environ:
        console.show_comparison(outcome)
    console.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
