"""Fit and assess a benchmark's predictor on uniformly sampled labels, once for each seed.

python -m flows.predictor --benchmark nasbench101
"""

from __future__ import annotations

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.predictor import predictor_stage


@flow(name="predictor", flow_run_name="predictor {benchmark}", persist_result=False)
def predictor(
    benchmark: options.BenchmarkOption,
    out: common.OutOption = None,
    params: ParamFiles = None,
    table: options.TableOption = None,
    overrides: common.Overrides = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Assess the predictor of `benchmark` into `out`, log it to MLflow."""
    checked, source = description.load(benchmark, params, overrides, table)
    folder = out or common.DATA / "predictor" / benchmark
    record = common.recorder("predictor")
    how: How = {"call": common.run_step, "force": force, "threads": threads, "record": record}
    outcome = predictor_stage(checked, source, folder, **how)
    rows = outcome.table("assessment.parquet").to_pylist()
    common.table_artifact(f"predictor {benchmark}", rows, f"The predictor of {benchmark}, by seed")
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(predictor, description.load, render.show_assessment, options.ShrinkSettings))
