"""Shared code of the flows: command line, steps as tasks, progress, artifacts and logging to MLflow."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, get_origin

import httpx
import typer
from prefect import Flow, Task, get_client, get_run_logger, task
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ObjectNotFound
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_DATABASE_CONNECTION_URL,
    PREFECT_UI_URL,
    temporary_settings,
)
from rich.text import Text

from flows import pools
from flows.metrics import write_metrics
from infra.settings import unreachable
from lissnas import tracking
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import Settings, SourceOptions, out_option, with_options
from lissnas.core import process
from lissnas.core.errors import LissnasError, first_line
from lissnas.core.redaction import redacted
from lissnas.shrinkers.description import Description

if TYPE_CHECKING:
    from lissnas.nets.training import Progress
    from lissnas.oracles.reuse import Reuse
    from lissnas.searchers import History

GPU = "gpu"
"""Tag of tasks that run on a GPU."""
DATA = Path("data")
"""Folder of the pipeline's artifacts; dvc.yaml names the same folders."""
PROGRESS_LINES = 4
"""Lines logged for a training or a search, evenly spaced over its steps; more if it is slow."""
MAX_QUIET_SECONDS = 60.0
"""Seconds after which a slow training or search logs another line."""

NOT_LOGGED = "MLflow: not logged; `lissnas sync` logs it when MLflow is back"

OutOption = Annotated[Path | None, out_option("Folder for the result; default: one in data/.")]
Overrides: TypeAlias = dict[str, Any] | None
"""Parameter values by dotted path in params.yaml."""


def as_task(step: Callable[..., Any]) -> Task[..., Any]:
    """Return the step as a task of the same name, without result caching in Prefect: DVC caches the results."""
    doc = (step.__doc__ or "").partition("\n")[0]
    named: Task[..., Any] = task(name=step.__name__, description=doc, cache_policy=NO_CACHE, persist_result=False)(step)
    return named


def run_step(step: Callable[..., Any], *args: Any, name: str | None = None, tags: Sequence[str] = ()) -> Any:
    """Run a step as a task; `name` is the name of the task run."""
    return as_task(step).with_options(task_run_name=name, tags=list(tags))(*args)


def train_step(step: Callable[..., Any], *args: Any, name: str | None = None) -> Any:
    """Run a step that trains or evaluates networks as a task with the tag `gpu`."""
    return run_step(step, *args, name=name, tags=[GPU])


def limit_gpu_tasks() -> None:
    """Limit concurrent tasks with the tag `gpu` to the number of GPUs, or to 1 without a GPU; keep an existing limit.

    Without PREFECT_API_URL no limit is set: Prefect's embedded server never releases the slot of a killed run, so the
    next run would wait forever.
    """
    import torch

    pools.warn_without_gpu()
    with get_client(sync_client=True) as client:
        if PREFECT_API_URL.value() is None:
            with suppress(ObjectNotFound):
                client.delete_concurrency_limit_by_tag(GPU)
            return
        try:
            client.read_concurrency_limit_by_tag(GPU)
        except ObjectNotFound:
            client.create_concurrency_limit(GPU, max(1, torch.cuda.device_count()))


# -- progress --------------------------------------------------------------------------------------
def log_line(line: str) -> None:
    """Log a line to the run, and print it to stderr unless Prefect prints the run's log there."""
    logger, line = get_run_logger(), redacted(line)
    logger.info(line)
    consoles = [h for h in logging.getLogger().handlers if isinstance(h, PrefectConsoleHandler)]
    if not (logger.isEnabledFor(logging.INFO) and any(h.level <= logging.INFO for h in consoles)):
        process.err.print(Text(line), soft_wrap=True)


def log_reuse(reuse: Reuse) -> None:
    """Log how many labels came from earlier runs, if any."""
    if text := reuse.note():
        log_line(f"Note: {text}.")


