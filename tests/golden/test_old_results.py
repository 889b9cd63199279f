"""Results written by version 0.1.0, before the code was reorganized, can still be read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import lissnas
from lissnas.cli.app import app
from lissnas.config import Params

OLD = Path(__file__).with_name("results")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def run(*args: str) -> str:
    done = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_verify_and_show(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(old.parent)
    assert "sound: 5 results" in run("verify", str(old))
    assert "nas_bench_macro, seed 0, elite" in run("show", str(old / "shrink"))


def test_load(old: Path) -> None:
    result = lissnas.load_result(old / "shrink")
    assert result.subspace.size() == result.metrics["size"] == 60
    frame = result.to_pandas()
    assert result.predictor.value(result.predictor.score(result.subspace.members)) == pytest.approx(
        frame["predicted"].to_numpy(), abs=1e-4
    )


def test_the_report_reads_an_old_comparison(
    old: Path, tmp_path: Path, make_params: Callable[..., Params], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lissnas import benchmarks
    from lissnas.stages.locality import locality_stage
    from lissnas.stages.report import space_map
    from lissnas.stages.report.stage import report_stage

    monkeypatch.setattr(space_map, "LANDMARKS", 100)
    name = "nas_bench_macro"
    params = make_params(pipeline__benchmarks=[name], locality__pairs=200, locality__resamples=100)
    locality_stage(params, benchmarks.get(name), tmp_path / "data" / "locality" / name)
    shutil.copytree(old / "comparison", tmp_path / "data" / "compare" / name)
    report = report_stage(params, tmp_path / "data", tmp_path / "no studies", tmp_path / "report")
    assert report.metrics["benchmarks"] == 1
    assert "padnas" in (report.folder / "report.md").read_text()


def test_search_reads_an_old_space_and_supernet(old: Path, tmp_path: Path, make_params: Callable[..., Params]) -> None:
    pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")
    from lissnas import spaces
    from lissnas.nets.files import load
    from lissnas.stages.one_shot import one_shot

    settings = {"population": 4, "generations": 1, "parents": 2, "top": 2, "images": 20, "batch_size": 10}
    params = make_params(
        images__side=8,
        images__validation=200,
        supernet__width=0.0625,
        torch__device="cpu",
        retrain__networks=0,
        **{f"search__{name}": value for name, value in settings.items()},
    )
    space = spaces.get("nas_bench_macro")
    supernet = old / "search" / "supernet"
    found, _ = one_shot(params, space, None, old / "shrink", 0, tmp_path / "found", supernet)
    assert found.metrics["space"] == space.name
    assert sum(p.numel() for p in load(old / "search" / "best").parameters()) > 0
