"""Fit a benchmark's predictor on uniform labels, one for each seed, and say how good it is.

python -m flows.predictor --benchmark nasbench101
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow

from flows.common import DATA, log_to_mlflow, main, run_step, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import (
    BenchmarkOption,
    ForceOption,
    ShrinkSettings,
    TableOption,
    ThreadsOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.stages.predictor import predictor_stage


@flow(name="predictor", flow_run_name="predictor {benchmark}", persist_result=False)
def predictor(
    benchmark: str,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
) -> tuple[Outcome, str]:
    """Assess the predictor of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides or {}, table)
    folder = out or DATA / "predictor" / benchmark
    outcome = predictor_stage(checked, source, folder, run_step, force, threads)
    rows = outcome.table("assessment.parquet").to_pylist()
    table_artifact(f"predictor {benchmark}", rows, f"The predictor of {benchmark}, by seed")
    return outcome, log_to_mlflow("predictor", outcome)


@with_options
def command(
    benchmark: BenchmarkOption,
    settings: ShrinkSettings,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/predictor/...")] = None,
    table: TableOption = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Fit and assess a benchmark's predictor in a Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    description.load(benchmark, params, overrides, table)
    outcome, place = predictor(benchmark, out, params, table, overrides, threads, force)
    render.show_assessment(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
