"""What stages record while they run, and that results do not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lissnas import artifacts, benchmarks
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.config import Params
from lissnas.oracles.reuse import Reuse
from lissnas.shrinkers.problem import Source
from lissnas.stages.label import label_stage
from lissnas.stages.search import SearchOracle, search_stage
from lissnas.stages.shrink import shrink_stage


class Memory:
    """Lists what is recorded."""

    active = True

    def __init__(self) -> None:
        self.curves: dict[str, list[tuple[int, float]]] = {}
        self.results: dict[str, Any] = {}
        self.constants: dict[str, Any] = {}
        self.texts: dict[str, Any] = {}
        self.files: list[str] = []
        self.datasets: list[Mapping[str, Any]] = []
        self.models: list[Mapping[str, Any]] = []
        self.children: dict[str, Memory] = {}
        self.ended: list[BaseException | None] = []

    def start(self, *about: Any, **more: Any) -> bool:
        return True

    def metrics(self, values: Mapping[str, Any], step: int | None = None) -> None:
        if step is None:
            self.results |= values
        else:
            for name, value in values.items():
                points = self.curves.setdefault(name, [])
                if step not in dict(points):
                    points.append((step, value))

    def parameters(self, values: Mapping[str, Any]) -> None:
        self.constants |= values

    def tags(self, values: Mapping[str, Any]) -> None:
        self.texts |= values

    def artifact(self, file: Path, folder: str = "", shared: bool = False) -> None:
        assert file.exists()
        self.files.append(file.name)

    def dataset(self, about: Mapping[str, Any]) -> None:
        self.datasets.append(about)

    def model(self, about: Mapping[str, Any]) -> None:
        self.models.append(about)

    def child(self, name: str, about: Mapping[str, Any], **tags: str) -> Recorder:
        return self.children.setdefault(name, Memory())

    def side_by_side(self, title: str, children: Sequence[str]) -> None:
        assert set(children) <= self.children.keys()

    def finish(self, error: BaseException | None = None) -> None:
        self.ended.append(error)


@pytest.fixture
def quick(make_params: Callable[..., Params]) -> Params:
    return make_params(predictor__trees=30)


@pytest.fixture
def shrunk(quick: Params, tmp_path: Path) -> tuple[Memory, Path]:
    record, source = Memory(), Source.of(benchmarks.get("nas_bench_macro"))
    shrink_stage(quick, source, 0, tmp_path / "a", record=record, threads=1)
    return record, tmp_path / "a"


def test_a_shrink_records_curves_spaces_and_its_predictor(shrunk: tuple[Memory, Path]) -> None:
    record, folder = shrunk
    n = artifacts.read_json(folder / "metrics.json")["iterations"]
    assert [step for step, _ in record.curves["iteration/mean_true"]] == list(range(n + 1))
    assert record.curves["labels/mean_true"][-1][0] == artifacts.read_json(folder / "metrics.json")["labels"]
    assert record.constants == {"seed": 0, "full_size": 3969}
    assert not {"seed", "full_size"} & record.results.keys()
    assert [d["context"] for d in record.datasets] == ["shrunk space", "full space"]
    assert all({"name", "digest", "source", "schema"} <= d.keys() for d in record.datasets)
    assert record.datasets[0]["schema"]["arch"] == "string"
    (model,) = record.models
    assert model["tags"]["tau"] == record.results["tau"]
    assert {"predictor.json", "predictor_kernel.npz", "subspace.parquet", "edf.png"} <= set(record.files)
    assert record.ended == [None]


def test_results_do_not_depend_on_records(quick: Params, shrunk: tuple[Memory, Path], tmp_path: Path) -> None:
    source = Source.of(benchmarks.get("nas_bench_macro"))
    plain = shrink_stage(quick, source, 0, tmp_path / "b", threads=1, record=NO_RECORDER)
    assert (plain.folder / "manifest.json").read_bytes() == (shrunk[1] / "manifest.json").read_bytes()


def test_a_search_records_generations(quick: Params, tmp_path: Path) -> None:
    table, record = benchmarks.get("nas_bench_macro"), Memory()
    params = quick.model_copy(update={"search": quick.search.model_copy(update={"max_mparams": 2.0})})
    members = table.space.enumerate()
    oracle = SearchOracle(table, table.sha256, table.metric)
    search_stage(params, table.space, members, oracle, 0, tmp_path / "s", table, record=record)
    best = [value for _, value in record.curves["generation/best"]]
    assert best == sorted(best)
    assert best[-1] == record.results["best_score"]
    assert record.curves["generation/evaluated"][-1][1] == record.results["evaluated"]
    assert len(record.curves["generation/median"]) == len(best)
    assert record.texts["limits"] == "params<=2e+06"


def test_labels_record_the_best_value_and_tau_by_number(quick: Params, tmp_path: Path) -> None:
    space, record = benchmarks.get("nas_bench_macro").space, Memory()
    program = tmp_path / "program"
    program.write_text(
        "#!/usr/bin/awk -f\n{ n = 0; for (i = 1; i <= length($0); i++) n += substr($0, i, 1); print n }\n"
    )
    program.chmod(0o755)
    params = quick.model_copy(update={"label": quick.label.model_copy(update={"networks": 40})})
    label_stage(params, space, 0, tmp_path / "l", program=str(program), reuse=Reuse(), record=record)
    curve = record.curves["labels/best"]
    assert [step for step, _ in curve] == list(range(1, 41))
    assert curve[-1][1] == record.results["max"]
    assert record.curves["labels/tau"][0][0] >= 20


def test_a_failure_is_recorded(quick: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*about: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lissnas.artifacts.folder.publish", full)
    record, source = Memory(), Source.of(benchmarks.get("nas_bench_macro"))
    with pytest.raises(OSError, match="No space left"):
        shrink_stage(quick, source, 0, tmp_path / "a", record=record, threads=1)
    (error,) = record.ended
    assert isinstance(error, OSError)


def test_a_summary_that_fails_leaves_the_result(tmp_path: Path) -> None:
    def fail(record: Recorder, outcome: Any) -> None:
        raise KeyError("x")

    record = Memory()
    work: Callable[[], dict[str, bytes]] = lambda: {"metrics.json": b"{}"}  # noqa: E731
    outcome = artifacts.run(tmp_path / "r", {}, work, record=record, summary=fail)
    assert artifacts.verify(outcome.folder)
    assert record.texts["summary"].startswith("incomplete: ")
    assert record.ended == [None]
