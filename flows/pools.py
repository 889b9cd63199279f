"""Training on a separate work pool: flow runs that another flow submits and waits for.

If the variable GPU_POOL is set, training flows go to the workers of the pool `gpu` (deployed by prefect.yaml);
otherwise training runs in the process of the calling flow. Both write the same files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import httpx
from prefect import Flow, get_client, get_run_logger
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from pydantic_core import to_jsonable_python

from infra.settings import GPU_POOL, POOL_OF
from lissnas.core.errors import LissnasError, UserError

CONFIGURED = "GPU_POOL"
"""Environment variable that is set if the GPU pool has workers."""
EXPECTED = "GPU_EXPECTED"
"""Environment variable that is set in jobs of that pool, which should have a GPU."""
POLL_SECONDS = 2.0
"""Seconds between two polls of a run's state."""
GRACE_SECONDS = 30.0
"""Seconds within which a crashed run must be scheduled again (infra/automations.yaml)."""


def configured() -> bool:
    """Return whether training runs on the GPU pool."""
    return bool(os.environ.get(CONFIGURED))


def goes_to_gpus(flow: str) -> bool:
    """Return whether a flow, or the stage of dvc.yaml of the same name, runs on the GPU pool."""
    return configured() and POOL_OF.get(flow) == GPU_POOL


def run_training(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> None:
    """Run a flow and wait for it: on the GPU pool if it belongs there, else in this process."""
    if goes_to_gpus(flow.name):
        run_on_pool(flow.name, parameters)
    else:
        flow(**parameters)


def run_on_pool(flow: str, parameters: Mapping[str, Any]) -> None:
    """Run a flow on the GPU pool and wait for it, including retries after a crash.

    Raises LissnasError if it does not complete, UserError if it is not deployed.
    """
    given = to_jsonable_python(parameters)
    name = f"{flow}/{GPU_POOL}"
    with get_client(sync_client=True) as client:
        try:
            run: Any = run_deployment(name, parameters=given, timeout=0)
        except ObjectNotFound:
            raise UserError(f"{CONFIGURED} is set, but {name} is not deployed: `make deploy`, or unset it") from None
        get_run_logger().info("%s on the pool %s: flow run %s", flow, GPU_POOL, run.id)
        crashed = 0.0
        while not run.state.is_final() or (run.state.is_crashed() and crashed <= GRACE_SECONDS):
            time.sleep(POLL_SECONDS)
            with suppress(httpx.TransportError):  # the server is unreachable; the run continues without it
                run = client.read_flow_run(run.id)
                crashed = crashed + POLL_SECONDS if run.state.is_crashed() else 0.0
    if not run.state.is_completed():
        message = run.state.message or ""
        raise LissnasError(f"{run.name} on the pool {GPU_POOL} ended {run.state.name}: {message} (flow run {run.id})")


def warn_without_gpu() -> None:
    """Log a warning if a job that should have a GPU has none."""
    if not os.environ.get(EXPECTED):
        return
    import torch

    if not torch.cuda.is_available():
        get_run_logger().warning(
            "this run requested a GPU and found none: it trains on the CPU. Check that the worker of the pool %s runs "
            "on a machine with a GPU and that its job template requests one (infra/runbook.md)",
            GPU_POOL,
        )
