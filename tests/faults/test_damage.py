"""Flipped bits and truncation are detected in every kind of artifact before use, and reported with the path."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import artifacts, benchmarks  # noqa: E402
from lissnas.artifacts import journal  # noqa: E402
from lissnas.artifacts.stage_run import finished  # noqa: E402
from lissnas.artifacts.verification import verified  # noqa: E402
from lissnas.benchmarks import tables  # noqa: E402
from lissnas.cli import app  # noqa: E402
from lissnas.core.errors import DamagedFile, LissnasError, UserError  # noqa: E402
from lissnas.nets import files, images  # noqa: E402
from lissnas.nets.evaluation import supernet_oracle  # noqa: E402
from lissnas.oracles.label_collection import LabelLog  # noqa: E402
from lissnas.predictors.accuracy import predictor_in  # noqa: E402
from lissnas.spaces.members import read_members  # noqa: E402
from lissnas.stages.retrain import retrain_stage  # noqa: E402
from tests.faults.results import BENCHMARK, LOG_DEPENDS, Results, make  # noqa: E402

SPACE = benchmarks.get(BENCHMARK).space
CASES = 500


@pytest.fixture(
    scope="module", params=[False, pytest.param(True, marks=pytest.mark.faults)], ids=["tables", "networks"]
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return make(tmp_path_factory.mktemp("results"), request.param)
    finally:
        torch.set_num_threads(threads)


def readers_of(results: Results) -> dict[str, list[Callable[[], object]]]:
    """Return all readers of each kind of artifact: none of them may accept a damaged one."""

    def open_log() -> object:
        with LabelLog.opened(results.stage("labels") / journal.LOG, LOG_DEPENDS) as log:
            return log

    readers: dict[str, list[Callable[[], object]]] = {
        name: [partial(finished, results.stage(name))] for name in results.kinds
    }
    readers["prepared"].append(lambda: benchmarks.read_prepared(BENCHMARK, results.stage("prepared")))
    shrunk, search = results.stage("shrunk"), results.stage("search")
    readers["shrunk"].append(lambda: predictor_in(shrunk, SPACE))
    readers |= {"interrupted": [results.checkpoint.load], "labels": [open_log]}
    if "search" not in readers:
        return readers
    readers["search/supernet"].append(lambda: files.load_supernet(search / "supernet", read_members(shrunk, SPACE)))
    readers["search/supernet"].append(lambda: supernet_oracle(results.params, SPACE, None, search / "supernet"))
    again = results.folder / "again"
    readers["search"].append(lambda: retrain_stage(results.params, SPACE.name, search, 0, again))
    readers["search/best"].append(lambda: files.load(search / "best"))
    return readers


def checked_files(results: Results) -> list[tuple[str, Path]]:
    """Return every file that has a checksum, with its kind of artifact."""
    found = []
    for name in results.kinds:
        folder = results.stage(name)
        found += [(name, folder / file) for file in (*artifacts.verify(folder), artifacts.MANIFEST, artifacts.RUN)]
        timed = artifacts.read_json(folder / artifacts.RUN).get("files", {})
        found += [(name, folder / file) for file in timed]
    found += [("interrupted", file) for file in sorted(results.checkpoint.folder.iterdir())]
    return [*found, ("labels", results.stage("labels") / journal.LOG)]


def damaged(data: bytes, flip: bool, at: int) -> bytes:
    """Return the data with one bit flipped, or truncated."""
    if not flip:
        return data[: at % len(data)]
    changed = bytearray(data)
    changed[at // 8 % len(data)] ^= 1 << at % 8
    return bytes(changed)


def found_by(results: Results, kind: str) -> list[LissnasError]:
    top = results.checkpoint.folder if kind == "interrupted" else results.stage(kind)
    return [damage for one in verified(top) for damage in one.damages]


def test_damage_is_found_before_use(results: Results) -> None:
    rng, readers, every = np.random.default_rng(0), readers_of(results), checked_files(results)
    assert {kind for kind, _ in every} == set(readers)
    for kind, uses in readers.items():
        assert not found_by(results, kind)
        for use in uses[: 1 if kind == "search" else None]:
            use()
    missed, tried = [], set[tuple[Path, bytes]]()
    while len(tried) < CASES:
        kind, path = every[len(tried) % len(every)]
        whole, flip = path.read_bytes(), bool(rng.integers(4))
        at = int(rng.integers(1 << 40))
        changed = damaged(whole, flip, at)
        if kind == "labels" and (len(changed) < len(whole) or changed[-1:] != b"\n" or changed.count(b"\n") == 0):
            # A crash may leave a partial last line in a log: it is dropped, and its network is trained again.
            changed = damaged(whole[:-1], True, at) + b"\n"
        if (path, changed) in tried:
            continue
        tried.add((path, changed))
        path.write_bytes(changed)
        messages = [str(damage) for damage in found_by(results, kind)]
        where = f"{path.relative_to(results.folder)}, {'flipped' if flip else 'cut'} at {at}"
        if not messages:
            missed.append(f"{where}: verify found nothing")
        elif not any(str(path) in text or str(path.parent) in text for text in messages):
            missed.append(f"{where}: verify does not name it: {messages}")
        for use in readers[kind]:
            try:
                use()
            except LissnasError:
                continue
            except Exception as error:
                missed.append(f"{where}: {type(error).__name__}: {error}")
                continue
            missed.append(f"{where}: it was used")
        path.write_bytes(whole)
    assert not missed, "\n".join(missed)
    assert not (results.folder / "again").exists()


def test_missing_file_is_damage(results: Results) -> None:
    for kind, path in checked_files(results):
        if path.name in (artifacts.MANIFEST, artifacts.RUN, artifacts.STATE, journal.LOG):
            continue
        whole = path.read_bytes()
        path.unlink()
        assert any("no file" in str(damage) for damage in found_by(results, kind)), path
        path.write_bytes(whole)


def test_packaged_files_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, module in (("benchmarks", tables), ("nets", images)):
        shutil.copytree(Path(str(module.files(f"lissnas.{package}"))) / "data", tmp_path / package / "data")
        monkeypatch.setattr(module, "files", lambda name: tmp_path / name.rpartition(".")[2])
    uses: dict[Path, Callable[[], object]] = {
        tmp_path / "benchmarks/data" / name: partial(tables.read_bytes, name) for name in tables.CHECKSUMS
    }
    uses[tmp_path / "nets/data" / images.SUBSET] = images.packaged.__wrapped__
    rng = np.random.default_rng(1)
    for path, use in uses.items():
        whole = path.read_bytes()
        for flip in (True, False):
            path.write_bytes(damaged(whole, flip, int(rng.integers(1 << 40))))
            with pytest.raises(
                DamagedFile, match=rf"{re.escape(str(path))} is damaged: expected sha256 \w+, found \w+"
            ):
                use()
        path.write_bytes(whole)


# -- the command -----------------------------------------------------------------------------------
def lissnas(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app.app, ["verify", *words])
    code = done.exception.exit_code if isinstance(done.exception, LissnasError) else done.exit_code
    return code, done.output + str(done.exception or "")


def test_verify_command(results: Results) -> None:
    code, output = lissnas(str(results.folder))
    assert code == 0
    assert re.search(rf"sound: 1 checkpoint, {len(results.kinds)} results, 1 label log$", output)
    assert lissnas(str(results.folder / "interrupted"))[1].endswith("sound: 1 checkpoint\n")
    path = results.stage("shrunk") / "subspace.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    for target in (path, path.parent, results.folder):
        code, output = lissnas(str(target))
        assert code == 1
        expected, found = artifacts.sha256(whole), artifacts.sha256(whole[:-1])
        assert f"{path} is damaged: expected sha256 {expected}, found {found}. Make it again: " in output
    path.write_bytes(whole)
    assert lissnas(str(path))[0] == 0
    for nothing in (results.folder / "nowhere", Path(__file__)):
        code, output = lissnas(str(nothing))
        assert code == 2, output
        assert str(nothing) in output


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"files":' * 100_000])
@pytest.mark.parametrize("name", [artifacts.MANIFEST, artifacts.RUN, artifacts.STATE])
def test_deeply_nested_json_is_damage(name: str, deep: bytes, tmp_path: Path) -> None:
    artifacts.publish(tmp_path / "r", {"metrics.json": b"{}"}, record={"files": {}})
    artifacts.write(tmp_path / "r" / name, deep)
    assert str(tmp_path / "r" / name) in str([damage for one in verified(tmp_path) for damage in one.damages])


def test_files_of_other_programs_are_not_damage(results: Results, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "manifest.json").write_text('{"name": "a web page"}')
    shutil.copytree(results.stage("shrunk"), tmp_path / "shrunk")
    assert [one.path for one in verified(tmp_path)] == [tmp_path / "shrunk"]
    (tmp_path / "shrunk" / "manifest.json").write_text('{"name": "a web page"}')
    assert len(next(verified(tmp_path)).damages) == 1


@pytest.mark.parametrize(
    "name", ["../other", "/etc/hostname", "a/../../b", "", ".", "a/", "a\0b", "\udcff", "\x1b[31m", "a" * 300]
)
def test_a_manifest_that_names_files_elsewhere_is_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for file in (artifacts.MANIFEST, artifacts.RUN):
        artifacts.publish(tmp_path / "r", {"metrics.json": b"{}"}, record={"files": {}})
        text = {"files": {name: "00"}}
        artifacts.write(
            tmp_path / "r" / file, artifacts.to_record(text) if file == artifacts.RUN else artifacts.to_json(text)
        )
        assert "is not in its folder" in str(next(verified(tmp_path / "r")).damages[0])
        with pytest.raises(UserError, match="is not in its folder"):
            finished(tmp_path / "r")
