"""Compare all methods on a benchmark: one task for each method and seed.

python -m flows.compare --benchmark nasbench101 --seeds 0-9
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers.comparison import source_of
from lissnas.shrinkers.description import Description
from lissnas.shrinkers.methods import chosen
from lissnas.shrinkers.problem import Source
from lissnas.stages.compare import compare_stage

SHOWN = (
    *("method", "size", "queries", "evaluated", "mean_true", "ours_mean_true", "ours_minus", "ours_minus_sd"),
    *("verdict", "kept_best"),
)


def prepared(
    what: Description,
    out: Path | None,
    params: ParamFiles,
    overrides: common.Overrides,
    methods: str | None,
    seeds: str | None,
    method: Sequence[str] | None = None,
) -> tuple[Params, Source, Sequence[str], Path]:
    """Return validated parameters, source, methods and output folder; raise UserError if any input is invalid."""
    folder = out or common.folder_of("compare", what.name)
    merged = {**(overrides or {}), **options.comparison_overrides(methods, seeds)}
    checked, source = what.load(params, merged, folder)
    names = chosen(checked.compare.methods, source_of(source), method or (), required=methods is not None)
    return checked, source, names, folder


@flow(name="compare", flow_run_name="compare {what.name}", persist_result=False)
def compare(
    what: Description,
    out: common.OutOption = None,
    params: ParamFiles = None,
    overrides: common.Overrides = None,
    methods: options.MethodsOption = None,
    seeds: options.SeedsOption = None,
    method: options.MoreMethodsOption = None,
    threads: options.ThreadsOption = 0,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Compare methods on a benchmark, or on a space with labels or a surrogate, into `out`; log each row to MLflow."""
    checked, source, names, folder = prepared(what, out, params, overrides, methods, seeds, method)
    all_seeds = checked.pipeline.seeds
    how: How = {"call": common.run_step, "on_progress": common.log_line, "force": force, "threads": threads}
    how["record"] = record = common.recorder("compare")
    outcome = compare_stage(checked, source, names, all_seeds, folder, **how)
    rows = [{name: row[name] for name in SHOWN if name in row} for row in outcome.csv("summary.csv")]
    common.table_artifact(f"comparison {source.name}", rows, f"Methods on {source.name}, means over seeds")
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(compare, prepared, render.show_comparison, options.ShrinkSettings))
