"""Runs in MLflow while they happen: their states, times and points, resumed commands, servers that are unreachable."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("mlflow", reason="mlflow is not installed (the extra `pipeline`)")

from mlflow import MlflowClient

from lissnas import artifacts, tracking
from lissnas.artifacts.recorder import NO_RECORDER, Recorder
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.cli import app
from lissnas.tracking import mlflow as sender
from lissnas.tracking import pending, recorder

UNREACHABLE = "http://127.0.0.1:1"
METRICS = {"size": 3, "seed": 0, "full_size": 10, "mean_true": 1.5, "kept_best": True, "benchmark": "b"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a database without runs, which takes seconds to create."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(autouse=True)
def workplace(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr(recorder, "INTERVAL", 0.1)
    return tmp_path


def stage(record: Recorder, work: Callable[[], None], name: str = "r", seed: int = 0, force: bool = False) -> Outcome:
    """Run a stage of three steps, with `work` before the last."""

    def files() -> dict[str, bytes]:
        for step in (1, 2):
            record.metrics({"loss": 1 / step}, step)
        work()
        record.metrics({"loss": 1 / 3}, 3)
        return {"metrics.json": artifacts.to_json(METRICS), "a.png": b"picture"}

    def summary(record: Recorder, outcome: Outcome) -> None:
        for step in (1, 2, 3):
            record.metrics({"loss": 1 / step}, step)
        child = record.child("part", {"arch": "x"}, stage="network")
        child.metrics({"test": 50.0})
        child.finish()

    return run(Path(name), {"seed": seed, "benchmark": "b", "lr": 2}, files, force, record=record, summary=summary)


def runs(uri: str | None = None) -> dict[str, Any]:
    """Return MLflow's runs by name."""
    client = MlflowClient(uri or os.environ["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(sender.EXPERIMENT)
    return {} if experiment is None else {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}


def points(run: Any, name: str = "loss") -> list[tuple[int, float, int]]:
    """Return a curve: step, value and time of each point."""
    history = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_metric_history(run.info.run_id, name)
    return [(m.step, m.value, m.timestamp) for m in history]


def soon(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def nothing() -> None:
    """Work without effect."""


def sync() -> str:
    return " ".join(CliRunner().invoke(app.app, ["sync"]).output.split())


def test_a_run_is_visible_while_it_works(workplace: Path) -> None:
    record, seen, times = tracking.Run("shrink", 0, links={"Prefect": "http://p"}), {}, []

    def work() -> None:
        times.append(time.time())
        seen.update(soon(lambda: len(found := runs()) == 2 and points(found["shrink b seed 0"]) and found))
        seen["points"] = [step for step, _, _ in points(seen["shrink b seed 0"])]
        times.append(time.time())

    outcome = stage(record, work)
    place = record.place()
    assert place is not None
    assert place.registered == ""
    assert {seen[name].info.status for name in ("method b", "shrink b seed 0")} == {"RUNNING"}
    assert seen["points"] == [1, 2]
    found = runs()
    assert {name: r.info.status for name, r in found.items()} == dict.fromkeys(
        ("method b", "shrink b seed 0", "part"), "FINISHED"
    )
    run_, parent = found["shrink b seed 0"], found["method b"]
    for one in (run_, parent):
        assert one.info.start_time / 1000 == pytest.approx(times[0], abs=2)
        assert one.info.end_time / 1000 == pytest.approx(times[1], abs=2)
    assert run_.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert found["part"].data.tags["mlflow.parentRunId"] == run_.info.run_id
    assert {"size", "mean_true", "kept_best", "seconds", "peak_memory_mb"} <= run_.data.metrics.keys()
    assert {"size", "mean_true", "kept_best", "seconds/shrink", "peak_memory_mb"} <= parent.data.metrics.keys()
    assert not {"seed", "full_size"} & (run_.data.metrics.keys() | parent.data.metrics.keys())
    assert run_.data.params == {"seed": "0", "benchmark": "b", "lr": "2", "full_size": "10"}
    assert parent.data.params == {"benchmark": "b", "lr": "2"}
    assert "Prefect: <http://p>" in parent.data.tags["mlflow.note.content"]
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert [f.path for f in client.list_artifacts(parent.info.run_id, "pictures")] == ["pictures/a.png"]
    experiment = client.get_experiment(run_.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    assert str(tracking.find(outcome.folder)).startswith(f"run {run_.info.run_id}")
    assert list(pending.RECORDS.iterdir()) == []


@pytest.mark.parametrize(("error", "status"), [(OSError("No space left"), "FAILED"), (KeyboardInterrupt(), "KILLED")])
def test_a_run_that_does_not_finish(error: BaseException, status: str) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        stage(tracking.Run("shrink", 0), work)
    found = runs()["shrink b seed 0"]
    assert found.info.status == status
    assert runs()["method b"].info.status == "FAILED"
    assert found.data.tags["error"] == (str(error) or "KeyboardInterrupt")
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert [f.path for f in client.list_artifacts(found.info.run_id)] == ["traceback.txt"]
    assert sync().startswith("nothing is left")
    # The same command continues the run.
    record = tracking.Run("shrink", 0)
    stage(record, nothing)
    assert record.place() is not None, record.error
    again = runs()["shrink b seed 0"]
    assert (again.info.run_id, again.info.status) == (found.info.run_id, "FINISHED")
    assert [step for step, _, _ in points(again)] == [1, 2, 3]


KILLED = """
import os, signal, sys, time
sys.path.insert(0, {root!r})
from tests.pipeline import test_tracking as t
t.recorder.INTERVAL = 0.1
def work():
    t.soon(lambda: (found := t.runs()) and "shrink b seed 0" in found and len(t.points(found["shrink b seed 0"])) == 2)
    os.kill(os.getpid(), signal.SIGKILL)
t.stage(t.tracking.Run("shrink", 0), work)
"""


@pytest.fixture
def killed() -> None:
    """Kill a process in mid-run."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(root=str(ROOT))], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert runs()["shrink b seed 0"].info.status == "RUNNING"


def test_a_killed_run_is_continued_by_its_command(killed: None) -> None:
    before = points(runs()["shrink b seed 0"])
    record = tracking.Run("shrink", 0)
    stage(record, nothing)
    assert record.place() is not None, record.error
    found = runs()
    assert {name: r.info.status for name, r in found.items()} == dict.fromkeys(found, "FINISHED")
    assert len(found) == 3
    after = points(found["shrink b seed 0"])
    assert after[:2] == before
    assert [step for step, _, _ in after] == [1, 2, 3]


@pytest.mark.parametrize("by", ["sync", "command"])
def test_a_killed_run_is_ended(killed: None, by: str) -> None:
    if by == "sync":
        assert "logged: shrink in r" in sync()
        assert runs()["method b"].info.status == "KILLED"
        assert sync().startswith("nothing is left")
    else:
        record = tracking.Run("shrink", 1)
        stage(record, nothing, seed=1)
        assert record.place() is not None, record.error
        assert runs()["shrink b seed 1"].info.status == "FINISHED"
        sync()
    assert runs()["shrink b seed 0"].info.status == "KILLED"


@pytest.fixture
def hanging() -> Iterator[str]:
    """Yield the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("server", ["unreachable", "hanging"])
def test_records_wait_for_a_server(server: str, workplace: Path, hanging: str) -> None:
    database, times = os.environ["MLFLOW_TRACKING_URI"], []
    os.environ["MLFLOW_TRACKING_URI"] = UNREACHABLE if server == "unreachable" else hanging
    record = tracking.Run("shrink", 0)

    def work() -> None:
        times.append(time.time())
        soon(lambda: record.error)

    outcome = stage(record, work)
    started = time.monotonic()
    assert record.place() is None
    assert time.monotonic() - started < 0.5  # nobody waits for it
    assert outcome.folder.exists()
    assert record._idle.wait(10)  # the last attempt of the thread
    assert "not logged: shrink in r" in sync()
    os.environ["MLFLOW_TRACKING_URI"] = database
    ended = time.time()
    time.sleep(1)
    assert "logged: shrink in r: run" in sync()
    assert sync().startswith("nothing is left")
    found = runs()
    assert {name: r.info.status for name, r in found.items()} == dict.fromkeys(found, "FINISHED")
    assert len(found) == 3
    curve = points(found["shrink b seed 0"])
    assert [step for step, _, _ in curve] == [1, 2, 3]
    assert all(times[0] - 2 < at / 1000 < ended for _, _, at in curve)
    assert found["shrink b seed 0"].info.start_time / 1000 == pytest.approx(times[0], abs=2)
    assert found["shrink b seed 0"].info.end_time / 1000 < ended
    assert list(pending.RECORDS.iterdir()) == []


def test_a_server_that_comes_back_gets_all(workplace: Path) -> None:
    database = os.environ["MLFLOW_TRACKING_URI"]
    os.environ["MLFLOW_TRACKING_URI"] = UNREACHABLE
    record = tracking.Run("shrink", 0)

    def work() -> None:
        soon(lambda: record.error)
        os.environ["MLFLOW_TRACKING_URI"] = database
        soon(lambda: not record.error)

    stage(record, work)
    assert record.place() is not None, record.error
    assert [step for step, _, _ in points(runs()["shrink b seed 0"])] == [1, 2, 3]


def test_an_earlier_result_is_logged_once_with_its_times(workplace: Path) -> None:
    outcome = stage(NO_RECORDER, nothing)
    start = outcome.json(artifacts.RUN)["started"]
    time.sleep(1.5)
    places = set()
    for _ in range(2):
        record = tracking.Run("shrink", 0)
        assert stage(record, nothing).reused
        places.add(record.place())
    assert len({place and place.run_id for place in places}) == 1
    found = runs()
    assert {name: r.info.status for name, r in found.items()} == dict.fromkeys(found, "FINISHED")
    expected = datetime.fromisoformat(start).timestamp()
    assert found["shrink b seed 0"].info.start_time / 1000 == pytest.approx(expected, abs=1)
    assert found["shrink b seed 0"].info.end_time / 1000 < expected + 1.2


def test_a_parent_ends_with_its_last_child() -> None:
    inner = tracking.Run("shrink", 1)

    def work() -> None:
        soon(lambda: "shrink b seed 0" in runs())
        stage(inner, nothing, "other", seed=1)
        assert inner.place() is not None
        assert runs()["method b"].info.status == "RUNNING"

    outer = tracking.Run("shrink", 0)
    stage(outer, work)
    assert outer.place() is not None
    found = runs()
    assert found["method b"].info.status == "FINISHED"
    history = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]).get_metric_history(
        found["method b"].info.run_id, "mean_true"
    )
    assert {m.step for m in history} == {0, 1}  # by seed


def test_a_group_has_the_stages_of_several_runs() -> None:
    group = tracking.Run("nas", 0, is_group=True)
    group.start(Path("nas"), {"benchmark": "b", "a": {"b": 1}})
    for name in ("shrink", "search"):
        record = tracking.Run(name, 0, group.group)
        stage(record, nothing, f"nas/{name}")
        assert record.place() is not None, record.error
        assert runs()["nas b seed 0"].info.status == "RUNNING"
    group.finish()
    assert group.place() is not None
    found = runs()
    parent = found["nas b seed 0"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["a.b"] == "1"
    assert {"seconds/shrink", "seconds/search", "mean_true", "seconds"} <= parent.data.metrics.keys()
    assert {found[f"{name} b seed 0"].data.tags["mlflow.parentRunId"] for name in ("shrink", "search")} == {
        parent.info.run_id
    }


def test_a_deleted_experiment_is_named_and_records_are_kept() -> None:
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    made = client.create_experiment(sender.EXPERIMENT)
    client.delete_experiment(made)
    record = tracking.Run("shrink", 0)
    stage(record, nothing)
    assert record.place() is None
    assert record.error == (
        f"the experiment lissnas was deleted: `mlflow experiments restore --experiment-id {made}`, then `lissnas sync`"
    )
    client.restore_experiment(made)
    assert "logged: shrink in r: run" in sync()


def test_a_failing_artifact_store_delays_only_files(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*about: Any) -> None:
        raise OSError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifact", refuse)
        record = tracking.Run("shrink", 0)
        stage(record, nothing)
        assert record.place() is None
        assert record._idle.wait(10)
        assert record.error == "read-only"
        assert runs()["shrink b seed 0"].info.status == "FINISHED"
    assert "logged: shrink in r: run" in sync()
    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert client.list_artifacts(runs()["shrink b seed 0"].info.run_id, "pictures")


def test_the_searches_of_the_documentation_are_valid() -> None:
    client, page = MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), (ROOT / "docs/how_to/watch.md").read_text()
    queries = re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)
    assert len(queries) == 3
    for query in queries:
        assert list(client.search_runs(["0"], query)) == []


def test_a_full_disk_does_not_stop_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*about: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts.Journal, "append", full)
    record = tracking.Run("shrink", 0)
    stage(record, nothing)
    assert record.place() is not None, record.error
    assert [step for step, _, _ in points(runs()["shrink b seed 0"])] == [1, 2, 3]
