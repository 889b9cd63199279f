"""Search a shrunk space for its best networks, as a supernet, the predictor or the table judges them.

python -m flows.search --benchmark nas_bench_macro --subspace data/shrunk/nas_bench_macro/seed-0 \\
    --supernet data/supernet/nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from prefect import flow, get_run_logger

from flows.common import DATA, limit_gpu_tasks, log_to_mlflow, main, one_shot_group, table_artifact, train_step
from lissnas.artifacts.stage_run import Outcome
from lissnas.cli import render
from lissnas.cli.options import (
    ForceOption,
    SearchedOption,
    SearchSettings,
    SeedOption,
    SubspaceOption,
    SupernetOption,
    TableOption,
    with_options,
)
from lissnas.config import ParamFiles
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.spaces.members import read_members
from lissnas.stages.one_shot import judge_of
from lissnas.stages.search import TOP, search_stage


@flow(name="search", flow_run_name="search {benchmark} seed {seed}", persist_result=False)
def search(
    benchmark: str,
    subspace: Path,
    supernet: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: dict[str, Any] | None = None,
    force: bool = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Search the space in `subspace` into `out`, log it to MLflow."""
    checked, space, truth = description.load_searched(benchmark, params, overrides or {}, table)
    logger = get_run_logger()
    limit_gpu_tasks()
    members = read_members(subspace, space)
    oracle, digest = judge_of(checked, space, truth, members, subspace, supernet)
    outcome = search_stage(
        checked,
        space,
        members,
        oracle,
        digest,
        seed,
        out or DATA / "search" / benchmark,
        truth,
        train_step,
        lambda history: logger.info(render.search_line(history)),
        force,
    )
    table_artifact(f"found {benchmark} seed {seed}", outcome.json(TOP), f"The best networks of {benchmark}")
    return outcome, log_to_mlflow("search", outcome, seed, group or one_shot_group(benchmark, seed))


@with_options
def command(
    benchmark: SearchedOption,
    subspace: SubspaceOption,
    settings: SearchSettings,
    supernet: SupernetOption = None,
    seed: SeedOption = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for the result; else data/search/...")] = None,
    table: TableOption = None,
    force: ForceOption = False,
) -> None:
    """Search a shrunk space in a Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    checked, space, truth = description.load_searched(benchmark, params, overrides, table)
    judge_of(checked, space, truth, read_members(subspace, space), subspace, supernet)
    outcome, place = search(benchmark, subspace, supernet, seed, out, params, table, overrides, force)
    render.show_search(outcome, None)
    process.out.print(place, soft_wrap=True)


if __name__ == "__main__":
    main(command)
