"""Label collection: failures, hangs, kills and torn writes lose no label, and none is requested twice."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lissnas.core.errors import DamagedFile, UserError
from lissnas.oracles.label_collection import (
    Attempt,
    LabelFailed,
    Labeller,
    LabellerUnavailable,
    LabelLog,
    attempt,
    collect,
    describe_failure,
    one_by_one,
)
from lissnas.oracles.reuse import Reuse
from lissnas.oracles.training_worker import Trainer

ABOUT = {"space": "toy", "seed": 0}
ARCHS = [f"a{i}" for i in range(8)]


def value_of(arch: str) -> float:
    return 10.0 + int(arch[1:]) / 3


def gather(path: Path, label_one: Labeller, archs: Sequence[str] = ARCHS, attempts: int = 2, **reuse: bool) -> LabelLog:
    with LabelLog.opened(path, ABOUT, Reuse(**reuse)) as log:
        collect(archs, label_one, log, attempts)
        return log


def reread(path: Path) -> LabelLog:
    with LabelLog.opened(path, ABOUT) as log:
        return log


# -- collecting --------------------------------------------------------------------------------------


def test_each_label_is_requested_once(tmp_path: Path) -> None:
    requested: list[str] = []

    def label_one(arch: str) -> float:
        requested.append(arch)
        return value_of(arch)

    gather(tmp_path / "log", label_one, [*ARCHS, *ARCHS[:3]])
    log = gather(tmp_path / "log", label_one, [*ARCHS, "a8"])
    assert requested == [*ARCHS, "a8"]
    assert {a: log.value(a) for a in requested} == {a: value_of(a) for a in requested}


def test_failures_are_logged_and_retried_after_the_others(tmp_path: Path) -> None:
    requested: list[str] = []

    def label_one(arch: str) -> float:
        requested.append(arch)
        if arch == "a1":
            raise ValueError("no\nroom")
        if arch == "a2" and requested.count("a2") < 2:
            raise LabelFailed("it diverged")
        return {"a3": math.nan, "a4": -math.inf}.get(arch, value_of(arch))

    log = gather(tmp_path / "log", label_one)
    assert requested == [*ARCHS, "a1", "a2", "a3", "a4"]
    again = reread(tmp_path / "log")
    assert again.attempts == log.attempts
    assert [a for a in ARCHS if again.value(a) is None] == ["a1", "a3", "a4"]
    assert [one.error for one in again.attempts["a1"]] == ["ValueError: no room"] * 2
    assert [one.error for one in again.attempts["a2"]] == ["it diverged", None]
    assert [one.error for one in again.attempts["a3"]] == ["the label is nan"] * 2
    requested.clear()
    gather(tmp_path / "log", label_one, keep_failed=True)
    assert requested == []
    gather(tmp_path / "log", label_one, attempts=3, keep_failed=True)
    assert requested == ["a1", "a3", "a4"]
    requested.clear()
    gather(tmp_path / "log", label_one)  # another run: it has its own attempts
    assert requested == ["a1", "a3", "a4"] * 2
    gather(tmp_path / "log", value_of)
    assert reread(tmp_path / "log").value("a1") == value_of("a1")


def test_unavailable_worker_is_not_logged_as_a_failed_training(tmp_path: Path) -> None:
    def label_one(arch: str) -> float:
        if arch == "a3":
            raise LabellerUnavailable("the cluster is gone")
        return value_of(arch)

    with pytest.raises(LabellerUnavailable, match="gone"):
        gather(tmp_path / "log", label_one)
    assert set(reread(tmp_path / "log").attempts) == {"a0", "a1", "a2"}


def test_runner_without_results_raises(tmp_path: Path) -> None:
    with LabelLog.opened(tmp_path / "log", ABOUT) as log, pytest.raises(LabellerUnavailable, match="8 networks"):
        collect(ARCHS, value_of, log, 2, lambda label_one, archs: iter(()))


def test_each_attempt_is_on_disk_before_the_next(tmp_path: Path) -> None:
    seen: list[int] = []

    def backwards(label_one: Labeller, archs: Sequence[str]) -> Iterator[Attempt]:
        for arch in reversed(archs):
            seen.append((tmp_path / "log").read_bytes().count(b"\n") - 1)
            yield attempt(label_one, arch)

    with LabelLog.opened(tmp_path / "log", ABOUT) as log:
        collect(ARCHS, value_of, log, 2, backwards)
    assert seen == list(range(8))


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_interrupt_loses_only_the_current_training(tmp_path: Path, interrupt: type[BaseException]) -> None:
    def label_one(arch: str) -> float:
        if arch == "a5":
            raise interrupt
        return value_of(arch)

    with pytest.raises(interrupt):
        gather(tmp_path / "log", label_one)
    assert list(reread(tmp_path / "log").attempts) == ARCHS[:5]


def test_long_errors_are_truncated_and_have_their_type(tmp_path: Path) -> None:
    assert describe_failure(KeyError("x")) == "KeyError: 'x'"
    assert describe_failure(UserError("plain")) == "plain"
    assert describe_failure(MemoryError()) == "MemoryError: "
    assert len(describe_failure(ValueError("y" * 10_000))) == 300


# -- the log -----------------------------------------------------------------------------------------


def test_log_truncated_at_any_byte_keeps_its_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    gather(path, value_of)
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        log = reread(path)
        kept = max(sum(end <= cut for end in ends) - 1, 0)
        assert list(log.attempts) == ARCHS[:kept]
        gather(path, value_of)
        assert {a: reread(path).value(a) for a in ARCHS} == {a: value_of(a) for a in ARCHS}


def test_flipped_bit_is_reported_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    gather(path, value_of)
    whole = path.read_bytes()
    line = 4
    start = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")][line - 2]
    for at in (start + 2, start + 16, start + 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DamagedFile, match=f"line {line} of .*expected sha256 .*Delete that line"):
            reread(path)
    rest = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(rest[: line - 1] + rest[line:]))
    gather(path, value_of)
    assert all(reread(path).value(a) == value_of(a) for a in ARCHS)


def test_labels_of_other_parameters_are_kept_and_not_used(tmp_path: Path) -> None:
    gather(tmp_path / "log", value_of)
    before, said = (tmp_path / "log").read_bytes(), list[str]()
    with LabelLog.opened(tmp_path / "log", {**ABOUT, "seed": 1}, Reuse(say=said.append)) as log:
        assert log.attempts == {}
        log.append(Attempt("a0", 1.0, None, None))
    assert "has 8 labels that this run does not use: the seed changed" in said[0]
    assert (tmp_path / "log").read_bytes().startswith(before)
    assert reread(tmp_path / "log").value("a0") == value_of("a0")
    with LabelLog.opened(tmp_path / "log", {**ABOUT, "seed": 1}) as log:
        assert [log.value(a) for a in ARCHS] == [1.0] + [None] * 7


def test_force_leaves_earlier_labels_out_for_good(tmp_path: Path) -> None:
    gather(tmp_path / "log", value_of)
    log = gather(tmp_path / "log", lambda arch: 1.0, ARCHS[:3], force=True)
    assert log.attempts.keys() == {*ARCHS[:3]}
    assert [reread(tmp_path / "log").value(a) for a in ARCHS] == [1.0] * 3 + [None] * 5
    gather(tmp_path / "log", lambda arch: 2.0, ARCHS[:1], force=True)
    assert [reread(tmp_path / "log").value(a) for a in ARCHS] == [2.0] + [None] * 7


def test_second_process_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from lissnas.oracles import LabelLog\n"
        "from lissnas.core.errors import UserError\n"
        "try:\n"
        f"    with LabelLog.opened(pathlib.Path(sys.argv[1]), {ABOUT!r}): sys.exit(5)\n"
        "except UserError as error: print(error); sys.exit(error.exit_code)\n"
    )
    with LabelLog.opened(tmp_path / "log", ABOUT):
        other = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True)
    assert other.returncode == 2
    assert f"process {os.getpid()}" in other.stdout


def test_failed_write_leaves_no_incomplete_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabelLog.opened(tmp_path / "log", ABOUT) as log:
        log.append(Attempt("a0", 1.0, None, 0.1))
        before = (tmp_path / "log").read_bytes()

        def full(handle: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space"):
                log.append(Attempt("a1", 2.0, None, 0.1))
        assert (tmp_path / "log").read_bytes() == before
        assert log.value("a1") is None
        log.append(Attempt("a2", 3.0, None, 0.1))
    assert list(reread(tmp_path / "log").attempts) == ["a0", "a2"]


Attempts = st.lists(
    st.builds(
        lambda arch, value, error, seconds: Attempt(arch, value, error if value is None else None, seconds),
        st.sampled_from(["", "0", "00", "a,b", 'q"', "n\nn", "ü\u2028\x85", "x" * 500]),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
        st.none() | st.floats(0, 1e6),
    ),
    max_size=12,
)


@given(Attempts, st.integers(0, 10_000), st.binary(max_size=20))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_appended_attempts_are_read_back(tmp_path: Path, made: list[Attempt], cut: int, junk: bytes) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    with LabelLog.opened(path, ABOUT) as log:
        for one in made:
            log.append(one)
    with path.open("ab") as file:
        file.write(junk.replace(b"\n", b""))  # as an interrupted write leaves it
    again = reread(path)
    assert again.attempts == log.attempts
    assert sum(map(len, again.attempts.values())) == len(made)
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    kept = [one for own in reread(path).attempts.values() for one in own]
    assert all(one in made for one in kept)


KILLED = """
import sys, time, pathlib
from lissnas.oracles import LabelLog, collect
def label_one(arch):
    time.sleep(0.002)
    with open(sys.argv[2], "a") as file: print(arch, file=file)
    return 10.0 + int(arch[1:]) / 3
