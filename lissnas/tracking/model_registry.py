"""Models under names of their own in MLflow's registry, and which of their versions is the champion.

A version carries what it was judged by: a number, and a digest of the held-out set that it comes from. The alias
`champion` moves to a new version only where that is better on the same set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lissnas import artifacts

if TYPE_CHECKING:
    from mlflow import MlflowClient

CHAMPION = "champion"
METRIC, VALUE, HELD_OUT, RESULT = "metric", "value", "held_out_sha256", "manifest_sha256"
"""Tags of a version."""


@dataclass(frozen=True)
class Model:
    """A logged model: the name it goes under, its id in MLflow, how good it is, and what the name stands for."""

    name: str
    id: str
    metric: str
    value: float
    """Of the metric, higher is better."""
    held_out: Any
    """What says which set the metric was measured on; its digest is compared."""
    about: str


def register(client: MlflowClient, model: Model, run: str, result: str) -> str:
    """Register a logged model as its name's next version, once, and promote it where it is better; say what was done.

    `result` is the digest of the manifest that the model came with.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(model.name)
    except MlflowException:
        client.create_registered_model(model.name, description=model.about)
    for known in client.search_model_versions(f"name = '{model.name}'"):
        if known.tags.get(RESULT) == result:
            return f"{model.name} has it as version {known.version}"
    tags = {METRIC: model.metric, VALUE: repr(model.value), HELD_OUT: artifacts.digest(model.held_out), RESULT: result}
    # A server takes a logged model only with its id beside its address.
    made = client.create_model_version(model.name, f"models:/{model.id}", run_id=run, tags=tags, model_id=model.id)
    return f"{model.name} version {made.version}: {promote(client, model.name, str(made.version))}"


def promote(client: MlflowClient, name: str, version: str) -> str:
    """Make a version the champion where there is none, or it is better than the champion on the same held-out set."""
    from mlflow.exceptions import MlflowException

    new = client.get_model_version(name, version).tags
    try:
        champion = client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException:
        client.set_registered_model_alias(name, CHAMPION, version)
        return "the first champion"
    old = champion.tags
    if champion.version == version:
        return "it is the champion"
    if (old.get(METRIC), old.get(HELD_OUT)) != (new[METRIC], new[HELD_OUT]):
        return f"version {champion.version} stays champion: it was judged on another held-out set"
    before, now = float(old[VALUE]), float(new[VALUE])
    if now <= before:
        return f"version {champion.version} stays champion: {new[METRIC]} {before:.4g}, of the new one {now:.4g}"
    client.set_registered_model_alias(name, CHAMPION, version)
    return f"champion in place of version {champion.version}: {new[METRIC]} {before:.4g} to {now:.4g}"
