"""Search a shrunk space for its best architectures, ranked by labels, predictor and supernet.

python -m flows.search --benchmark nas_bench_macro --subspace data/shrunk/nas_bench_macro/seed-0 \\
    --supernet data/supernet/nas_bench_macro
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows import common
from lissnas.artifacts.stage_run import How, Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.config import ParamFiles, Params
from lissnas.shrinkers import description
from lissnas.spaces import Archs, Space
from lissnas.spaces.members import read_members
from lissnas.stages.one_shot import labels_of, oracle_of
from lissnas.stages.ranked import flat
from lissnas.stages.search import BEST, SearchOracle, search_stage


def prepared(
    benchmark: str,
    subspace: Path,
    supernet: Path | None,
    params: ParamFiles,
    table: Path | None,
    overrides: common.Overrides,
) -> tuple[Params, Space, Benchmark | None, Archs, SearchOracle]:
    """Return validated parameters, space, table, members, and the oracle."""
    checked, space, truth = description.load_searched(benchmark, params, overrides, table)
    members = read_members(subspace, space)
    labels_of(checked, subspace, space)  # raises if they are missing
    return checked, space, truth, members, oracle_of(checked, space, truth, members, subspace, supernet)


@flow(name="search", flow_run_name="search {benchmark} seed {seed}", persist_result=False)
def search(
    benchmark: options.SearchedOption,
    subspace: options.SubspaceOption,
    supernet: options.SupernetOption = None,
    seed: options.SeedOption = 0,
    out: common.OutOption = None,
    params: ParamFiles = None,
    table: options.TableOption = None,
    overrides: common.Overrides = None,
    force: options.ForceOption = False,
    group: str | None = None,
) -> tuple[Outcome, str]:
    """Search the space in `subspace` into `out`, log it to MLflow."""
    checked, space, truth, members, oracle = prepared(benchmark, subspace, supernet, params, table, overrides)
    common.limit_gpu_tasks()
    folder, log = out or common.DATA / "search" / benchmark, common.search_log(checked.search.generations)
    how: How = {"call": common.train_step, "on_generation": log, "force": force}
    how["record"] = record = common.recorder("search", seed, group or common.one_shot_group(benchmark, seed))
    labels = labels_of(checked, subspace, space)
    outcome = search_stage(checked, space, members, oracle, seed, folder, truth, labels, **how)
    common.table_artifact(
        f"found {benchmark} seed {seed}", [flat(row) for row in outcome.json(BEST)], f"The best networks of {benchmark}"
    )
    return outcome, common.log_to_mlflow(record, outcome)


if __name__ == "__main__":
    common.main(
        common.command_of(search, prepared, lambda outcome: render.show_search(outcome, None), options.SearchSettings)
    )
