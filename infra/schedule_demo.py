"""Create a schedule that fires in seconds and follow its run: scheduled, picked up, completed, its artifacts.

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
CARRIED = (
    *("flow_id", "entrypoint", "path", "pull_steps", "work_pool_name", "job_variables"),
    "parameter_openapi_schema",
)
"""Fields that the demo's deployment copies from DEPLOYMENT."""
DELAY_SECONDS = 15
"""Seconds until the schedule fires."""
TIMEOUT_SECONDS = 240
"""Seconds within which its run must finish."""


def schedule_demo() -> None:
    """Schedule a shrink of NAS-Bench-Macro and follow its run; exit code 1 unless it completes."""
    find_servers()
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.filters import ArtifactFilter
    from prefect.client.schemas.schedules import IntervalSchedule
    from prefect.exceptions import ObjectNotFound

    page = os.environ["PREFECT_API_URL"].removesuffix("/api")
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            raise UserError(f"{DEPLOYMENT} is not deployed: `make deploy`") from None
        # A separate deployment: if one already has schedules, Prefect considers a new one only once the runs of the
        # others are used up.
        due = datetime.now(UTC) + timedelta(seconds=DELAY_SECONDS)
        schedule = IntervalSchedule(interval=timedelta(days=1), anchor_date=due)
        demo = client.create_deployment(
            name=DEMO,
            parameters=PARAMETERS,
            schedules=[DeploymentScheduleCreate(schedule=schedule)],
            tags=[DEMO],
            **{name: getattr(deployment, name) for name in CARRIED},
        )
        try:
            run = _followed(client, demo, due)
        finally:
            client.delete_deployment(demo)
        process.say(f"run          {page}/runs/flow-run/{run.id}")
        of_run = ArtifactFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
        for artifact in client.read_artifacts(artifact_filter=of_run):
            process.say(f"artifact     {artifact.key} ({artifact.type}) {page}/artifacts/artifact/{artifact.id}")
            if artifact.type == "markdown" and artifact.key == "mlflow":
                # the URL of a Markdown link
                process.say(f"MLflow       {str(artifact.data).rpartition('(')[2].rstrip(')')}")
        if not run.state.is_completed():
            raise LissnasError(f"the run ended {run.state.name}: {run.state.message}")


def _followed(client: Any, deployment: Any, due: datetime) -> Any:
    """Return the first run of a deployment once it has finished; print each state change."""
    from prefect.client.schemas.filters import DeploymentFilter
    from prefect.client.schemas.sorting import FlowRunSort

    only_it = DeploymentFilter.model_validate({"id": {"any_": [deployment]}})
    shown, deadline = None, time.monotonic() + TIMEOUT_SECONDS
    process.say(f"due          {due:%H:%M:%S}")
    while time.monotonic() < deadline:
        for run in client.read_flow_runs(deployment_filter=only_it, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=1):
            if run.state is not None and run.state.name != shown:
                shown = run.state.name
                late = (run.state.timestamp - due).total_seconds()
                process.say(f"{shown.lower():<12} {run.state.timestamp:%H:%M:%S} ({late:+.1f} s)  {run.name}")
                if run.state.is_final():
                    return run
        time.sleep(0.3)
    raise LissnasError(f"no scheduled run finished within {TIMEOUT_SECONDS} s. See `make status` and the worker's log")


if __name__ == "__main__":
    process.run(lambda: typer.run(schedule_demo))
