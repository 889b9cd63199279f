"""Small components: random streams, files, predictor, subspace, notation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lissnas
from lissnas import artifacts, benchmarks, spaces
from lissnas.benchmarks import tables
from lissnas.core.errors import DamagedFile, InvalidArchitecture, UnknownName, UserError
from lissnas.core.rng import stream
from lissnas.predictors.accuracy import Predictor, assess
from lissnas.spaces.subspace import Subspace

PACKAGE = Path(lissnas.__file__).parent


# -- streams ---------------------------------------------------------------------------------------
def test_streams_are_named_and_stable() -> None:
    assert stream(1, "a", 2).integers(1 << 60) == stream(1, "a", 2).integers(1 << 60)
    streams = [stream(1, "a"), stream(1, "b"), stream(2, "a"), stream(1, "a", 0)]
    draws = {int(s.integers(1 << 60)) for s in streams}
    assert len(draws) == 4
    assert stream(0, "golden").integers(1 << 30, size=3).tolist() == [598357909, 857320702, 277408773]


# -- files -----------------------------------------------------------------------------------------
def test_publish_then_verify(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    artifacts.publish(folder, {"x.json": b"1", "deep/y": b"2"})
    assert set(artifacts.verify(folder)) == {"x.json", "deep/y"}
    artifacts.publish(folder, {"x.json": b"3"})
    assert (folder / "x.json").read_bytes() == b"3"
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(b"0"), lambda p: p.unlink()])
def test_damaged_file_is_reported(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    artifacts.publish(tmp_path / "r", {"x.json": b"1"})
    damage(tmp_path / "r" / "x.json")
    with pytest.raises(DamagedFile, match=r"x\.json is damaged: expected sha256 6b86b2.*the command or the flow"):
        artifacts.verify(tmp_path / "r")
    artifacts.write(
        tmp_path / "r" / artifacts.RUN, artifacts.to_record({"command": ["lissnas", "shrink", "--out", "a b"]})
    )
    with pytest.raises(DamagedFile, match=r"Make it again: lissnas shrink --out 'a b' --force$"):
        artifacts.verify(tmp_path / "r")
    command = ["python", "-m", "flows.label", "--out", "r"]
    artifacts.write(tmp_path / "r" / artifacts.RUN, artifacts.to_record({"command": command}))
    with pytest.raises(
        DamagedFile,
        match=r"Delete .*manifest\.json and make it again, in the repository: python -m flows\.label --out r$",
    ):
        artifacts.verify(tmp_path / "r")


def test_missing_file_of_a_result_is_reported(tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "r", {"x.json": b"1"})
    with pytest.raises(UserError, match=r"r has no y\.json: it is a result of another kind"):
        artifacts.read_verified(tmp_path / "r", "y.json", artifacts.verify(tmp_path / "r"))


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    artifacts.write(tmp_path / "f", b"old")
    with pytest.raises(TypeError):
        artifacts.write(tmp_path / "f", "not bytes")  # type: ignore[arg-type]
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_lock_error_names_the_process(tmp_path: Path) -> None:
    with (
        artifacts.locked(tmp_path / "r"),
        pytest.raises(UserError, match="being written by process"),
        artifacts.locked(tmp_path / "r"),
    ):
        pass
    with artifacts.locked(tmp_path / "r"):
        pass


def test_checkpoint_of_other_parameters_is_ignored(tmp_path: Path) -> None:
    checkpoint = artifacts.Checkpoint(tmp_path / "r", {"seed": 1})
    assert checkpoint.load() is None
    for i in range(2):
        checkpoint.save({"a": np.arange(i + 3)}, {"i": i})
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded[0]["a"].tolist() == [0, 1, 2, 3]
    assert loaded[1] == {"i": 1}
    assert artifacts.Checkpoint(tmp_path / "r", {"seed": 2}).load() is None
    (state,) = checkpoint.folder.glob("state-*.npz")
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(DamagedFile, match="Delete the folder"):
        checkpoint.load()
    checkpoint.clear()
    assert checkpoint.load() is None


def test_damaged_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tables.read.cache_clear()
    monkeypatch.setitem(tables.CHECKSUMS, "nas_bench_macro.parquet", "0" * 64)
    with pytest.raises(DamagedFile, match=r"nas_bench_macro\.parquet is damaged: expected sha256 0000"):
        tables.read("nas_bench_macro.parquet")
    monkeypatch.undo()
    tables.read.cache_clear()


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'nasbench101'"):
        benchmarks.get("nasbench-101")
    with pytest.raises(UnknownName, match="Known: nasbench101"):
        spaces.get("darts")


# -- predictor -------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def model(make_params: Any) -> Predictor:
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.sample_distinct(400, np.random.default_rng(0))
    return Predictor.fit(table.space, rows, table(rows), make_params().predictor, 0)


def test_predictor_scores_on_held_out_architectures(model: Predictor) -> None:
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.sample(2_000, np.random.default_rng(1))
    quality = assess(model, rows, table(rows))
    assert quality["tau"] > 0.85
    assert quality["spearman"] > 0.95
    assert quality["r2"] > 0.85
    assert 0.5 < quality["tau_better_half"] < quality["tau"]


def test_values_are_in_the_unit_of_the_labels(model: Predictor) -> None:
    values = model.value(np.linspace(-9, 9, 101))
    assert (np.diff(values) >= 0).all()
    assert values[0] == model.quantiles[0]
    assert values[-1] == model.quantiles[-1]


def test_predictor_is_saved_and_loaded(model: Predictor) -> None:
    data, kernel, sidecar = model.dump()
    loaded = Predictor.load(model.space, data, kernel, json.loads(json.dumps(sidecar)))
    rows = model.space.sample(100, np.random.default_rng(2))
    assert (loaded.score(rows) == model.score(rows)).all()
    with pytest.raises(UserError, match="made for space 'nas_bench_macro', not for 'nasbench101'"):
        Predictor.load(spaces.get("nasbench101"), data, kernel, sidecar)
    with pytest.raises(UserError, match="another encoding"):
        Predictor.load(model.space, data, kernel, {**sidecar, "encoding_sha256": "0"})
    with pytest.raises(UserError, match="expected sha256"):
        Predictor.load(model.space, data[:-1], kernel, sidecar)
    with pytest.raises(UserError, match="expected sha256"):
        Predictor.load(model.space, data, kernel[:-1], sidecar)


@pytest.mark.parametrize(("bad", "part"), [(np.nan, "row 5 is nan"), (np.inf, "row 5 is inf")])
def test_labels_that_are_not_finite_are_refused(make_params: Any, bad: float, part: str) -> None:
    table = benchmarks.get("nas_bench_macro")
    rows = table.space.sample(30, np.random.default_rng(0))
    values = table(rows)
    values[5] = bad
    with pytest.raises(UserError, match=part):
        Predictor.fit(table.space, rows, values, make_params().predictor, 0)


# -- subspace --------------------------------------------------------------------------------------
def test_subspace_membership_and_sampling() -> None:
    space = spaces.get("nas_bench_macro")
    rows = space.sample_distinct(200, np.random.default_rng(0))
    sub = Subspace(space, rows[:100])
    assert sub.size() == 100
    assert sub.contains(rows).tolist() == [True] * 100 + [False] * 100
    assert sub.contains(sub.sample(500, np.random.default_rng(1))).all()
    empty = Subspace(space, rows[:0])
    assert not empty.contains(rows).any()
    with pytest.raises(UserError, match="empty"):
        empty.sample(1, np.random.default_rng(0))
    with pytest.raises(UserError, match="twice"):
        Subspace(space, np.concatenate([rows[:2], rows[:2]])).contains(rows)


# -- notation of the other spaces --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("space", "good", "bad", "reason"),
    [
        ("transnas_micro", "64-41414-3_02_113", "64-41414-3_02_114", "position 5 is '4'"),
        ("transnas_micro", "64-41414-3_02_113", "64-41414-3-02-113", "expected 64-41414"),
        ("transnas_macro", "64-1244-basic", "64-124-basic", "4 to 6 digits"),
        ("transnas_macro", "64-1244-basic", "64-1111-basic", "not a network"),
        ("transnas_macro", "64-1244-basic", "64-10240-basic", "4 to 6 digits"),
        ("transnas", "64-1244-basic", "64-41414-9_00_000", "position 0 is '9'"),
        ("nas_bench_macro", "22212220", "22212223", "position 7 is '3'"),
        ("nas_bench_macro", "22212220", "2221222", "expected 8 digits"),
    ],
)
def test_notations(space: str, good: str, bad: str, reason: str) -> None:
    s = spaces.get(space)
    assert s.format(s.parse([good])) == [good]
    with pytest.raises(InvalidArchitecture, match=reason) as caught:
        s.parse([good, good, bad])
    assert caught.value.row == 2


def test_networks_of_equal_function_have_equal_keys() -> None:
    space = spaces.get("nas_bench_macro")
    assert space.format(space.parse(["11102021"])) == ["11120021"]
    a, b, c = space.key(space.parse(["11201120", "11210120", "11021120"]))
    assert a == b  # after the first layer of a stage, the position of an identity does not matter
    assert a != c  # in the first layer it halves the resolution
