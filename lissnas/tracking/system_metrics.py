"""How busy the machine is while a step runs, by MLflow's own monitors, for its page of system metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

EVERY = 5.0
"""Seconds between two samples."""


@dataclass(frozen=True)
class Sample:
    """One reading: MLflow's name of the metric, its value, and when, in milliseconds since 1970."""

    name: str
    value: float
    at: int


@contextmanager
def sampled(into: list[Sample], every: float = EVERY) -> Iterator[None]:
    """Append samples of processor, memory and (where NVML finds one) GPU until the block ends."""
    read, ended = _reader(), Event()

    def sample() -> None:
        while True:
            into.extend(read())
            if ended.wait(every):
                return

    thread = Thread(target=sample, name="system metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _reader() -> Callable[[], list[Sample]]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors: list[Any] = [CPUMonitor()]
    with suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
        monitors.append(GPUMonitor())

    def read() -> list[Sample]:
        now, found = int(time.time() * 1000), []
        for monitor in monitors:
            monitor.collect_metrics()
            found += [Sample(f"system/{k}", float(v), now) for k, v in monitor.aggregate_metrics().items()]
            monitor.clear_metrics()
        return found

    return read