@dataclass
class LineThrottle:
    """Select the steps of a long job that are logged: PROGRESS_LINES of them, and one each MAX_QUIET_SECONDS."""

    shown: int = -1
    last: float = 0.0

    def due(self, step: int, steps: int) -> bool:
        """Return whether to log this step."""
        part, now = PROGRESS_LINES * step // max(1, steps), time.monotonic()
        if part == self.shown and now - self.last < MAX_QUIET_SECONDS:
            return False
        self.shown, self.last = part, now
        return True


def training_log() -> Callable[[str, Progress], None]:
    """Return a callback that logs the progress of a training and shows it on the flow run's page."""
    throttles, bars = defaultdict[str, LineThrottle](LineThrottle), dict[str, Any]()

    def on_training(what: str, progress: Progress) -> None:
        if throttles[what].due(progress.step, progress.steps):
            log_line(render.training_line(what, progress))
        share = 100 * progress.step / progress.steps
        if what not in bars:
            bars[what] = on_page(create_progress_artifact, share, key=key_of(f"training {what}"), description=what)
        elif bars[what] is not None:
            on_page(update_progress_artifact, bars[what], progress=share)

    return on_training


def one_shot_group(benchmark: str, seed: int) -> str:
    """Return the name of the parent MLflow run of a benchmark's supernet, search and retraining."""
    return f"one-shot {benchmark} seed {seed}"


def folder_of(stage: str, name: str) -> Path:
    """Return the default output folder of a stage for a benchmark, or for a space given by name or file."""
    return DATA / stage / (Path(name).stem if name.endswith((".yaml", ".yml")) else name)


def key_of(name: str) -> str:
    """Return a name in the form of an artifact key: lower case, words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def search_log(generations: int) -> Callable[[History], None]:
    """Return a callback that logs the progress of a search with this number of generations."""
    throttle = LineThrottle()

    def on_generation(history: History) -> None:
        if throttle.due(int(history.generation[-1]) + 1, generations):
            log_line(render.search_line(history))

    return on_generation


# -- records ---------------------------------------------------------------------------------------
def table_artifact(name: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show rows as a table on the flow run's page, floats rounded to 4 digits."""
    shown = [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    on_page(create_table_artifact, key=key_of(name), table=shown, description=description)


def on_page(create: Callable[..., Any], *args: Any, **about: Any) -> Any:
    """Put an artifact on the flow run's page and return its id; if the server is unreachable, warn and return None."""
    try:
        return create(*args, **about)
    except httpx.HTTPError as error:
        get_run_logger().warning("not on the run's page: %s (%s)", about.get("key", args), type(error).__name__)
        return None


def link_to_mlflow(stage: str, logged: tracking.Logged, outcome: Outcome) -> None:
    """Add links to the stage's MLflow run and its pictures to the flow run's page."""
    on_page(create_link_artifact, str(logged), f"{stage} in MLflow", key="mlflow", description="This run in MLflow")
    for picture in sorted(outcome.folder.glob("*.png")):
        on_page(
            create_image_artifact,
            f"{logged.uri.rstrip('/')}/get-artifact?path=pictures/{picture.name}&run_uuid={logged.run_id}",
            key=key_of(f"{stage} {picture.stem}"),
            description=f"{picture.stem} of {outcome.folder}",
        )


def recorder(stage: str, seed: int | None = None, group: str | None = None, is_group: bool = False) -> tracking.Run:
    """Return the recorder of a stage for MLflow, which links to this flow run."""
    links = {"Prefect": flow_run.ui_url} if PREFECT_UI_URL.value() else {}
    return tracking.Run(stage, seed, group, links, is_group)


@task(name="log_to_mlflow", cache_policy=NO_CACHE, persist_result=False)
def log_to_mlflow(record: tracking.Run, outcome: Outcome) -> str:
    """Wait until MLflow has the records of a stage; if it does not answer, warn and leave them to `lissnas sync`."""
    gc.collect()  # figures are reference cycles: 15 runs in one process would hold theirs (2 MB each) in memory
    write_metrics(record.stage, outcome, record.seed)
    if (logged := record.place()) is None:
        get_run_logger().warning("not logged to MLflow (%s); the result in %s is whole", record.error, outcome.folder)
        return NOT_LOGGED
    if logged.uri.startswith("http"):
        link_to_mlflow(record.stage, logged, outcome)
    place = f"MLflow: {logged}"
    get_run_logger().info(place)
    if logged.registered:
        get_run_logger().info(logged.registered)
    return place


# -- command line ----------------------------------------------------------------------------------
def command_of(
    flow: Flow[..., tuple[Outcome, str]],
    prepared: Callable[..., Any],
    show: Callable[[Outcome], None],
    settings: type[Settings] = Settings,
    joins: bool = False,
) -> Callable[..., None]:
    """Return the command line of a stage's flow.

    Its options are the annotated parameters of the flow, the fields of a `Description`, and `settings`, which become
    the flow's `params` and `overrides`. `prepared` receives the parameters that it names and raises for invalid values
    before Prefect starts. If `joins`, `prepared` returns the stage, and the non-leading processes of `torchrun` call
    it to take part in the leader's trainings.
    """
    of_flow = inspect.signature(flow.fn, eval_str=True).parameters.values()
    described = {p.name for p in of_flow if p.annotation is Description}

    def command(settings: Settings, **given: Any) -> None:
        given |= {name: Description(**vars(given[name])) for name in described}
        given |= {"params": settings.params, "overrides": settings.overrides()}
        stage = prepared(**{name: given[name] for name in inspect.signature(prepared).parameters if name in given})
        with _process_group() if joins else nullcontext(True) as leads:
            if not leads:
                stage()
                return
            outcome, place = flow(**given)
        if "DVC_STAGE" not in os.environ:  # in `dvc repro`, a stage prints one line instead of a summary
            show(outcome)
        process.say(place)

    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=kind) for p in of_flow if get_origin(p.annotation) is Annotated]
    parameters.append(inspect.Parameter("settings", kind, annotation=settings))
    parameters += [inspect.Parameter(name, kind, annotation=SourceOptions) for name in described]
    command.__doc__ = f"{(flow.fn.__doc__ or '').partition('.')[0].replace('`', '')}, in a Prefect flow run."
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options(command)


