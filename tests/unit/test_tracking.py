"""Finding the MLflow run of a result, and the journal of records that MLflow lacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lissnas.artifacts.formats import sha256
from lissnas.artifacts.ownership import MANIFEST
from lissnas.artifacts.stage_run import Outcome, run
from lissnas.tracking import find, lookup
from lissnas.tracking.mlflow import EXPERIMENT, MAIN, PARENT
from lissnas.tracking.pending import RECORDS, Records, sync


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
    tags = {"manifest_sha256": sha256((outcome.folder / MANIFEST).read_bytes())}
    made = client.create_run(client.create_experiment(EXPERIMENT), tags=tags).info.run_id
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


class Sent:
    """A sender that lists what it gets, and fails on files."""

    def __init__(self, fails: bool = False) -> None:
        self.ids: dict[str, str] = {}
        self.got: list[Any] = []
        self.fails = fails

    def send(self, records: list[Any], key: str) -> None:
        self.ids[MAIN] = "id"
        self.got += records

    def send_file(self, record: Any, result: str) -> None:
        if self.fails:
            raise OSError("read-only")
        self.got.append(record)


ABOUT = {"folder": "r", "stage": "shrink", "parameters": "1"}


def opened(**changed: str) -> Records:
    return Records.of({**ABOUT, **changed}, restart=False)


def test_records_are_sent_once_and_their_journal_is_deleted() -> None:
    records, failing, working = opened(), Sent(fails=True), Sent()
    records.open(MAIN, name="a")
    records.put(MAIN, metrics={"x": 1.0, "y": 2.0}, step=1)
    records.put(MAIN, file="a")
    records.put(MAIN, metrics={"x": 3.0}, step=1)  # the second value at a step
    records.close(MAIN, "FINISHED")
    records.flush()
    with pytest.raises(OSError, match="read-only"):
        records.send(failing)  # type: ignore[arg-type]
    records.release()
    kinds = [sorted(r.keys() - {"to", "at"}) for r in failing.got]
    assert kinds == [["name", "status"], ["metrics", "step"], ["status"]]
    again = opened()
    assert again.path == records.path
    again.send(working)  # type: ignore[arg-type]
    assert [r["file"] for r in working.got] == ["a"]
    assert working.ids == {MAIN: "id"}
    again.release()
    assert list(RECORDS.iterdir()) == []


def test_records_of_a_running_process_are_left_alone() -> None:
    first = opened()
    assert opened().path != first.path
    assert list(sync()) == []
    first.release()


def test_records_of_a_dead_process_are_continued_or_ended() -> None:
    first = opened()
    first.at = 1000.0
    first.open(PARENT, name="p", key="k")
    first.open(MAIN, name="a")
    first.put(MAIN, metrics={"x": 1.0}, step=1)
    first.flush()
    first._stack.close()  # what the end of a process does
    same = opened()
    assert same.running() == [MAIN, PARENT]
    same.open(MAIN, name="a")
    same.put(MAIN, metrics={"x": 1.0}, step=1)
    assert same._queue == []
    same._stack.close()
    for changed in ({"parameters": "2"}, {"stage": "search"}):
        other = opened(**changed)
        assert other.path != first.path
        other.release()
    ended = Records(first.path, ABOUT)
    assert [(r["to"], r["status"], r["at"]) for r in ended.items[-2:]] == [
        (MAIN, "KILLED", 1_000_000),
        (PARENT, "KILLED", 1_000_000),
    ]
    assert ended.running() == []
    ended.release()
    assert ended.path.exists()  # its command may continue it


def test_files_of_another_result_stay_listed(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome, sent = result(), Sent()
    monkeypatch.setattr("lissnas.tracking.pending.Sender", lambda: sent)
    records = opened()
    records.open(MAIN, name="a")
    records.put(MAIN, tags={"manifest_sha256": sha256((outcome.folder / MANIFEST).read_bytes())})
    records.put(MAIN, file="r/metrics.json")
    records.close(MAIN, "FINISHED")
    records.flush()
    records.release()
    Path("r").rename("away")
    ((_, text, done),) = sync()
    assert not done
    assert text.startswith("missing: ")
    result("r", seed=1)
    ((_, text, done),) = sync()
    assert (done, "another result is there now" in text, "It stays listed" in text) == (False, True, True)
    Path("r").rename("other")
    Path("away").rename("r")
    sent.logged = lambda: "run id"  # type: ignore[attr-defined]
    assert [(text, done) for _, text, done in sync()] == [("run id", True)]
    assert list(sync()) == []


def test_a_folder_that_is_mounted_elsewhere_is_found(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lissnas.tracking.pending import relative

    assert relative(workplace / "r") == "r"
    assert relative(Path("/elsewhere/r")) == "/elsewhere/r"


def test_a_damaged_journal_is_left_out() -> None:
    RECORDS.mkdir(parents=True)
    (RECORDS / "a.jsonl").write_text("not a journal\n")
    assert list(sync()) == []
    assert opened().path.exists()
