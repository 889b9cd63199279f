"""Measure the locality of a benchmark's space on its true values.

python -m flows.locality --benchmark nasbench101
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.own_table import benchmark_of
from lissnas.stages.locality import locality_stage


def prepared(
    what: Description, out: Path | None, params: ParamFiles, overrides: common.Overrides
) -> tuple[Params, Benchmark, Path]:
    """Return validated parameters, the table and output folder; raise UserError if any input is invalid."""
    folder = out or common.folder_of("locality", what.name)
    checked, source = what.load(params, overrides, folder)
    return checked, benchmark_of(source, predicted=False), folder


@flow(name="locality", flow_run_name="locality {what.name}", persist_result=False)
def locality(
    what: Description,
    out: common.OutOption = None,
    params: ParamFiles = None,
    overrides: common.Overrides = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Measure the locality of a benchmark, or of a space with complete labels, into `out`, log it to MLflow."""
    checked, table, folder = prepared(what, out, params, overrides)
    how: How = {"call": common.run_step, "on_progress": common.log_line, "force": force, "threads": threads}
    how["record"] = record = common.recorder("locality")
    outcome = locality_stage(checked, table, folder, **how)
    rows = outcome.table("locality.parquet").to_pylist()
    common.table_artifact(f"locality {table.name}", rows, f"Correlation at exact edit distance, {table.name}")
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(locality, prepared, render.show_locality))
