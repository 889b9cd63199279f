"""User-defined programs as oracles, the cache of their values, and models and functions as scorers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lissnas.core.errors import DamagedFile, LissnasError, UserError
from lissnas.oracles.cache import CachedOracle
from lissnas.oracles.command import CommandOracle, OracleFailed
from lissnas.predictors.surrogate import model_scorer
from lissnas.shrinkers.lissnas import shrink
from lissnas.shrinkers.problem import Problem
from lissnas.spaces import Archs, ChoiceSpace, FloatArray
from lissnas.spaces.base import Features
from tests.problems import problem_of

SPACE = ChoiceSpace("made_up", [4] * 12)
ARCHS = SPACE.sample_distinct(40, np.random.default_rng(0))
NAMES = SPACE.format(ARCHS)
SUM = "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.strip())))\n"
Write = Callable[..., CommandOracle]


def truth(archs: Archs) -> FloatArray:
    return np.asarray(archs.sum(axis=1), np.float64)


@pytest.fixture
def program(tmp_path: Path) -> Write:
    """Return a function that makes an oracle of a Python program."""

    def write(text: str, seconds: float = 30.0) -> CommandOracle:
        path = tmp_path / "oracle.py"
        path.write_text(text)
        return CommandOracle.parse(SPACE, f"{sys.executable} '{path}'", seconds)

    return write


# -- valid output ---------------------------------------------------------------------------------
def test_values_are_in_the_order_of_the_architectures(program: Write) -> None:
    assert (program(SUM)(ARCHS) == truth(ARCHS)).all()
    assert (program(SUM)(ARCHS[::-1]) == truth(ARCHS)[::-1]).all()


@pytest.mark.parametrize(
    "text",
    [
        SUM.replace("print(", "print(' ', "),
        SUM + "sys.stderr.write('progress ' * 500_000)",
        "import sys\nsys.stderr.write('x' * 2_000_000)\n" + SUM,
        SUM.replace("strip())))", "strip()))), end='\\r\\n')").replace(")), end", "), end"),
        SUM.replace("print(sum(map(int, line.strip())))", "print(f'{sum(map(int, line.strip())):e}', flush=True)"),
    ],
    ids=["blanks", "stderr after", "stderr before", "carriage returns", "exponents"],
)
def test_stderr_blanks_and_number_formats_are_accepted(program: Write, text: str) -> None:
    assert (program(text)(ARCHS) == truth(ARCHS)).all()


@pytest.mark.parametrize("first", ["read", "write"])
def test_batch_larger_than_a_pipe_does_not_block(program: Write, first: str) -> None:
    many = SPACE.sample(60_000, np.random.default_rng(1))
    text = f"import sys\nprint('7\\n' * {len(many)}, end='', flush=True)\nsys.stdin.read()\n"
    if first == "read":
        text = "import sys\nprint('7\\n' * len(sys.stdin.readlines()), end='')\n"
    assert (program(text)(many) == 7).all()


def test_program_that_closes_its_input_works(program: Write) -> None:
    many = SPACE.sample(60_000, np.random.default_rng(1))
    text = f"import os\nos.close(0)\nprint('1\\n' * {len(many)}, end='')\n"
    assert (program(text)(many) == 1).all()


# -- failures and bad output -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "answered 0 lines"),
        (SUM + "print()", "answered 41 lines"),
        (SUM + "print('done')", "answered 41 lines"),
        ("print(1)", "answered 1 lines"),
        (SUM + "sys.exit('out of memory\\n on the GPU')", "code 1 .*: out of memory on the GPU$"),
        (SUM + "raise KeyError('x')", "code 1 .*KeyError: 'x'$"),
        (SUM + "sys.stdout.flush()\nimport os\nos._exit(3)", "code 3 .*: no message$"),
        (SUM + "sys.stdout.flush()\nimport os\nos.kill(os.getpid(), 9)", "code -9 "),
        ("import sys\nfor i in range(20):\n    sys.stdin.readline()\n    print(1)\nsys.exit(1)", "code 1 "),
        ("import sys\nfor i in range(20):\n    sys.stdin.readline()\n    print(1)\n", "answered 20 lines"),
    ],
)
def test_error_names_the_batch(program: Write, text: str, why: str) -> None:
    with pytest.raises(OracleFailed, match=why) as caught:
        program(text)(ARCHS)
    assert f"the batch of 40 from {NAMES[0]} to {NAMES[-1]}" in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "answer", ["nan", "inf", "-inf", "1e999", "", " ", "91.2 %", "1,5", "ok", "1 2", "0x10", "\xff"]
)
def test_invalid_number_is_reported_with_its_architecture(program: Write, answer: str) -> None:
    text = f"import sys\nfor i, line in enumerate(sys.stdin):\n    print({answer!r} if i == 7 else i)\n"
    with pytest.raises(OracleFailed, match=f"for {NAMES[7]}; expected a finite number"):
        program(text)(ARCHS)


@pytest.mark.parametrize("answer", ["1_0", "\u0661"])
def test_numbers_refused_in_label_tables_are_refused_here(program: Write, answer: str) -> None:
    with pytest.raises(OracleFailed):
        program(f"print({answer!r} + '\\n' + '1\\n' * 39, end='')")(ARCHS)


def test_output_that_is_not_utf8_is_refused(program: Write) -> None:
    with pytest.raises(OracleFailed, match="expected a finite number"):
        program("import sys\nsys.stdout.buffer.write(b'\\xff\\xfe\\n' * 40)")(ARCHS)


def test_crash_within_a_large_batch_is_reported(program: Write) -> None:
    """The error is the program's, not that its remaining input could not be written."""
    many = SPACE.sample(60_000, np.random.default_rng(1))
    text = "import sys\nfor i in range(10):\n    sys.stdin.readline()\nsys.exit('the disk is full')\n"
    with pytest.raises(OracleFailed, match=r"code 1 on the batch of 60000 .*the disk is full"):
        program(text)(many)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