with LabelLog.opened(pathlib.Path(sys.argv[1]), {"space": "toy", "seed": 0}) as log:
    print("up", flush=True)
    collect([f"a{i}" for i in range(200)], label_one, log, 2)
"""


def test_killed_collection_resumes_to_the_same_labels(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "log"), str(tmp_path / "requested")]
    kills = 0
    for pause in (0.05, 0.13, 0.21, 0.08):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
        kills += process.returncode == -signal.SIGKILL
    assert kills == 4
    subprocess.run(command, check=True, capture_output=True)
    log = reread(tmp_path / "log")
    assert {a: log.value(a) for a in log.attempts} == {f"a{i}": value_of(f"a{i}") for i in range(200)}
    requested = (tmp_path / "requested").read_text().split()
    assert len(requested) <= 200 + kills  # only the current one is repeated


# -- the training process ----------------------------------------------------------------------------

CHILD = """
import json, os, sys, time
setup = json.loads(sys.stdin.readline())
if setup.get("refuse"): print(json.dumps({"error": "no images"})); sys.exit()
if setup.get("crash"): sys.exit(3)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    arch = json.loads(line)
    if arch == "hangs": time.sleep(1000)
    if arch == "dies": os._exit(9)
    record = {"error": "it diverged"} if arch == "fails" else {"value": float("nan") if arch == "nan" else os.getpid()}
    print(json.dumps(record), flush=True)
