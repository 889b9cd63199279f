"""Fit a benchmark's predictor on uniform labels, one for each seed, and assess it.

python -m flows.predictor --benchmark nasbench101
"""

from __future__ import annotations

from typing import Any

from prefect import flow

from flows.common import DATA, OutOption, command_of, log_to_mlflow, main, run_step, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import BenchmarkOption, ForceOption, ShrinkSettings, TableOption, ThreadsOption
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.predictor import predictor_stage


@flow(name="predictor", flow_run_name="predictor {benchmark}", persist_result=False)
def predictor(
    benchmark: BenchmarkOption,
    out: OutOption = None,
    params: ParamFiles = None,
    table: TableOption = None,
    overrides: dict[str, Any] | None = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> tuple[Outcome, str]:
    """Assess the predictor of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides, table)
    outcome = predictor_stage(checked, source, out or DATA / "predictor" / benchmark, run_step, force, threads)
    rows = outcome.table("assessment.parquet").to_pylist()
    table_artifact(f"predictor {benchmark}", rows, f"The predictor of {benchmark}, by seed")
    return outcome, log_to_mlflow("predictor", outcome)


if __name__ == "__main__":
    main(command_of(predictor, description.load, render.show_assessment, ShrinkSettings))
