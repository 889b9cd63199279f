"""Finding the MLflow run of a result, and keeping results until MLflow is back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lissnas.artifacts.stage_run import Outcome, run
from lissnas.tracking import find, lookup, pending


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    return tmp_path


def result(name: str = "r", seed: int = 0, force: bool = False) -> Outcome:
    return run(Path(name), {"seed": seed}, lambda: {"metrics.json": b"{}"}, force)


def test_find_writes_nothing_and_names_what_fails(workplace: Path) -> None:
    result()
    before = sorted(workplace.rglob("*"))
    assert find(Path("r")) is None
    for uri in ("", " ", "sqlite:///nowhere.db", f"sqlite:///{workplace / 'none.db'}"):
        os.environ["MLFLOW_TRACKING_URI"] = uri
        assert find(Path("r")) is None
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize("content", [b"", b"no database"])
def test_a_broken_database_is_named(content: bytes) -> None:
    result()
    Path("mlflow.db").write_bytes(content)
    assert str(find(Path("r"))).startswith("not asked (")
    assert Path("mlflow.db").read_bytes() == content


def test_a_run_is_found_in_a_database(workplace: Path) -> None:
    pytest.importorskip("mlflow", reason="MLflow is not installed (the extra `pipeline`)")
    from mlflow import MlflowClient

    outcome = result("a folder")
    os.environ["MLFLOW_TRACKING_URI"] = uri = f"sqlite:///{workplace / 'm l.db'}"
    client = MlflowClient(uri)
    tags = {"manifest_sha256": pending._digest(outcome.folder)}
    made = client.create_run(client.create_experiment(lookup.EXPERIMENT), tags=tags).info.run_id
    assert find(outcome.folder) is None  # it is not finished
    client.set_terminated(made)
    assert str(find(outcome.folder)).startswith(f"run {made} in sqlite:")
    client.delete_run(made)
    assert find(outcome.folder) is None


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(), "host:9 does not answer"),
        (ValueError("API request to http://host failed with exception X"), "host:9 does not answer"),
        (ValueError("a login page. And more"), "host:9: a login page"),
        (KeyError(), "host:9: KeyError"),
    ],
)
def test_errors_of_a_server_are_one_line(error: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str, manifest: str) -> None:
        raise error

    result()
    os.environ["MLFLOW_TRACKING_URI"] = "http://host:9"
    monkeypatch.setattr(lookup, "_on_server", fail)
    assert find(Path("r")) == f"not asked ({text})"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(pending, "log_stage", lambda stage, outcome, *a, **k: names.append(outcome.folder.name))
    return names


def synced() -> list[tuple[str, bool]]:
    return [(text, done) for _, text, done in pending.sync()]


def moved(place: Path) -> None:
    place.rename("away")


def replaced(place: Path) -> None:
    moved(place)
    result("r", seed=1)


@pytest.mark.parametrize("change", [moved, replaced])
def test_a_result_that_comes_back_is_logged(change: Callable[[Path], None], logged: list[str]) -> None:
    pending.add("shrink", result().folder, 0, None)
    change(Path("r"))
    ((text, done),) = synced()
    assert not done
    assert text.startswith("missing: ")
    assert "kept in mind" in text
    if Path("r").exists():
        Path("r").rename("other")
    Path("away").rename("r")
    assert [done for _, done in synced()] == [True]
    assert synced() == []
    assert logged == ["r"]


def test_a_result_that_was_made_again_replaces_the_first(logged: list[str]) -> None:
    pending.add("shrink", result().folder, 0, None)
    pending.add("shrink", result(seed=1, force=True).folder, 0, None)
    pending.add("shrink", result(seed=1).folder, 0, None)
    assert [done for _, done in synced()] == [True]
    assert synced() == []


def test_a_folder_that_is_mounted_elsewhere_is_found(
    workplace: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("here").mkdir()
    monkeypatch.chdir("here")
    pending.add("shrink", result().folder.absolute(), 0, None)
    (workplace / "here").rename(workplace / "there")
    monkeypatch.chdir(workplace / "there")
    assert [done for _, done in synced()] == [True]


def test_records_of_earlier_versions_are_read(logged: list[str]) -> None:
    place = str(result().folder.absolute())
    with pending._opened() as journal:
        record = {"stage": "shrink", "folder": place, "seed": 0, "group": None}
        journal.append({"result": record, "waits": True})
    assert [done for _, done in synced()] == [True]
    assert synced() == []
