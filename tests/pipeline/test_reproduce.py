"""The scheduled reproduction: DVC's stages as tasks in DVC's order; unchanged, failed and dependent stages."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lissnas.core.errors import LissnasError, UserError
from tests.pipeline.harness import served

STAGES = """
stages:
  last:
    cmd: cat good.txt bad.txt > last.txt
    deps: [good.txt, bad.txt]
    outs: [last.txt]
  good:
    cmd: cat first.txt > good.txt
    deps: [first.txt]
    params: [b]
    outs: [good.txt]
  bad:
    cmd: test -e fixed && cat first.txt > bad.txt
    deps: [first.txt]
    outs: [bad.txt]
  first:
    cmd: echo 1 >> runs.log && echo 1 > first.txt
    params: [a]
    outs: [first.txt]
"""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with served(tmp_path_factory.mktemp("reproduce")):
        yield


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository with four small stages and a folder as its default remote."""
    monkeypatch.chdir(tmp_path)
    run("git", "init", "-q")
    run(sys.executable, "-m", "dvc", "init", "-q")
    run(sys.executable, "-m", "dvc", "remote", "add", "-q", "--default", "here", str(tmp_path / "remote"))
    Path("dvc.yaml").write_text(STAGES)
    Path("params.yaml").write_text("a: 1\nb: 1\n")
    return tmp_path


def states(targets: list[str] | None = None, to_remote: bool = True) -> dict[str, str]:
    from flows.reproduce import reproduce

    return {row["stage"]: row["state"] for row in reproduce(targets, to_remote)}


def test_stages_are_in_topological_order(repository: Path) -> None:
    from flows.reproduce import stages_in_order

    graph = stages_in_order()
    assert graph == {"first": [], "good": ["first"], "bad": ["first"], "last": ["bad", "good"]}
    done: set[str] = set()
    for stage, needs in graph.items():
        assert done.issuperset(needs)
        done.add(stage)
    assert set(stages_in_order(["good"])) == {"first", "good"}
    with pytest.raises(UserError, match="nothing"):
        stages_in_order(["nothing"])


def test_unchanged_stages_are_cached_and_changed_ones_rerun(repository: Path) -> None:
    Path("fixed").touch()
    assert states() == dict.fromkeys(("first", "good", "bad", "last"), "Completed")
    remote = sum(p.is_file() for p in (repository / "remote").rglob("*"))
    assert remote >= 2  # one file for each distinct content
    assert states() == dict.fromkeys(("first", "good", "bad", "last"), "Cached")
    Path("params.yaml").write_text("a: 1\nb: 2\n")
    # The output of `good` is unchanged, so `last` is not run.
    assert states() == {"first": "Cached", "good": "Completed", "bad": "Cached", "last": "Cached"}
    assert Path("runs.log").read_text() == "1\n"


@pytest.mark.faults
def test_failed_stage_stops_only_its_dependants_and_is_resumed(repository: Path) -> None:
    with pytest.raises(LissnasError) as caught:
        states()
    assert re.search(r"1 of 4 stages failed: bad; 1 that depend on them did not start", str(caught.value))
    assert Path("good.txt").exists()
    assert not Path("last.txt").exists()
    Path("fixed").touch()
    assert states() == {"first": "Cached", "good": "Cached", "bad": "Completed", "last": "Completed"}


def test_parameters_changed_during_a_run_stop_it(repository: Path) -> None:
    Path("fixed").touch()
    Path("edited.yaml").write_text("a: 1\nb: 3\n")
    stages = Path("dvc.yaml").read_text()
    Path("dvc.yaml").write_text(stages.replace("echo 1 >> runs.log", "cp edited.yaml params.yaml"))
    with pytest.raises(LissnasError, match="stages failed"):
        states()
    assert not Path("good.txt").exists()


def test_unreachable_remote_fails_the_push(repository: Path) -> None:
    Path("fixed").touch()
    (repository / "remote").write_text("a file where the remote's folder should be")
    from flows import reproduce

    push = reproduce.push.with_options(retries=0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(reproduce, "push", push)
        with pytest.raises(LissnasError, match="push ended with code"):
            states()
    assert Path("last.txt").exists()


@pytest.mark.slow
def test_clean_clone_pulls_all_results(
    repository: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flow pushes results to object storage, and a clone pulls them."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import boto3

        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="data")
        dvc = (sys.executable, "-m", "dvc")
        run(*dvc, "remote", "add", "-q", "--default", "bucket", "s3://data/dvc")
        run(*dvc, "remote", "modify", "-q", "bucket", "endpointurl", f"http://{host}:{port}")
        Path("fixed").touch()
        states()
        Path(".gitignore").write_text("/remote\n/*.txt\n")
        run("git", "add", "--all")
        run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "made")
        assert "planted-secret" not in (repository / ".dvc" / "config").read_text()
        clone = tmp_path_factory.mktemp("clone") / "clone"
        run("git", "clone", "-q", str(repository), str(clone))
        monkeypatch.chdir(clone)
        assert not Path("last.txt").exists()
        run(*dvc, "pull", "-q")
        assert Path("last.txt").read_text() == "1\n1\n"
        assert "up to date" in run(*dvc, "repro")
    finally:
        server.stop()
