"""Run the whole method on one benchmark in one flow run: shrink, supernet, search, retrain.

python -m flows.nas --benchmark nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import Flow, flow

from flows import common, pools
from flows.retrain import retrain
from flows.search import search
from flows.shrink import log_iteration, run_as_task
from flows.supernet import supernet
from lissnas.artifacts.ownership import MANIFEST
from lissnas.artifacts.remote import check_out
from lissnas.artifacts.stage_run import How, Outcome, finished
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params, with_default_width
from lissnas.core import process
from lissnas.shrinkers import description
from lissnas.shrinkers.problem import Source
from lissnas.shrinkers.result import WRITES
from lissnas.stages.one_shot import check, check_places, check_settings, needs_supernet, trains
from lissnas.stages.shrink import shrink_stage
from lissnas.tracking import find


@flow(name="nas", flow_run_name="nas {benchmark} seed {seed}", persist_result=False)
def nas(
    benchmark: str,
    seed: int = 0,
    out: Path | None = None,
    params: ParamFiles = None,
    table: Path | None = None,
    overrides: common.Overrides = None,
    force: bool = False,
) -> tuple[dict[str, Outcome], list[str]]:
    """Shrink `benchmark`, search the shrunk space, retrain the best; log each stage to MLflow.

    Returns the outcome of each stage, and the MLflow location of each.
    """
    checked, source = prepared(benchmark, params, table, overrides)
    folder, group = out or common.DATA / "nas" / benchmark / f"seed-{seed}", f"nas {benchmark} seed {seed}"
    subspace, searched, supernet_in = folder / "shrunk", folder / "search", None
    check_out(subspace, WRITES)
    check_places(searched)
    parent, last = common.recorder("nas", seed, is_group=True), searched
    if checked.retrain.networks:
        last = searched / "best"
    if force or not (last / MANIFEST).exists():
        parent.start(folder, {"benchmark": benchmark, **checked.model_dump(mode="json")}, force)
        group = parent.group
    given = {"benchmark": benchmark, "seed": seed, "params": params, "overrides": overrides, "force": force}
    stages: dict[str, Outcome] = {}

    def trained(stage: Flow[..., Any], out: Path, **more: Any) -> None:
        pools.run_training(stage, {**given, **more, "out": out, "group": group})
        stages[stage.name] = finished(out)

    how: How = {"call": run_as_task, "on_iteration": log_iteration, "force": force}
    how["record"] = record = common.recorder("shrink", seed, group)
    try:
        stages["shrink"] = shrink_stage(checked, Source.of(source), seed, subspace, **how)
        if needs_supernet(checked):
            supernet_in = searched / "supernet"
            trained(supernet, supernet_in, subspace=subspace)
        trained(search, searched, subspace=subspace, supernet=supernet_in, table=table)
        if checked.retrain.networks:
            trained(retrain, searched / "best", found=searched, table=table)
    except BaseException as error:
        parent.finish(error)
        raise
    parent.finish()
    places = [common.log_to_mlflow(record, stages["shrink"])]
    if parent.is_started:
        parent.place()
    for name, outcome in stages.items():  # a training flow, perhaps on another machine, has logged its run
        if name != "shrink":
            places.append(f"MLflow: {found}" if (found := find(outcome.folder)) else common.NOT_LOGGED)
    return stages, places


def prepared(
    benchmark: str, params: ParamFiles, table: Path | None, overrides: common.Overrides
) -> tuple[Params, Benchmark]:
    """Return parameters and benchmark; raise UserError for untrainable settings before the shrink starts.

    By default half of the labels are spent on a search for the best network, which is what a full run is for.
    """
    checked, source = description.load(benchmark, params, overrides, table)
    if checked.shrink.goal is None:
        checked = checked.model_copy(update={"shrink": checked.shrink.model_copy(update={"goal": "both"})})
    of_benchmark = with_default_width(checked, benchmark)
    if trains(of_benchmark):
        (check_settings if pools.configured() else check)(of_benchmark, source.space)
    return checked, source


@options.with_options
def command(
    benchmark: options.BenchmarkOption,
    settings: options.SearchSettings,
    seed: options.SeedOption = 0,
    out: common.OutOption = None,
    table: options.TableOption = None,
    force: options.ForceOption = False,
) -> None:
    """Shrink, search and retrain in one Prefect flow run, logged to MLflow."""
    params, overrides = settings.params, settings.overrides()
    prepared(benchmark, params, table, overrides)
    process.err.print("shrink, supernet, search, retrain: starting Prefect (`make up` keeps a server running)")
    render.show_method(*nas(benchmark, seed, out, params, table, overrides, force))


if __name__ == "__main__":
    common.main(command)
