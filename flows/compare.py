"""Compare all methods on a benchmark: one task a method and seed.

python -m flows.compare --benchmark nasbench101 --seeds 0-9
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from prefect import flow, get_run_logger
from prefect.runtime import flow_run

from flows.common import DATA, folder_of, given_source, log_to_mlflow, main, run_named_step, table_artifact
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import options, render
from lissnas.cli.options import (
    ForceOption,
    MethodsOption,
    SeedsOption,
    ShrinkSettings,
    SourceOptions,
    ThreadsOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.shrinkers.comparison import source_of
from lissnas.shrinkers.methods import chosen
from lissnas.stages.compare import compare_stage

SHOWN = ("method", "size", "queries", "mean_true", "ours_mean_true", "ours_minus", "p_holm", "kept_best")


def named() -> str:
    """Return the name of this flow run: what the methods are compared on."""
    given = flow_run.parameters
    return f"compare {given['benchmark'] or given['space']}"


@flow(name="compare", flow_run_name=named, persist_result=False)
def compare(
    benchmark: str | None = None,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    threads: int = 0,
    force: bool = False,
    space: str | None = None,
    labels: Path | None = None,
    metric: str | None = None,
    labels_from: Literal["training"] | None = None,
    oracle_command: str | None = None,
    oracle_timeout: float = SourceOptions.oracle_timeout,
    oracle_supernet: Path | None = None,
    oracle_model: Path | None = None,
) -> tuple[Outcome, str]:
    """Compare methods on `benchmark`, or a `space` and its surrogate, into `out`; log each row to MLflow."""
    given = given_source(locals())
    folder = out or folder_of("compare", benchmark, space)
    checked, source = description.load_source(given, params, overrides or {}, folder)
    outcome = compare_stage(
        checked,
        source,
        chosen(checked.compare.methods, source_of(source)),
        checked.pipeline.seeds,
        folder,
        run_named_step,
        get_run_logger().info,
        force,
        threads,
    )
    rows = [{name: row[name] for name in SHOWN if name in row} for row in outcome.csv("summary.csv")]
    table_artifact(f"comparison {source.name}", rows, f"Methods on {source.name}, means over seeds")
    return outcome, log_to_mlflow("compare", outcome)


@with_options
def command(
    source: SourceOptions,
    settings: ShrinkSettings,
    methods: MethodsOption = None,
    seeds: SeedsOption = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/compare/...")] = None,
    threads: ThreadsOption = 0,
    force: ForceOption = False,
) -> None:
    """Compare methods in a Prefect flow run, each method and seed logged to MLflow."""
    params, overrides = settings.params, settings.overrides(options.comparison_overrides(methods, seeds))
    # A mistake ends here, before Prefect starts.
    checked, compared = description.load_source(vars(source), params, overrides, out or DATA / "compare")
    chosen(checked.compare.methods, source_of(compared))
    outcome, place = compare(**vars(source), out=out, params=params, overrides=overrides, threads=threads, force=force)
    if "DVC_STAGE" not in os.environ:
        render.show_comparison(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
