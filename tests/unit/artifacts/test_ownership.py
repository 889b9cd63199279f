"""A result folder holds what lissnas made; nothing else in it is ever replaced or removed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lissnas import artifacts
from lissnas.artifacts import atomic, ownership
from lissnas.artifacts.stage_run import run
from lissnas.cli import app
from lissnas.core.errors import UserError

GOLDEN = Path(__file__).parents[2] / "golden" / "results"


def made(*names: str) -> Callable[[], dict[str, bytes]]:
    """Return the work of a stage that makes files of these names."""
    return lambda: dict.fromkeys(("metrics.json", *names), b"{}")


def no_work() -> dict[str, bytes]:
    raise AssertionError("the work was started")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("labels.parquet", "metrics.json", "run.json", "manifest.json", "labels.csv", "labels.jsonl", "notes.txt"),
        *("table.parquet", "figures/mine.png", "deep/er/x"),
    ],
)
def test_a_folder_with_files_of_a_user_is_refused_before_the_work(name: str, force: bool, tmp_path: Path) -> None:
    file = tmp_path / "data" / name
    file.parent.mkdir(parents=True)
    file.write_text('{"files": {"a.js": "/static/a.js"}}')
    with pytest.raises(UserError, match=rf"data has a file {name} that lissnas did not make\. Choose another folder"):
        run(tmp_path / "data", {}, no_work, force)
    assert content(tmp_path) == {f"data/{name}": b'{"files": {"a.js": "/static/a.js"}}'}


def test_all_files_in_the_way_are_named_up_to_a_limit(tmp_path: Path) -> None:
    for i in range(9):
        (tmp_path / f"{i}").touch()
    with pytest.raises(UserError, match="has files 0, 1, 2, 3, 4, 5, 6, 7 and more that lissnas"):
        ownership.check_folder(tmp_path)


def test_new_empty_and_hidden_contents_are_accepted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".gitignore").write_text("x")
    (tmp_path / "a" / "empty").mkdir()
    for name in ("a", "new"):
        assert run(tmp_path / name, {}, made()).reused is False
    assert (tmp_path / "a" / ".gitignore").read_text() == "x"


def test_a_users_file_next_to_a_result_survives_every_later_run(tmp_path: Path) -> None:
    out = tmp_path / "r"
    run(out, {}, made("a.png"))
    (out / "notes.txt").write_text("mine")
    (out / "b.png").write_text("mine")
    run(out, {"other": 1}, made("a.png"), force=True)
    with pytest.raises(UserError, match=r"r has a file b\.png that lissnas did not make"):
        run(out, {"other": 2}, made("b.png"), force=True)
    assert artifacts.verify(out)
    run(out, {"other": 3}, made("c.png"), force=True)
    assert (out / "notes.txt").read_text() == (out / "b.png").read_text() == "mine"
    assert not (out / "a.png").exists()  # of the earlier result, and unchanged since


@pytest.mark.parametrize("file", ["new.csv", "pages/a.html", "pages", "figures/deep/x.png", "new.csv/inside"])
@pytest.mark.parametrize("force", [False, True])
def test_a_file_under_a_name_that_only_the_new_run_writes_is_refused_before_the_work(
    file: str, force: bool, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    run(out, {}, made())
    (out / file).parent.mkdir(exist_ok=True, parents=True)
    (out / file).write_text("mine")
    writes = ("metrics.json", "new.csv", "pages/*", "figures/*")
    before = content(tmp_path)
    assert run(out, {}, no_work, writes=writes).reused
    with pytest.raises(UserError, match=rf"r has a file {file.removesuffix('/inside')} that lissnas did not make"):
        run(out, {"other": 1}, no_work, force=True, writes=writes)
    if not force:
        shutil.rmtree(out)
        out.mkdir()
        (out / file).parent.mkdir(exist_ok=True, parents=True)
        (out / file).write_text("mine")
        with pytest.raises(UserError, match=file):
            run(out, {"other": 1}, no_work, writes=writes)
        return
    assert content(tmp_path) == before


def test_files_under_other_names_are_not_in_the_way(tmp_path: Path) -> None:
    run(tmp_path / "r", {}, made())
    for name in ("notes.csv", "pages.txt", "new.csv.bak"):
        (tmp_path / "r" / name).write_text("mine")
    run(tmp_path / "r", {"other": 1}, made("new.csv"), force=True, writes=("metrics.json", "new.csv", "pages/*"))


def test_a_changed_file_of_an_earlier_result_is_kept(tmp_path: Path) -> None:
    run(tmp_path / "r", {}, made("a.csv"))
    (tmp_path / "r" / "a.csv").write_text("mine")
    run(tmp_path / "r", {"other": 1}, made(), force=True)
    assert (tmp_path / "r" / "a.csv").read_text() == "mine"


@pytest.mark.parametrize("killed_at", range(6))
def test_a_run_killed_while_it_replaces_a_result_is_repeated(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write, count = tmp_path / "r", atomic.write, iter(range(100))
    run(out, {}, made("a", "old"))

    def killed(path: Path, data: bytes) -> None:
        if next(count) == killed_at:
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(artifacts.folder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(out, {"other": 1}, made("a", "new"), force=True)
    monkeypatch.undo()
    run(out, {"other": 1}, made("a", "new"), force=True)
    assert content(out).keys() == {"a", "new", "metrics.json", "parameters.json", "manifest.json", "run.json"}


def test_a_run_killed_while_it_fills_an_empty_folder_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r").mkdir()
    write = atomic.write

    def killed(path: Path, data: bytes) -> None:
        if path.name == "metrics.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(artifacts.folder, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "r", {}, made("a"))
    monkeypatch.undo()
    assert run(tmp_path / "r", {}, made("a")).reused is False


def test_outputs_deleted_by_dvc_are_made_again(tmp_path: Path) -> None:
    """DVC deletes the listed outputs, the manifest too, but not `run.json` and files that dvc.yaml does not list."""
    run(tmp_path / "r", {}, made("subspace.parquet", "unlisted.npz"), timed=[])
    for name in ("subspace.parquet", "manifest.json"):
        (tmp_path / "r" / name).unlink()
    run(tmp_path / "r", {"other": 1}, made("subspace.parquet", "unlisted.npz"))
    assert "unlisted.npz" in artifacts.verify(tmp_path / "r")


def test_results_of_earlier_versions_can_be_replaced(tmp_path: Path) -> None:
    for name in ("shrink", "comparison", "search"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
        run(tmp_path / name, {"other": 1}, made("subspace.json", "comparison.csv", "top.json"), force=True)
        assert artifacts.verify(tmp_path / name)


def test_of_an_earlier_version_only_what_dvc_leaves_is_known_without_the_manifest(tmp_path: Path) -> None:
    out = tmp_path / "r"
    out.mkdir()
    record = {"command": ["lissnas"], "files": {"comparison.parquet": "00"}}
    (out / "run.json").write_bytes(artifacts.to_record(record))
    for name in ("comparison.parquet", "predictor_kernel.npz"):
        (out / name).touch()
    ownership.check_folder(out)
    (out / "labels.parquet").touch()
    with pytest.raises(UserError, match=r"r has a file labels\.parquet that"):
        run(out, {}, made("labels.parquet"))
    run(out, {}, made("comparison.parquet"))


def test_a_damaged_record_does_not_keep_a_result_from_being_made_again(tmp_path: Path) -> None:
    for name in ("run.json", "manifest.json"):
        run(tmp_path / name, {}, made("comparison.parquet"), timed=["comparison.parquet"])
        (tmp_path / name / name).write_text("{")
        run(tmp_path / name, {}, made("comparison.parquet"), timed=["comparison.parquet"], force=True)
        assert artifacts.verify(tmp_path / name)


def test_metrics_that_git_and_dvc_track_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh clone has the pipeline's metrics.json, and the flows of the pipeline can be run without DVC."""
    monkeypatch.chdir(tmp_path)
    out = Path("data/shrunk")
    out.mkdir(parents=True)
    (out / "metrics.json").write_text("{}")
    digest = hashlib.md5(b"{}", usedforsecurity=False).hexdigest()
    lock = f"    - path: data/shrunk/metrics.json\n      hash: md5\n      md5: {digest}\n"
    Path("dvc.lock").write_text(lock)
    run(out, {}, made())
    shutil.rmtree(out)
    out.mkdir()
    (out / "metrics.json").write_text('{"mine": 1}')
    with pytest.raises(UserError, match=r"has a file metrics\.json"):
        run(out, {}, no_work)


