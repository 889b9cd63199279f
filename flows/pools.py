"""Training on a pool of its own: flow runs that another one sends there and waits for.

GPU_POOL says that workers of the pool `gpu` are there (its deployments are in prefect.yaml); without it training runs
in the process of the flow that wants it. Both leave the same files.
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
"""The variable that says that the GPU pool has workers."""
EXPECTED = "GPU_EXPECTED"
"""The variable that says that this process is a job of that pool, and should have a GPU."""
EVERY = 2.0
"""Seconds between two looks at a run."""
GRACE = 30.0
"""Seconds in which a crashed run must be scheduled again (infra/automations.yaml)."""


def configured() -> bool:
    """Return whether training goes to a pool of its own."""
    return bool(os.environ.get(CONFIGURED))


def goes_to_gpus(flow: str) -> bool:
    """Return whether a flow, or the stage of dvc.yaml that it runs, goes to the GPU pool."""
    return configured() and POOL_OF.get(flow) == GPU_POOL


def run_training(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> None:
    """Run a flow and wait for it: on the GPU pool if it belongs there, else in this process."""
    if goes_to_gpus(flow.name):
        run_on_pool(flow.name, parameters)
    else:
        flow(**parameters)


def run_on_pool(flow: str, parameters: Mapping[str, Any]) -> None:
    """Run a flow on the GPU pool and wait for it, also while it is scheduled again after a crash.

    Raises LissnasError where it does not complete, UserError where it is not deployed.
    """
    given = to_jsonable_python(parameters)
    name = f"{flow}/{GPU_POOL}"
    with get_client(sync_client=True) as client:
        try:
            run: Any = run_deployment(name, parameters=given, timeout=0)
        except ObjectNotFound:
            raise UserError(f"{CONFIGURED} is set, and {name} is not deployed: `make deploy`, or unset it") from None
        get_run_logger().info("%s on the pool %s: flow run %s", flow, GPU_POOL, run.id)
        crashed = 0.0
        while not run.state.is_final() or (run.state.is_crashed() and crashed <= GRACE):
            time.sleep(EVERY)
            with suppress(httpx.TransportError):  # the server is away; the run goes on without it
                run = client.read_flow_run(run.id)
                crashed = crashed + EVERY if run.state.is_crashed() else 0.0
    if not run.state.is_completed():
        said = run.state.message or ""
        raise LissnasError(f"{run.name} on the pool {GPU_POOL} ended {run.state.name}: {said} (flow run {run.id})")


def warn_without_gpu() -> None:
    """Log a warning if a job that should have a GPU has none."""
    if not os.environ.get(EXPECTED):
        return
    import torch

    if not torch.cuda.is_available():
        get_run_logger().warning(
            "this run asked for a GPU and finds none: it trains on the CPU. Is the worker of the pool %s on a machine "
            "with a GPU, and does its job template ask for one? (infra/runbook.md)",
            GPU_POOL,
        )