FORK = """\
import os, sys, time
child = os.fork()
if not child:
    time.sleep(300)
open({pids!r}, "w").write(f"{{os.getpid()}} {{child}}")
"""


def test_hanging_program_is_killed_with_its_children(program: Write, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    started = time.monotonic()
    with pytest.raises(OracleFailed, match=r"took longer than 2 s for the batch of 40 from"):
        program(FORK.format(pids=str(pids)) + "time.sleep(300)", 2)(ARCHS)
    assert time.monotonic() - started < 20
    time.sleep(0.2)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


@pytest.mark.parametrize("closes", [False, True], ids=["holds its output", "closes its output"])
def test_child_that_outlives_the_program_is_killed(program: Write, tmp_path: Path, closes: bool) -> None:
    pids = tmp_path / "pids"
    text = FORK.format(pids=str(pids))
    if closes:
        text = text.replace("    time.sleep(300)", "    os.close(0), os.close(1), os.close(2)\n    time.sleep(300)")
    assert (program(text + SUM)(ARCHS) == truth(ARCHS)).all()
    time.sleep(0.2)
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_endless_output_is_stopped(program: Write) -> None:
    text = "import time\nwhile True:\n    print('1\\n' * 1_000, flush=True)\n    time.sleep(0.05)\n"
    started = time.monotonic()
    with pytest.raises(OracleFailed):
        program(text, 4)(ARCHS)
    assert time.monotonic() - started < 3.5


def test_infinite_time_limit_works_or_is_refused(program: Write) -> None:
    try:
        assert (program(SUM, np.inf)(ARCHS) == truth(ARCHS)).all()
    except LissnasError:
        return


# -- parsing the command ---------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "   ", "'unclosed", "no-such-program-of-anybody --x", "./nowhere", "/", "'a b'"])
def test_missing_program_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").write_text("#!/bin/sh\n")  # not executable
    with pytest.raises(UserError, match="--oracle-command") as caught:
        CommandOracle.parse(SPACE, text, 1)
    assert caught.value.exit_code == 2


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_words_are_split_as_by_a_shell_without_running_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script(tmp_path / "my oracle", '#!/bin/sh\nprintf "%s|" "$@" > words\nwhile read line; do echo 3; done\n')
    oracle = CommandOracle.parse(SPACE, r"""'./my oracle' --a "b c" '$HOME' \; "rm -r" * '' """, 30)
    assert (oracle(ARCHS) == 3).all()
    assert (tmp_path / "words").read_text() == "--a|b c|$HOME|;|rm -r|*||"


@pytest.mark.parametrize("text", ["echo 1\n", "#!/no/such/interpreter\n"], ids=["no shebang", "no interpreter"])
def test_program_that_cannot_be_started_is_named(tmp_path: Path, text: str) -> None:
    path = script(tmp_path / "oracle", text)
    with pytest.raises(LissnasError, match="oracle"):
        CommandOracle.parse(SPACE, str(path), 5)(ARCHS)


# -- cached values ----------------------------------------------------------------------------------
class Counting:
    """An oracle that records its queries and fails at the batch `fails_at`."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.fails_at = fails_at

    def __call__(self, archs: Archs) -> FloatArray:
        if len(self.batches) == self.fails_at:
            raise OracleFailed("gone")
        self.batches.append(SPACE.format(archs))
        return truth(archs)

    @property
    def queried(self) -> list[str]:
        return [name for batch in self.batches for name in batch]


def test_failed_batch_keeps_the_values_before_it(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    first = Counting(fails_at=2)
    with pytest.raises(OracleFailed, match="gone"):
        CachedOracle(first, SPACE, path, "me", 8)(ARCHS)
    second = Counting()
    assert (CachedOracle(second, SPACE, path, "me", 8)(ARCHS) == truth(ARCHS)).all()
    assert first.queried == NAMES[:16]
    assert second.queried == NAMES[16:]
    assert [len(b) for b in second.batches] == [8, 8, 8]
    third = Counting(fails_at=0)
    assert (CachedOracle(third, SPACE, path, "me", 8)(ARCHS[::-1]) == truth(ARCHS)[::-1]).all()


def test_program_runs_only_for_missing_values(program: Write, tmp_path: Path) -> None:
    queried = tmp_path / "queried"
    keep = f"names = sys.stdin.read().split()\nopen({str(queried)!r}, 'a').write('\\n'.join(names) + '\\n')\n"
    answer = "import sys\n" + keep + "for n in names:\n    print(sum(map(int, n)))\n"
    dying = answer.replace(
        "    print", f"    if n == {NAMES[24]!r}:\n        sys.exit('the node went down')\n    print"
    )
    path = tmp_path / "answers"
    with pytest.raises(OracleFailed, match=f"batch of 10 from {NAMES[20]} to {NAMES[29]}: the node went down"):
        CachedOracle(program(dying), SPACE, path, "me", 10)(ARCHS)
    assert (CachedOracle(program(answer), SPACE, path, "me", 10)(ARCHS) == truth(ARCHS)).all()
    lines = queried.read_text().split()
    assert lines == [*NAMES[:30], *NAMES[24:]]


def test_duplicates_within_a_batch_are_evaluated_once(tmp_path: Path) -> None:
    oracle = Counting()
    twice = np.concatenate([ARCHS[:3], ARCHS[:3]])
    assert (CachedOracle(oracle, SPACE, tmp_path / "answers", "me")(twice) == truth(twice)).all()
    assert sorted(oracle.queried) == sorted(NAMES[:3])


@pytest.mark.parametrize("other", ["oracle", "space"])
def test_cache_of_another_oracle_or_space_is_refused_before_any_query(tmp_path: Path, other: str) -> None:
    path = tmp_path / "answers"
    CachedOracle(Counting(), SPACE, path, "me")(ARCHS[:2])
    space = ChoiceSpace("another", [4] * 12) if other == "space" else SPACE
    oracle = Counting()
    with pytest.raises(UserError, match="answers holds records of other parameters"):
        CachedOracle(oracle, space, path, "me" if other == "space" else "you")(ARCHS)
    assert oracle.queried == []
    assert (CachedOracle(oracle, SPACE, path, "me")(ARCHS[:2]) == truth(ARCHS[:2])).all()
    assert oracle.queried == []


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_truncated_record_is_evaluated_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "answers"
    CachedOracle(Counting(), SPACE, path, "me")(ARCHS)
    path.write_bytes(path.read_bytes()[:-cut])
    oracle = Counting()
    assert (CachedOracle(oracle, SPACE, path, "me")(ARCHS) == truth(ARCHS)).all()
    assert oracle.queried == [NAMES[-1]]


def test_changed_value_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    CachedOracle(Counting(), SPACE, path, "me")(ARCHS)
    text = path.read_text()
    value = f'"value": {truth(ARCHS)[5]}'
    assert value in text
    path.write_text(text.replace(value, '"value": 99.5', 1))
    with pytest.raises(DamagedFile, match="line"):
        CachedOracle(Counting(), SPACE, path, "me")(ARCHS)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_cached_values_are_exact(tmp_path: Path, values: list[float]) -> None:
    path = tmp_path / "answers"
    path.unlink(missing_ok=True)
    archs, expected = ARCHS[: len(values)], np.array(values)
    first = CachedOracle(lambda a: expected, SPACE, path, "me")(archs)
    cached = CachedOracle(Counting(fails_at=0), SPACE, path, "me")(archs)
    assert first.tobytes() == cached.tobytes() == expected.tobytes()


def test_incomplete_line_of_a_stopped_program_is_ignored(program: Write, tmp_path: Path) -> None:
    text = "import sys, time\nprint(1)\nprint(2)\nprint('3', end='', flush=True)\ntime.sleep(300)\n"
    with pytest.raises(OracleFailed, match="took longer than 2 s") as caught:
        program(text, 2)(ARCHS)
    assert caught.value.completed == (1.0, 2.0)


def test_daemon_left_by_a_program_is_not_waited_for(program: Write) -> None:
    """A process in another session can't be found and killed, and keeps the inherited files open."""
    daemon = "import subprocess\nsubprocess.Popen(['sleep', '30'], start_new_session=True)\n"
    started = time.monotonic()
    assert (program(daemon + SUM)(ARCHS) == truth(ARCHS)).all()
    assert time.monotonic() - started < 10


def test_network_without_a_value_is_not_evaluated_again(program: Write, tmp_path: Path) -> None:
    text = f"import sys\nfor line in sys.stdin:\n    print('failed' if line.strip() == {NAMES[12]!r} else 7)\n"
    path = tmp_path / "answers"
    found = CachedOracle(program(text), SPACE, path, "me", 10)(ARCHS)
    assert np.isnan(found[12])
    assert (np.delete(found, 12) == 7).all()
    again = CachedOracle(Counting(fails_at=0), SPACE, path, "me")(ARCHS)
    assert again.tobytes() == found.tobytes()


def test_function_with_an_infinite_value_caches_nothing_of_its_batch(tmp_path: Path) -> None:
    bad = np.inf

    def oracle(archs: Archs) -> FloatArray:
        return np.where(SPACE.key(archs) == SPACE.key(ARCHS[12:13]), bad, truth(archs))

    path = tmp_path / "answers"
    with pytest.raises(LissnasError, match=f"returned {bad} for {NAMES[12]}"):
        CachedOracle(oracle, SPACE, path, "me", 10)(ARCHS)
    second = Counting()
    CachedOracle(second, SPACE, path, "me", 10)(ARCHS)
    assert second.queried == NAMES[10:]


HOLD = """
import sys, time
from pathlib import Path
from lissnas.spaces import ChoiceSpace
from lissnas.oracles.cache import CachedOracle
import numpy as np
space = ChoiceSpace("made_up", [4] * 12)
def slow(archs):
    print("queried", flush=True)
    time.sleep(60)
CachedOracle(slow, space, Path(sys.argv[1]), "me")(space.sample(2, np.random.default_rng(0)))
"""


def test_cache_is_locked_until_its_process_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "answers"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "queried\n"
        oracle = Counting()
        with pytest.raises(UserError, match=f"is being written by process {other.pid}"):
            CachedOracle(oracle, SPACE, path, "me")(ARCHS)
        assert oracle.queried == []
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        if other.stdout is not None:
            other.stdout.close()
    assert (CachedOracle(Counting(), SPACE, path, "me")(ARCHS) == truth(ARCHS)).all()


def test_folder_instead_of_a_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir()
    with pytest.raises(LissnasError, match="answers"):
        CachedOracle(Counting(), SPACE, tmp_path / "answers", "me")(ARCHS)


# -- scorers ---------------------------------------------------------------------------------------
def model(path: Path, features: Features, **settings: Any) -> Path:
    target = np.random.default_rng(0).integers(0, 3, len(features))
    xgb.train({"nthread": 1, **settings}, xgb.DMatrix(features, target), 4).save_model(path)
    return path


@pytest.mark.parametrize("end", ["ubj", "json"])
def test_model_scores_the_features_of_the_space(tmp_path: Path, end: str) -> None:
    path = model(tmp_path / f"m.{end}", SPACE.encode(ARCHS))
    scorer = model_scorer(path, SPACE)
    booster = xgb.Booster(model_file=path)
    scores = scorer.score(ARCHS)
    assert (scores == booster.inplace_predict(SPACE.encode(ARCHS))).all()
    assert scores.dtype == np.float64
    assert len(np.unique(scores)) > 5
    assert (scorer.value(scores) == scores).all()


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("m.pkl", b"\x80\x04", "ends in .ubj or .json"),
        ("m.bin", b"binf", "ends in .ubj or .json"),
        ("m.ubj", None, "expected an XGBoost model"),
        ("m.json", b"", "is not an XGBoost model"),
        ("m.json", b"{}", "is not an XGBoost model"),
        ("m.json", b'{"learner": 1}', "is not an XGBoost model"),
        ("m.ubj", b"\x00" * 100, "is not an XGBoost model"),
        ("m.ubj", b"garbage", "is not an XGBoost model"),
    ],
)
def test_invalid_model_file_is_refused(tmp_path: Path, name: str, data: bytes | None, why: str) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UserError, match=why) as caught:
        model_scorer(path, SPACE)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_truncated_model_is_refused(tmp_path: Path, part: float) -> None:
    path = model(tmp_path / "m.ubj", SPACE.encode(ARCHS))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UserError, match="is not an XGBoost model"):
        model_scorer(path, SPACE)


