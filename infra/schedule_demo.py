"""Set a schedule seconds ahead, and show its run: scheduled, picked up by a worker, completed, its artifacts.

python -m infra.schedule_demo     (or `make schedule-demo`)
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import typer

from infra.deploy import find_servers
from lissnas.core import process
from lissnas.core.errors import LissnasError, UserError

DEPLOYMENT = "shrink/cpu"
DEMO = "demo"
PARAMETERS = {"what": {"benchmark": "nas_bench_macro"}, "out": "data/demo/nas_bench_macro", "force": True}
AHEAD, PATIENCE = 15, 240
"""Seconds until the schedule fires, and in which its run must end."""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def schedule_demo() -> None:
    """Schedule a shrink of NAS-Bench-Macro, follow its run; exit code 1 unless it completes."""
    find_servers()
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.exceptions import ObjectNotFound

    page = os.environ["PREFECT_API_URL"].removesuffix("/api")
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            raise UserError(f"{DEPLOYMENT} is not deployed: `make deploy`") from None
        # A deployment of its own: of one that has schedules already, Prefect would look at a new one only once
        # the runs of the others are used up.
        due = datetime.now(UTC) + timedelta(seconds=AHEAD)
        schedule = IntervalSchedule(interval=timedelta(days=1), anchor_date=due)
        demo = client.create_deployment(
            flow_id=deployment.flow_id,
            name=DEMO,
            entrypoint=deployment.entrypoint,
            path=deployment.path,
            pull_steps=deployment.pull_steps,
            work_pool_name=deployment.work_pool_name,
            job_variables=deployment.job_variables,
            parameters=PARAMETERS,
            parameter_openapi_schema=deployment.parameter_openapi_schema,
            schedules=[DeploymentScheduleCreate(schedule=schedule)],
            tags=[DEMO],
        )
        try:
            run = _followed(client, demo, due)
        finally:
            client.delete_deployment(demo)
        process.out.print(f"run          {page}/runs/flow-run/{run.id}", soft_wrap=True)
        for artifact in _artifacts(client, run.id):
            process.out.print(
                f"artifact     {artifact.key} ({artifact.type}) {page}/artifacts/artifact/{artifact.id}", soft_wrap=True
            )
            if artifact.type == "markdown" and artifact.key == "mlflow":
                address = artifact.data.rpartition("(")[2].rstrip(")")  # of a link in Markdown
                process.out.print(f"MLflow       {address}", soft_wrap=True)
        if not run.state.is_completed():
            raise LissnasError(f"the run ended {run.state.name}: {run.state.message}")


def _followed(client: Any, deployment: Any, due: datetime) -> Any:
    """Return the run that the schedule made once it has ended; prints each of its states as it comes."""
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
    )

    about = {
        "deployment_filter": DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
        "flow_run_filter": FlowRunFilter(
            expected_start_time=FlowRunFilterExpectedStartTime(
                after_=due - timedelta(seconds=1), before_=due + timedelta(seconds=1)
            )
        ),
    }
    run, shown, deadline = None, None, time.monotonic() + PATIENCE
    process.out.print(f"due          {due:%H:%M:%S}")
    while time.monotonic() < deadline:
        run = client.read_flow_run(run.id) if run else next(iter(client.read_flow_runs(**about)), None)
        if run is not None and run.state is not None and run.state.name != shown:
            shown = run.state.name
            late = (run.state.timestamp - due).total_seconds()
            process.out.print(f"{shown.lower():<12} {run.state.timestamp:%H:%M:%S} ({late:+.1f} s)  {run.name}")
            if run.state.is_final():
                return run
        time.sleep(0.3)
    raise LissnasError(f"no run of the schedule ended within {PATIENCE} s: `make status`, and the worker's log")


def _artifacts(client: Any, flow_run: Any) -> list[Any]:
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    return list(
        client.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run])))
    )


if __name__ == "__main__":
    process.run(app)