"""


@pytest.fixture
def make_trainer() -> Iterator[Callable[..., Trainer]]:
    made: list[Trainer] = []

    def make(limit: float = 60.0, **setup: object) -> Trainer:
        made.append(Trainer(setup, limit, [sys.executable, "-c", CHILD]))
        return made[-1]

    yield make
    for trainer in made:
        trainer.close()


def test_process_is_reused_and_replaced_after_a_hang_or_crash(
    tmp_path: Path, make_trainer: Callable[..., Trainer]
) -> None:
    trainer = make_trainer(limit=1.0)
    first = trainer("a0")
    assert trainer("a1") == first != os.getpid()
    with pytest.raises(LabelFailed, match="diverged"):
        trainer("fails")
    assert trainer("a2") == first
    with pytest.raises(LabelFailed, match="longer than 1 s"):
        trainer("hangs")
    with pytest.raises(ProcessLookupError):
        os.kill(int(first), 0)
    second = trainer("a3")
    with pytest.raises(LabelFailed, match="exited with code 9"):
        trainer("dies")
    assert len({first, second, trainer("a4")}) == 3
    log = gather(tmp_path / "log", trainer, ["a0", "hangs", "dies", "fails", "nan", "a1"])
    assert [a for a in log.attempts if log.value(a) is None] == ["hangs", "dies", "fails", "nan"]
    assert all(len(log.attempts[a]) == 2 for a in ("hangs", "dies", "fails", "nan"))


@pytest.mark.parametrize(("setup", "text"), [({"refuse": 1}, "no images"), ({"crash": 1}, "does not start.*code 3")])
def test_process_that_does_not_start_stops_the_collection(
    tmp_path: Path, make_trainer: Callable[..., Trainer], setup: dict[str, object], text: str
) -> None:
    with pytest.raises(LabellerUnavailable, match=text):
        gather(tmp_path / "log", make_trainer(**setup))
    assert reread(tmp_path / "log").attempts == {}


def test_missing_program_is_named() -> None:
    with pytest.raises(LabellerUnavailable, match="not-there"):
        Trainer({}, 1.0, ["/not-there"])("a0")


def test_training_process_exits_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from lissnas.oracles.training_worker import Trainer\n"
        f"t = Trainer({{}}, 60.0, [sys.executable, '-c', {CHILD!r}])\n"
        "print(int(t('a0')), flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    for _ in range(100):
        try:
            os.kill(child, 0)
            state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] if os.name == "posix" else ""
        except (ProcessLookupError, FileNotFoundError):
            break
        if state == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the training process outlived its parent")


def test_one_by_one_is_lazy() -> None:
    requested: list[str] = []
    attempts = one_by_one(lambda arch: requested.append(arch) or 1.0, ARCHS)  # type: ignore[func-returns-value]
    next(attempts)
    assert requested == ["a0"]
