"""The public Python API of `import lissnas`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lissnas
from lissnas import artifacts
from lissnas.core.errors import ConfigError, DamagedFile, UserError
from lissnas.spaces import Archs, FloatArray

EXAMPLE = Path(lissnas.__file__).parent / "example"
SMALL = {"predictor.trees": 20}


@pytest.fixture(scope="module")
def result() -> lissnas.ShrinkResult:
    table = lissnas.benchmark("nas_bench_macro")
    return lissnas.shrink(table.space, oracle=table, target_size=60, label_budget=80, seed=3, settings=SMALL, threads=1)


def test_benchmark_is_shrunk(result: lissnas.ShrinkResult) -> None:
    assert result.space.name == "nas_bench_macro"
    assert result.subspace.size() == result.metrics["size"] == 60
    assert result.metrics["labels"] == 80
    assert result.metrics["mean_true"] > result.metrics["full_mean_true"]
    assert [row["iteration"] for row in result.iterations] == list(range(len(result.iterations)))
    assert result.predictor.score(result.subspace.members).shape == (60,)


def test_members_are_returned_as_a_data_frame(result: lissnas.ShrinkResult) -> None:
    frame = result.to_pandas()
    assert list(frame.columns) == ["arch", "predicted", "distance", "seed"]
    assert frame["arch"].tolist() == result.space.format(result.subspace.members)
    assert frame["predicted"].is_monotonic_decreasing or len(frame) == 60


def test_saved_result_is_loaded_unchanged(result: lissnas.ShrinkResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "shrunk")
    again = lissnas.load_result(folder)
    assert again.metrics == result.metrics
    assert list(again.iterations) == list(result.iterations)
    assert (again.subspace.members == result.subspace.members).all()
    assert (again.predictor.score(again.subspace.members) == result.predictor.score(result.subspace.members)).all()
    copy = again.save(tmp_path / "copy")
    assert artifacts.verify(copy) == artifacts.verify(folder)
    assert result.save(folder) == folder  # no file is written
    other = lissnas.shrink("nas_bench_macro", oracle=lissnas.benchmark("nas_bench_macro"), target_size=61, threads=1)
    with pytest.raises(UserError, match="target_size differ"):
        other.save(folder)


def test_folder_without_a_shrunk_space_is_refused(tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "r", {"x.json": b"1"})
    with pytest.raises(UserError, match="contains no shrunk space"):
        lissnas.load_result(tmp_path / "r")
    with pytest.raises(UserError, match="no run of lissnas was completed"):
        lissnas.load_result(tmp_path)


def test_damaged_result_is_refused(result: lissnas.ShrinkResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "shrunk")
    (folder / "iterations.parquet").write_bytes(b"")
    with pytest.raises(DamagedFile):
        lissnas.load_result(folder)


def test_custom_space_with_labels_of_a_file_or_a_data_frame(tmp_path: Path) -> None:
    space, labels = EXAMPLE / "space.yaml", EXAMPLE / "labels.csv"
    by_path = lissnas.shrink(space, labels, target_size=100, settings=SMALL, threads=1)
    by_frame = lissnas.shrink(
        lissnas.read_space(space), pd.read_csv(labels, dtype=str), target_size=100, settings=SMALL, threads=1
    )
    assert by_path.metrics == by_frame.metrics
    assert (by_path.subspace.members == by_frame.subspace.members).all()
    again = lissnas.load_result(by_path.save(tmp_path / "own"))  # the folder contains its declaration
    assert again.space.format(again.subspace.members) == by_path.space.format(by_path.subspace.members)
    assert (again.predictor.score(again.subspace.members) == by_path.predictor.score(by_path.subspace.members)).all()


def test_functions_of_names_and_of_rows_give_the_same_result() -> None:
    def of_name(name: str) -> float:
        return float("nan") if name.startswith("11") else float(sum(map(int, name)))

    def of_rows(archs: Archs) -> FloatArray:
        return np.where((archs[:, :2] == 1).all(axis=1), np.nan, archs.sum(axis=1).astype(np.float64))

    more = {"target_size": 60, "label_budget": 60, "settings": SMALL, "threads": 1}
    one = lissnas.shrink("nas_bench_macro", oracle=lissnas.by_name(of_name), **more)  # type: ignore[arg-type]
    two = lissnas.shrink("nas_bench_macro", oracle=lissnas.by_rows(of_rows), **more)  # type: ignore[arg-type]
    assert (one.subspace.members == two.subspace.members).all()
    assert one.metrics["labels"] < 60  # failed trainings give no label
    assert of_rows(one.subspace.members[:10])[np.isfinite(of_rows(one.subspace.members[:10]))].mean() > 11


def test_incompatible_arguments_are_refused() -> None:
    table = lissnas.benchmark("nas_bench_macro")
    with pytest.raises(UserError, match="by_name"):
        lissnas.shrink("nas_bench_macro", oracle=table.look_up)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"unknown keyword 'diversty'. Did you mean 'diversity'"):
        lissnas.shrink("nas_bench_macro", oracle=table, diversty=0.1)
    with pytest.raises(UserError, match="not of fairnas"):
        lissnas.shrink("fairnas", oracle=table)
    with pytest.raises(UserError, match="leave labels or oracle out"):
        lissnas.shrink("nas_bench_macro", EXAMPLE / "labels.csv", oracle=table)
    with pytest.raises(UserError, match=r"unknown space 'nas_bench_makro'"):
        lissnas.shrink("nas_bench_makro", oracle=table)
    with pytest.raises(ConfigError, match=r"labels.csv"):
        lissnas.shrink(EXAMPLE / "space.yaml", EXAMPLE / "labels.csv", metric="nothing")
    with pytest.raises(ConfigError, match="target_size"):
        lissnas.shrink("nas_bench_macro", oracle=table, target_size=-1)


def test_import_loads_no_submodule() -> None:
    code = (
        "import sys; before = set(sys.modules); import lissnas; new = set(sys.modules) - before\n"
        "import os; assert os.environ['OMP_WAIT_POLICY'] == 'PASSIVE'\n"
        "heavy = {m for m in new if m.partition('.')[0] not in {*sys.stdlib_module_names, 'lissnas'}}\n"
        "heavy |= {m for m in new if m.startswith('lissnas.')} - {'lissnas.version'}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    env = {"PATH": "", "PYTHONPATH": str(Path(lissnas.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_all_public_names_exist() -> None:
    for name in lissnas.__all__:
        assert getattr(lissnas, name) is not None
        assert name in dir(lissnas)
    with pytest.raises(AttributeError, match="no attribute 'shrnik'"):
        _ = lissnas.shrnik