def test_results_in_subfolders_and_an_interrupted_log_are_not_in_the_way(tmp_path: Path) -> None:
    run(tmp_path / "r" / "supernet", {}, made("supernet.json"))
    with artifacts.Journal.opened(tmp_path / "r" / artifacts.LOG, {}) as journal:
        journal.append({"a": 1})
    run(tmp_path / "r", {}, made())
    assert artifacts.verify(tmp_path / "r" / "supernet")


@pytest.mark.parametrize("text", ['{"image": 1, "label": 2}', '{"image": 1}\n{"image": 2}\n', "[]"])
def test_a_users_json_lines_are_never_taken_for_a_log(text: str, tmp_path: Path) -> None:
    file = tmp_path / artifacts.LOG
    file.write_text(text)
    with (
        pytest.raises(UserError, match="is not a file of lissnas"),
        artifacts.Journal.opened(file, {}, others="replace"),
    ):
        pass
    assert file.read_text() == text


def test_only_checkpoints_are_removed_with_a_checkpoint(tmp_path: Path) -> None:
    for folder in artifacts.resume_folders(tmp_path / "r"):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "mine.txt").write_text("mine")
        artifacts.Checkpoint(folder / "one", {}).save({}, {})
    artifacts.Checkpoint(tmp_path / "r", {}).save({}, {})
    run(tmp_path / "r", {}, made(), force=True)
    assert sorted(p.name for p in tmp_path.rglob(".*/**/*") if p.is_file() and p.suffix != ".lock") == ["mine.txt"] * 2


