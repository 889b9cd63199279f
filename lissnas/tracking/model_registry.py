"""Register models in MLflow's model registry, and promote the best version to champion.

Tags of a version hold its metric and a digest of the held-out set. The alias `champion` moves to a new version
only if it is better on the same set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lissnas import artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
METRIC = "metric"
VALUE = "value"
HELD_OUT = "held_out_sha256"
RESULT = "manifest_sha256"
"""Tags of a version."""


@dataclass(frozen=True)
class Model:
    """A logged model: name in the registry, id in MLflow, metric, and description of the name."""

    name: str
    id: str
    metric: str
    value: float
    """Value of the metric; higher is better."""
    held_out: Any
    """Description of the held-out set; digests of it are compared."""
    about: str


def register(client: MlflowClient, model: Model, run: str, result: str) -> str:
    """Register a logged model once as the next version of its name, promote it if it is better; return a message.

    `result` is the digest of the manifest of the model's result.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model.name)
    except MlflowException:
        client.create_registered_model(model.name, description=model.about)
    for known in client.search_model_versions(f"name = '{model.name}'"):
        if known.tags.get(RESULT) == result:
            return f"{model.name} version {known.version}: registered already"
    tags = {METRIC: model.metric, VALUE: repr(model.value), HELD_OUT: artifacts.digest(model.held_out), RESULT: result}
    # A server requires the id of a logged model in addition to its address.
    made = client.create_model_version(model.name, f"models:/{model.id}", run_id=run, tags=tags, model_id=model.id)
    return f"{model.name} version {made.version}: {promote(client, model.name, str(made.version))}"


def promote(client: MlflowClient, name: str, version: str) -> str:
    """Make a version the champion if there is none or if it is better on the same held-out set; return a message."""
    from mlflow.exceptions import MlflowException

    new = client.get_model_version(name, version).tags
    try:
        champion = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        client.set_registered_model_alias(name, CHAMPION, version)
        return "the first champion"
    old = champion.tags
    if champion.version == version:
        return "already the champion"
    if (old.get(METRIC), old.get(HELD_OUT)) != (new[METRIC], new[HELD_OUT]):
        return f"version {champion.version} stays champion: it was evaluated on another held-out set"
    before, now = float(old[VALUE]), float(new[VALUE])
    if now <= before:
        return f"version {champion.version} stays champion: {new[METRIC]} {before:.4g}, new version {now:.4g}"
    client.set_registered_model_alias(name, CHAMPION, version)
    return f"champion in place of version {champion.version}: {new[METRIC]} {before:.4g} to {now:.4g}"
