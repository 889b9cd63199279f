"""What the flows share: steps run as tasks, tables become artifacts, results are logged to MLflow."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from prefect import get_client, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ObjectNotFound

from lissnas import console, options, tracking
from lissnas.gauges import Sample, sampled
from lissnas.stages.base import Outcome

if TYPE_CHECKING:
    from lissnas.nets.training import Progress

GPU = "gpu"
"""The tag of tasks that a GPU serves."""
STAGE_OF = {"train_supernet": "supernet", "evolutionary_search": "search", "retrain": "retrain"}
BUSY: dict[str, list[Sample]] = {}
"""How busy the machine was in the stages of this process that are not logged yet."""
DATA = Path("data")
"""Where the pipeline keeps its artifacts; dvc.yaml names the same folders."""


def as_task(step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step as a task of the same name; DVC caches results, so Prefect keeps none."""
    doc = (step.__doc__ or "").partition("\n")[0]
    decorate = task(name=step.__name__, description=doc, cache_policy=NO_CACHE, persist_result=False)
    named: Callable[..., Any] = decorate(step)
    return named


def run_step(step: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a step as a task, with options such as its run's name or tags."""
    return as_task(step).with_options(**options)(*args)  # type: ignore[attr-defined]


def run_named_step(name: str, step: Callable[..., Any], *args: Any, tags: Sequence[str] = ()) -> Any:
    """Run a step as a task run of that name, the same step under many."""
    return run_step(step, *args, task_run_name=name, tags=list(tags))


def train_step(step: Callable[..., Any], *args: Any) -> Any:
    """Run a step that trains or judges networks as a task that is tagged for the GPU; watch the machine."""
    with sampled(BUSY.setdefault(STAGE_OF[step.__name__], [])):
        return run_step(step, *args, tags=[GPU])


def limit_gpu_tasks() -> None:
    """Let as many tasks with the tag run at once as there are GPUs, one without; a limit that is set stays."""
    import torch

    with get_client(sync_client=True) as client:
        try:
            client.read_concurrency_limit_by_tag(GPU)
        except ObjectNotFound:
            client.create_concurrency_limit(GPU, max(1, torch.cuda.device_count()))


def training_log() -> Callable[[str, Progress], None]:
    """Return who tells the flow run's log how far a training is."""
    return console.training_lines(get_run_logger().info)


def one_shot_group(benchmark: str, seed: int) -> str:
    """Return the name of the MLflow run that gathers supernet, search and retraining of a benchmark."""
    return f"one-shot {benchmark} seed {seed}"


def given_source(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return, of a flow's own parameters, those that say what its source is (`options.load_source`)."""
    return {name: values[name] for name in options.SOURCE_OPTIONS}


def folder_of(stage: str, benchmark: str | None, space: str | None) -> Path:
    """Return where a stage leaves what it made of a benchmark, or of a space by its name or file."""
    return DATA / stage / (benchmark or Path(space or "").stem)


def table_artifact(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show rows on the flow run's page; floats with the digits that matter."""
    shown = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    key = re.sub(r"[^a-z0-9]+", "-", name.lower())
    create_table_artifact(key=key, table=shown, description=description)


@task(name="log_to_mlflow", cache_policy=NO_CACHE, persist_result=False)
def log_to_mlflow(stage: str, outcome: Outcome, seed: int | None = None, group: str | None = None) -> str:
    """Log the stage's folder; when MLflow can't be had, say so and keep the result."""
    try:
        place = f"MLflow: {tracking.log_stage(stage, outcome, seed, group, BUSY.pop(stage, ()))}"
    except Exception as error:
        text = tracking.redacted(str(error)).splitlines()[0][:200]
        get_run_logger().warning("not logged to MLflow (%s); the result in %s is whole", text, outcome.folder)
        return f"MLflow: not logged ({type(error).__name__}); run the flow again to log it"
    get_run_logger().info(place)
    return place


def main(command: Callable[..., None]) -> None:
    """Run a flow's command line with the same errors as the `lissnas` command."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(command)
    console.run(app)
