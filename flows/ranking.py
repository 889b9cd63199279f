"""Rank networks with supernets of several spaces, all trained with one budget: one task a space and seed.

python -m flows.ranking --benchmark nas_bench_macro
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows.common import DATA, GPU, limit_gpu_tasks, log_to_mlflow, main, run_named_step, table_artifact, training_log
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import options, render
from lissnas.cli.options import (
    BenchmarkOption,
    ForceOption,
    MethodsOption,
    RankingSettings,
    SeedsOption,
    TableOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.stages.ranking import COEFFICIENTS, ranking_stage

SHOWN = ("method", "sample", "size", "networks", *COEFFICIENTS, "found_true")


@flow(name="ranking", flow_run_name="ranking {benchmark}", persist_result=False)
def ranking(
    benchmark: str,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
) -> tuple[Outcome, str]:
    """Train and judge a supernet on each space into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides or {}, table)
    limit_gpu_tasks()
    outcome = ranking_stage(
        checked,
        source,
        out or DATA / "ranking" / benchmark,
        partial(run_named_step, tags=[GPU]),
        get_run_logger().info,
        training_log(),
        force,
        threads,
    )
    rows = [{name: row[name] for name in SHOWN} for row in outcome.csv("summary.csv")]
    table_artifact(f"ranking {benchmark}", rows, f"Supernets ranking networks of {benchmark}, means over seeds")
    return outcome, log_to_mlflow("ranking", outcome)


@with_options
def command(
    benchmark: BenchmarkOption,
    settings: RankingSettings,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/ranking/...")] = None,
    table: TableOption = None,
    force: ForceOption = False,
) -> None:
    """Rank networks with supernets of several spaces in a Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides(options.ranking_overrides(benchmark, methods, seeds))
    description.load(benchmark, params, overrides, table)
    outcome, place = ranking(benchmark, out, params, table, overrides, 0, force)
    render.show_ranking(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