def test_model_of_another_space_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "m.ubj", SPACE.encode(ARCHS)[:, 1:])
    with pytest.raises(UserError, match=f"reads {SPACE.n_features - 1} features, made_up has {SPACE.n_features}"):
        model_scorer(path, SPACE)


def test_classifier_is_refused(tmp_path: Path) -> None:
    path = model(tmp_path / "m.ubj", SPACE.encode(ARCHS), objective="multi:softprob", num_class=3)
    with pytest.raises(LissnasError):
        model_scorer(path, SPACE).score(ARCHS)


def test_model_scores_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = model_scorer(model(tmp_path / "m.ubj", SPACE.encode(ARCHS)), SPACE)
    sizes, plain = [0], ChoiceSpace.encode

    def encode(self: ChoiceSpace, archs: Archs) -> Features:
        sizes.append(len(archs))
        return plain(self, archs)

    monkeypatch.setattr(ChoiceSpace, "encode", encode)
    assert len(scorer.score(SPACE.sample(300_000, np.random.default_rng(0)))) == 300_000
    assert max(sizes) <= 1 << 17


def direct(values: Callable[[Archs], FloatArray], target: int = 500) -> Problem:
    return problem_of(SPACE, target, scorer=values)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.0])
def test_constant_or_infinite_scores_are_refused(value: float) -> None:
    with pytest.raises(LissnasError):
        shrink(direct(lambda archs: np.full(len(archs), value)))


def test_scores_with_nan_are_refused_or_left_out() -> None:
    def values(archs: Archs) -> FloatArray:
        return np.where(SPACE.key(archs) % np.uint64(7) == 0, np.nan, truth(archs))

    try:
        result = shrink(direct(values))
    except LissnasError:
        return
    assert np.isfinite(truth(result.subspace.members)).all()
    assert (SPACE.key(result.subspace.members) % np.uint64(7) != 0).all()


@pytest.mark.parametrize("shape", [(1,), (2,)])
def test_scores_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(LissnasError, match="shape"):
        shrink(direct(lambda archs: np.zeros((len(archs), *shape))))


def test_every_network_is_scored_once() -> None:
    scored: list[int] = []

    def values(archs: Archs) -> FloatArray:
        scored.extend(SPACE.key(archs).tolist())
        return truth(archs) + SPACE.key(archs) % np.uint64(97) / 97

    result = shrink(direct(values))
    assert len(scored) == len(set(scored)) == result.state.queries
    assert result.state.n_labels == 0
    assert truth(result.subspace.members).mean() > 18 + 3 * 3.9