def test_a_manifest_cannot_delete_files_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    run(tmp_path / "r", {}, made())
    listed = {"files": {"../mine": artifacts.sha256(b"mine"), "metrics.json": "00", "parameters.json": "00"}}
    for name, data in (("manifest.json", artifacts.to_json(listed)), ("run.json", artifacts.to_record(listed))):
        (tmp_path / "r" / name).write_bytes(data)
    run(tmp_path / "r", {"other": 1}, made(), force=True)
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("words", ["r", "r/deep", "r/deep/er"])
def test_a_dangling_link_is_found_before_the_work(words: str, tmp_path: Path) -> None:
    (tmp_path / "r").symlink_to("/not/mounted/scratch")
    with pytest.raises(UserError, match=r"r is a link to /not/mounted/scratch, which is not there"):
        run(tmp_path / words, {}, no_work)
    assert sorted(os.listdir(tmp_path)) == ["r"]


def test_a_file_on_the_way_is_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(UserError, match="f is a file"):
        run(tmp_path / "f" / "r", {}, no_work)


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "r").symlink_to(tmp_path / "there")
    run(tmp_path / "r", {}, made())
    assert artifacts.verify(tmp_path / "there")


COMMANDS = (
    ("shrink", "--space", "space.yaml", "--labels", "labels.csv"),
    ("shrink", "--space", "space.yaml", "--labels", "labels.csv", "--force"),
    ("compare", "--space", "space.yaml", "--labels", "labels.csv"),
    ("data", "--benchmark", "nas_bench_macro"),
    ("data", "--benchmark", "nas_bench_macro", "--force"),
    ("locality", "--benchmark", "nas_bench_macro"),
    ("search", "--benchmark", "nas_bench_macro", "--subspace", "nowhere"),
    ("report",),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("place", [".", "link", "nowhere"])
def test_no_command_writes_next_to_data(
    words: tuple[str, ...], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    CliRunner().invoke(app.app, ["init", str(folder)])
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    before, out = content(tmp_path), {".": "../data", "link": "../link", "nowhere": "gone"}[place]
    if place == "nowhere":
        (folder / "gone").symlink_to(tmp_path / "missing")
    done = CliRunner().invoke(app.app, [*words, "--out", out])
    assert isinstance(done.exception, UserError)
    expected = "which is not there" if place == "nowhere" else "has files labels.csv, space.yaml that lissnas did not"
    assert expected in str(done.exception)
    assert content(tmp_path) == before


def test_suggestions_replace_only_suggestions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def lissnas(*words: str) -> Any:
        return CliRunner().invoke(app.app, list(words))

    lissnas("init", ".")
    words = ("suggest", "--space", "space.yaml", "--n", "3", "--out")
    labels = Path("labels.csv").read_bytes()
    Path("other.csv").write_text("name,phone\nAda,1\n")
    for name in ("labels.csv", "other.csv"):
        done = lissnas(*words, name, "--force")
        assert isinstance(done.exception, UserError)
        assert f"{name} is not a file of suggestions" in str(done.exception)
    assert Path("labels.csv").read_bytes() == labels
    assert [lissnas(*words, "next.csv", "--force").exit_code for _ in range(2)] == [0, 0]


def test_the_record_of_a_result_lists_its_files(tmp_path: Path) -> None:
    run(tmp_path / "r", {}, made("a.csv"), timed=["a.csv"])
    record = json.loads((tmp_path / "r" / "run.json").read_bytes())
    assert record["made"].keys() == {"a.csv", "metrics.json", "parameters.json"}
    assert record["files"].keys() == {"a.csv"}
