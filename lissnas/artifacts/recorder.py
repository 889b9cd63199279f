"""What a stage records while it runs: the protocol, and an implementation that records nothing.

A recorder neither delays nor fails the work, and no result depends on it. `lissnas.tracking` has one for MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Recorder(Protocol):
    """Receives the records of a run: of a stage, or of a part of it, such as one training."""

    active: bool
    """Whether anything is recorded; values that cost time to compute are left out otherwise."""

    def start(
        self,
        out: Path,
        parameters: Mapping[str, Any],
        restart: bool = False,
        earlier: tuple[float, float] | None = None,
    ) -> bool:
        """Start the run of a stage, or continue that of an interrupted command; return whether it is recorded.

        With `restart` nothing is continued. `earlier` is the start and end of a result that exists already, in seconds
        since 1970.
        """

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Record the numbers among values, each name and step once; without a step, they are results."""

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Record constants."""

    def tags(self, values: Mapping[str, Any]) -> None:
        """Record texts to search and group runs by."""

    def artifact(self, file: Path, folder: str = "", shared: bool = False) -> None:
        """Record a file of the result, in a folder of the run; `shared`: with the parent run too."""

    def dataset(self, about: Mapping[str, Any]) -> None:
        """Record an input or output with `name`, `context`, `digest`, `source`, and `schema` (types by column)."""

    def model(self, about: Mapping[str, Any]) -> None:
        """Record a model of the result (`lissnas.tracking.mlflow.log_model`)."""

    def child(self, name: str, about: Mapping[str, Any], **tags: str) -> Recorder:
        """Start a run for a part, with parameters `about`, or return the one of that name."""

    def side_by_side(self, title: str, children: Sequence[str]) -> None:
        """Record a link that compares child runs, given by name."""

    def finish(self, error: BaseException | None = None) -> None:
        """End the run: finished, failed by an exception, or killed by an interruption."""


class NoRecorder:
    """Records nothing."""

    active = False

    def start(self, *about: Any, **more: Any) -> bool:
        """Return False: nothing is recorded."""
        return False

    def child(self, name: str, about: Mapping[str, Any], **tags: str) -> Recorder:
        """Return this recorder."""
        return self

    def _ignore(self, *values: Any, **more: Any) -> None:
        """Discard a record."""

    metrics = parameters = tags = artifact = dataset = model = side_by_side = finish = _ignore


NO_RECORDER = NoRecorder()
