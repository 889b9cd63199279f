"""Measure the locality of a benchmark's space on its true values.

python -m flows.locality --benchmark nasbench101
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows.common import DATA, log_to_mlflow, main, run_step, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import (
    BenchmarkOption,
    ForceOption,
    Settings,
    TableOption,
    ThreadsOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.stages.locality import locality_stage


@flow(name="locality", flow_run_name="locality {benchmark}", persist_result=False)
def locality(
    benchmark: str,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
) -> tuple[Outcome, str]:
    """Measure the locality of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides or {}, table)
    folder = out or DATA / "locality" / benchmark
    logger = get_run_logger()
    outcome = locality_stage(checked, source, folder, run_step, logger.info, force=force, threads=threads)
    rows = outcome.table("locality.parquet").to_pylist()
    table_artifact(f"locality {benchmark}", rows, f"Correlation at exact edit distance, {benchmark}")
    return outcome, log_to_mlflow("locality", outcome)


@with_options
def command(
    benchmark: BenchmarkOption,
    settings: Settings,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/locality/...")] = None,
    table: TableOption = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Measure a benchmark's locality in a Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    description.load(benchmark, params, overrides, table)
    outcome, place = locality(benchmark, out, params, table, overrides, threads, force)
    render.show_locality(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
