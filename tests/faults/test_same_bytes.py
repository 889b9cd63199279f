"""Equal parameters and seeds give equal bytes, for any number of threads, hash seed and start method."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lissnas import artifacts, benchmarks, config
from lissnas.shrinkers.problem import Source
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.predictor import predictor_stage
from lissnas.stages.shrink import shrink_stage
from tests.small import LOCALITY

BENCHMARK = "transnas/class_scene"
LONG = pytest.mark.faults
SMALL: dict[str, Any] = {
    "shrink.target_size": 200,
    "shrink.labels": 100,
    **LOCALITY,
    "pipeline.seeds": [0],
}


def make(folder: Path, threads: int) -> None:
    """Run the stages whose results must not depend on threads."""
    params, benchmark = config.load(None, SMALL, benchmarks.names()), benchmarks.get(BENCHMARK)
    for variant in ("elite", "paper"):
        of_variant = config.load(None, {**SMALL, "shrink.variant": variant}, benchmarks.names())
        shrink_stage(of_variant, Source.of(benchmark), 0, folder / variant, threads=threads)
    compare_stage(
        params, benchmark, ("lissnas", "abs", "dds", "greedynas_v2"), [0], folder / "compare", threads=threads
    )
    locality_stage(params, benchmark, folder / "locality", threads=threads)
    predictor_stage(params, benchmark, folder / "predictor", threads=threads)


def manifests(folder: Path) -> dict[str, dict[str, str]]:
    return {path.name: artifacts.verify(path) for path in sorted(folder.iterdir()) if path.is_dir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("expected")
    make(folder, 1)
    return manifests(folder)


def run_in_process(*words: str, **environment: str) -> None:
    """Run this file in a new process: a pytest worker has threads of earlier tests."""
    command = [sys.executable, "-m", "tests.faults.test_same_bytes", *words]
    given = {**os.environ, **environment}
    done = subprocess.run(
        command, env=given, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("hash_seed", "threads"), [("0", 2), pytest.param("1", 1, marks=LONG), pytest.param("4294967295", 2, marks=LONG)]
)
def test_bytes_do_not_depend_on_hash_seed_and_threads(
    expected: dict[str, dict[str, str]], hash_seed: str, threads: int, tmp_path: Path
) -> None:
    run_in_process(str(tmp_path), str(threads), PYTHONHASHSEED=hash_seed, OMP_NUM_THREADS=str(threads))
    assert manifests(tmp_path) == expected


@pytest.mark.faults
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_bytes_do_not_depend_on_start_method(expected: dict[str, dict[str, str]], method: str, tmp_path: Path) -> None:
    run_in_process(str(tmp_path), "1", method)
    assert manifests(tmp_path / "parent") == expected
    assert manifests(tmp_path / "child") == expected


def main(folder: Path, threads: int, method: str = "") -> None:
    """Run the stages; with a start method also in a child process."""
    if not method:
        make(folder, threads)
        return
    make(folder / "parent", threads)
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=make, args=(folder / "child", threads))
    process.start()
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
