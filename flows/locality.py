"""Measure the locality of a benchmark's space on its true values.

python -m flows.locality --benchmark nasbench101
"""

from __future__ import annotations

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.locality import locality_stage


@flow(name="locality", flow_run_name="locality {benchmark}", persist_result=False)
def locality(
    benchmark: options.BenchmarkOption,
    out: common.OutOption = None,
    params: ParamFiles = None,
    table: options.TableOption = None,
    overrides: common.Overrides = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Measure the locality of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides, table)
    folder = out or common.DATA / "locality" / benchmark
    outcome = locality_stage(
        checked, source, folder, call=common.run_step, on_progress=common.log_line, force=force, threads=threads
    )
    rows = outcome.table("locality.parquet").to_pylist()
    common.table_artifact(f"locality {benchmark}", rows, f"Correlation at exact edit distance, {benchmark}")
    return outcome, common.log_to_mlflow("locality", outcome)


if __name__ == "__main__":
    common.main(common.command_of(locality, description.load, render.show_locality))
