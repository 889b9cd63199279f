"""Write a benchmark's table as a versioned data set: load, key, write.

python -m flows.prepare --benchmark nasbench101
"""

from __future__ import annotations

from prefect import flow

from flows import common
from lissnas import benchmarks
from lissnas.artifacts.stage_run import Outcome
from lissnas.benchmarks import Benchmark
from lissnas.cli import options, render
from lissnas.shrinkers import description
from lissnas.stages.prepare import data_stage


def load(benchmark: str) -> Benchmark:
    """Read the packaged table and verify its checksum."""
    return benchmarks.get(benchmark)


@flow(name="prepare", flow_run_name="prepare {benchmark}", persist_result=False)
def prepare(
    benchmark: options.BenchmarkOption, out: common.OutOption = None, force: options.ForceOption = False
) -> Outcome:
    """Write the table of `benchmark` to `out`."""
    source = common.run_step(load, benchmark)
    return data_stage(source, out or common.DATA / "prepared" / benchmark, force=force, call=common.run_step)


def command(
    benchmark: options.BenchmarkOption, out: common.OutOption = None, force: options.ForceOption = False
) -> None:
    """Write a benchmark's table in a Prefect flow run."""
    description.load(benchmark, None, {}, None)
    render.show_data(prepare(benchmark, out, force))


if __name__ == "__main__":
    common.main(command)
