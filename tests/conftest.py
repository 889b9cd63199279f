from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from lissnas import benchmarks, config
from lissnas.config import Params
from lissnas.shrinkers.problem import Problem, Source

# Tests must not connect to other hosts, nor use the servers and databases of the user who runs them.
for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
os.environ["DO_NOT_TRACK"] = "1"
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"

# Shells start background jobs with SIGINT ignored, and child processes inherit that, including the commands of tests.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline for examples: a busy machine may take ten times as long as an idle one.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def make_params() -> Callable[..., Params]:
    def make(**overrides: Any) -> Params:
        dotted = {k.replace("__", "."): v for k, v in overrides.items()}
        return config.load(None, dotted, benchmarks.names())

    return make


@pytest.fixture(scope="session")
def make_problem(make_params: Callable[..., Params]) -> Callable[..., Problem]:
    def make(name: str = "nas_bench_macro", seed: int = 0, **overrides: Any) -> Problem:
        return Problem.of(Source.of(benchmarks.get(name)), make_params(**overrides), seed)

    return make
