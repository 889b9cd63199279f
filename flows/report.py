"""Write the report from the results of the other stages.

python -m flows.report
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.cli import options, render
from lissnas.config import ParamFiles
from lissnas.shrinkers import description
from lissnas.stages.report.stage import report_stage

RESULTS = Path("studies/results")
REPORT = Path("report")


@flow(name="report", flow_run_name="report", persist_result=False)
def report(
    out: common.OutOption = None,
    params: ParamFiles = None,
    overrides: common.Overrides = None,
    force: options.ForceOption = False,
) -> tuple[Outcome, str]:
    """Write the report of the pipeline's benchmarks to `out`, log it to MLflow."""
    checked = description.load_params(params, overrides)
    how: How = {"on_progress": common.log_line, "force": force}
    how["record"] = record = common.recorder("report")
    outcome = report_stage(checked, common.DATA, RESULTS, out or REPORT, **how)
    first_sections = (outcome.folder / "report.md").read_text().split("\n## ")[:2]
    create_markdown_artifact("\n## ".join(first_sections), key="report", description="Main results")
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(common.command_of(report, description.load_params, render.show_report))