@contextmanager
def _process_group() -> Iterator[bool]:
    """Join the process group of `torchrun`, if there is one; yield whether this process leads it."""
    from lissnas.nets import parallel  # torch takes seconds to load

    with parallel.process_group():
        yield parallel.leads()


def main(command: Callable[..., None]) -> None:
    """Run a flow's command line with the error handling of `lissnas`; record locally if its server is unreachable."""
    url = PREFECT_API_URL.value()
    reason = unreachable(url) if url else ""
    if reason:
        place = f"this run is recorded in {PREFECT_HOME.value()} instead"
        process.err.print(Text(f"PREFECT_API_URL={redacted(url)}{reason}: {place}"), soft_wrap=True)
    with temporary_settings({PREFECT_API_URL: None} if reason else {}):
        process.run(partial(_run, command))


def _run(command: Callable[..., None]) -> None:
    """Run a command; raise LissnasError if Prefect's embedded server does not start."""
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(command)
    try:
        app()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        address = redacted(PREFECT_API_URL.value() or "of this process")
        raise LissnasError(f"the Prefect server {address} failed: {first_line(error)}") from None
    except RuntimeError as error:
        if "ephemeral Prefect API server" not in str(error):
            raise
        database = PREFECT_SERVER_DATABASE_CONNECTION_URL.value()
        raise LissnasError(
            "the server that Prefect starts for a run without one did not answer in time. Fix or unset "
            f"PREFECT_SERVER_DATABASE_CONNECTION_URL={redacted(database)}, or name a server in PREFECT_API_URL "
            "(`make up` starts one). On a slow machine, raise PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS."
        ) from None
