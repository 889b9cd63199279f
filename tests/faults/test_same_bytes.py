"""The same parameters and seed: the same bytes, whatever the threads, the hash seed or the start method."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from lissnas import benchmarks, config, store
from lissnas.sources import Source
from lissnas.stages.compare import compare_stage
from lissnas.stages.locality import locality_stage
from lissnas.stages.predictor import predictor_stage
from lissnas.stages.shrink import shrink_stage
from tests.small import LOCALITY

BENCHMARK = "transnas/class_scene"
SAID = "stopped.txt"
SMALL: dict[str, Any] = {
    "shrink.target_size": 200,
    "shrink.labels": 100,
    **LOCALITY,
    "pipeline.seeds": [0],
}


def make(folder: Path, threads: int) -> None:
    """Run the stages whose results may not depend on threads."""
    params, benchmark = config.load(None, SMALL, benchmarks.names()), benchmarks.get(BENCHMARK)
    for variant in ("elite", "paper"):
        own = config.load(None, {**SMALL, "shrink.variant": variant}, benchmarks.names())
        shrink_stage(own, Source.of(benchmark), 0, folder / variant, threads=threads)
    compare_stage(
        params, benchmark, ("lissnas", "abs", "dds", "greedynas_v2"), [0], folder / "compare", threads=threads
    )
    locality_stage(params, benchmark, folder / "locality", threads=threads)
    predictor_stage(params, benchmark, folder / "predictor", threads=threads)


def make_and_tell(folder: Path, threads: int) -> None:
    """The same in another process, which leaves what stopped it in a file: pytest shows nothing of a fork's."""
    try:
        make(folder, threads)
    except BaseException:
        (folder / SAID).write_text(traceback.format_exc())
        raise


def manifests(folder: Path) -> dict[str, dict[str, str]]:
    return {path.name: store.verify(path) for path in sorted(folder.iterdir()) if path.is_dir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    folder = tmp_path_factory.mktemp("expected")
    make(folder, 1)
    return manifests(folder)


@pytest.mark.parametrize(("hash_seed", "threads"), [("0", 2), ("1", 1), ("4294967295", 2)])
def test_hash_seeds_and_threads(
    expected: dict[str, dict[str, str]], hash_seed: str, threads: int, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": str(threads)}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.faults.test_same_bytes", str(tmp_path), str(threads)]
    subprocess.run(command, env=environment, cwd=root, check=True, timeout=300)
    assert manifests(tmp_path) == expected


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_start_methods(expected: dict[str, dict[str, str]], method: str, tmp_path: Path) -> None:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=make_and_tell, args=(tmp_path, 1))
    process.start()
    process.join(300)
    assert process.exitcode == 0, (tmp_path / SAID).read_text() if (tmp_path / SAID).exists() else "no word"
    assert manifests(tmp_path) == expected


if __name__ == "__main__":
    make(Path(sys.argv[1]), int(sys.argv[2]))
