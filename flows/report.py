"""Make the report from what the other stages left.

python -m flows.report
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.common import DATA, log_to_mlflow, main
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import ForceOption, Settings, with_options
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.stages.report.stage import report_stage

RESULTS = Path("studies/results")
REPORT = Path("report")


@flow(name="report", flow_run_name="report", persist_result=False)
def report(
    out: Path | None = None,
    params: ParamFiles = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
) -> tuple[Outcome, str]:
    """Make the report of the pipeline's benchmarks in `out`, log it to MLflow."""
    checked = description.load_params(params, overrides or {})
    outcome = report_stage(checked, DATA, RESULTS, out or REPORT, get_run_logger().info, force)
    lines = (outcome.folder / "report.md").read_text().splitlines()
    first_picture = next((i for i, line in enumerate(lines) if line.startswith("![")), len(lines))
    create_markdown_artifact("\n".join(lines[: first_picture - 2]), key="report", description="What the numbers say")
    return outcome, log_to_mlflow("report", outcome)


@with_options
def command(
    settings: Settings,
    out: Annotated[Path | None, typer.Option(help="Folder for the report; else report/")] = None,
    force: ForceOption = False,
) -> None:
    """Make the report in a Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    description.load_params(params, overrides)
    outcome, place = report(out, params, overrides, force)
    render.show_report(outcome)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
