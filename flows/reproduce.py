"""Reproduce the pipeline of dvc.yaml: one task for each stage, in DVC's order, then push the outputs to the remote.

python -m flows.reproduce                 (all stages)
python -m flows.reproduce --target report --no-push
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows import pools
from flows.common import log_line, main, table_artifact
from lissnas import artifacts
from lissnas.core import process as process_module
from lissnas.core.errors import LissnasError, UserError
from lissnas.core.redaction import redacted

UNCHANGED = "didn't change, skipping"
FROM_CACHE = "is cached - skipping run"
SHOWN = 30
"""Number of last lines of a stage's output in the error message."""
DVC = (sys.executable, "-m", "dvc")
PARAMS = Path("params.yaml")


def stages_in_order(targets: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the stages in topological order, each with the stages that it depends on.

    The graph is read from DVC. Raises UserError if a target is not a stage.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph = repo.index.graph
            wanted = set(graph)
            if targets:
                requested = [stage for target in targets for stage in repo.stage.collect(target)]
                wanted = set(requested).union(*(nx.descendants(graph, stage) for stage in requested))
            ordered = [s for s in nx.dfs_postorder_nodes(graph.subgraph(wanted)) if s.cmd]
            return {s.addressing: sorted(d.addressing for d in graph.successors(s) if d.cmd) for s in ordered}
    except DvcException as error:
        raise UserError(f"dvc.yaml: {error}") from None


@task(name="dvc stage", task_run_name="{name}", cache_policy=NO_CACHE, persist_result=False)
def run_stage(name: str, params_digest: str) -> State[str]:
    """Run one stage unless DVC finds it unchanged; raise LissnasError with the end of its output if it fails."""
    _check_unchanged(params_digest)
    if pools.goes_to_gpus(name.partition("@")[0]):
        pools.run_on_pool("reproduce_stage", {"name": name, "params_digest": params_digest})
        return Completed(message="DVC ran it on the pool gpu", data=name)
    return reproduced(name)


def reproduced(name: str) -> State[str]:
    """Run one stage with DVC from this process; the returned state is Completed or Cached."""
    output = _dvc("--wait-for-lock", "repro", "--single-item", name)
    if UNCHANGED in output or FROM_CACHE in output:
        return Completed(name="Cached", message="DVC found it unchanged", data=name)
    return Completed(message="DVC ran it", data=name)


@task(name="dvc push", cache_policy=NO_CACHE, persist_result=False, retries=3, retry_delay_seconds=[10, 60, 300])
def push() -> str:
    """Push the outputs to the default remote, with retries for network failures."""
    return _dvc("--wait-for-lock", "push").strip()


@flow(name="reproduce_stage", flow_run_name="{name}", persist_result=False)
def reproduce_stage(name: str, params_digest: str) -> State[str]:
    """Run one stage of dvc.yaml; `reproduce` submits training stages as runs of this flow to the GPU pool."""
    _check_unchanged(params_digest)  # params.yaml may have changed while the run waited for a worker
    return reproduced(name)


@flow(
    name="reproduce",
    persist_result=False,
    task_runner=ThreadPoolTaskRunner(max_workers=max(1, (os.cpu_count() or 1) // 2)),  # type: ignore[arg-type]
)
def reproduce(targets: list[str] | None = None, to_remote: bool = True) -> list[dict[str, str]]:
    """Run the stages that DVC finds changed, independent ones concurrently, and push their outputs.

    If a stage fails, its dependants are not started; all other stages are. The next run resumes there.
    """
    digest, graph = _digest(), stages_in_order(targets or ())
    log_line(f"{len(graph)} stages, in the order of DVC")
    futures: dict[str, PrefectFuture[Any]] = {}
    for name, needs in graph.items():
        futures[name] = run_stage.submit(name, digest, wait_for=[futures[n] for n in needs])  # type: ignore[call-overload]
    rows = []
    for name, future in futures.items():
        future.wait()
        ended = future.state.name or future.state.type.value
        rows.append({"stage": name, "state": ended, "message": (future.state.message or "")[:200]})
        log_line(f"{name}: {ended}")
    table_artifact("stages", rows, "State of each stage")
    failed = [r["stage"] for r in rows if r["state"] in ("Failed", "Crashed")]
    if failed:
        left = sum(r["state"] == "NotReady" for r in rows)
        raise LissnasError(
            f"{len(failed)} of {len(rows)} stages failed: {', '.join(failed)}; {left} that depend on them did not "
            "start. Their logs show the cause; the next run resumes there"
        )
    if to_remote and _has_remote():
        push()
    return rows


def _has_remote() -> bool:
    """Return whether DVC has a default remote."""
    from dvc.repo import Repo

    with Repo() as repo:
        return bool(repo.config["core"].get("remote"))


def _dvc(*arguments: str) -> str:
    """Run DVC, log its lines to the run, and return its output; raise LissnasError with the end of it on failure."""
    lines: list[str] = []
    with subprocess.Popen(
        [*DVC, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            for line in map(redacted, process.stdout or ()):
                lines.append(line)
                if line.strip():
                    log_line(line.rstrip())
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        end = "".join(lines[-SHOWN:]).strip()
        raise LissnasError(f"dvc {' '.join(arguments)} ended with code {process.returncode}:\n{end}")
    return "".join(lines)


def _digest() -> str:
    return artifacts.sha256(PARAMS.read_bytes())


def _check_unchanged(params_digest: str) -> None:
    """Raise UserError if params.yaml changed since the run started."""
    if _digest() != params_digest:
        raise UserError(f"{PARAMS} changed during this run. Start another run, which keeps the finished stages")


TargetOption = Annotated[list[str] | None, typer.Option(help="Stage to run, with its dependencies; default: all.")]
PushOption = Annotated[bool, typer.Option(help="Push the outputs to the default remote, if there is one.")]


def command(target: TargetOption = None, push: PushOption = True) -> None:
    """Reproduce the pipeline in a Prefect flow run, one task for each stage."""
    stages_in_order(target or ())  # raise for an unknown target before Prefect starts
    for row in reproduce(target, push):
        process_module.out.print(f"{row['stage']:<32} {row['state']}")


if __name__ == "__main__":
    main(command)
