"""User-defined programs as oracles, and models and functions as scorers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from lissnas.core.errors import LissnasError, UserError
from lissnas.oracles.command import CommandOracle
from lissnas.oracles.program import OracleFailed
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

    def write(text: str, limit: float | None = 30.0) -> CommandOracle:
        path = tmp_path / "oracle.py"
        path.write_text(text)
        return CommandOracle.parse(SPACE, f"{sys.executable} '{path}'", limit)

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
        ("", "answered 0 lines for BATCH"),
        (SUM + "print()", "printed '' in line 41 of its output, after the answers for all 40 architectures"),
        (SUM + "print('done')", "printed 'done' in line 41 of its output, after the answers for all 40"),
        ("print(1)", "answered 1 lines for BATCH"),
        (SUM + "sys.exit('out of memory\\n on the GPU')", "code 1 on BATCH: out of memory on the GPU$"),
        (SUM + "raise KeyError('x')", "code 1 on BATCH: .*KeyError: 'x'$"),
        (SUM + "sys.stdout.flush()\nimport os\nos._exit(3)", "code 3 on BATCH: no message$"),
        (SUM + "sys.stdout.flush()\nimport os\nos.kill(os.getpid(), 9)", "code -9 on BATCH"),
        ("import sys\nfor i in range(20):\n    sys.stdin.readline()\n    print(1)\nsys.exit(1)", "code 1 on BATCH"),
        ("import sys\nfor i in range(20):\n    sys.stdin.readline()\n    print(1)\n", "answered 20 lines for BATCH"),
        (
            "print('no GPU')\nraise SystemExit(4)",
            "code 4 on BATCH: no message .it answered 'no GPU' in line 1 of its out",
        ),
    ],
)
def test_error_names_the_batch_or_the_line(program: Write, text: str, why: str) -> None:
    batch = f"the batch of 40 from {NAMES[0]} to {NAMES[-1]}"
    with pytest.raises(OracleFailed, match=why.replace("BATCH", batch)) as caught:
        program(text)(ARCHS)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "answer",
    ["nan", "inf", "-inf", "1e999", "", " ", "91.2 %", "84%", "1,5", "ok", "None", "1 2", "0x10", "\xff", "acc: 91.2"],
)
def test_invalid_number_is_reported_with_its_line_and_architecture(program: Write, answer: str) -> None:
    text = f"import sys\nfor i, line in enumerate(sys.stdin):\n    print({answer!r} if i == 7 else i)\n"
    with pytest.raises(
        OracleFailed, match=f"in line 8 of its output, for {NAMES[7]}; expected a finite number"
    ) as caught:
        program(text)(ARCHS)
    assert repr(answer.strip()) in str(caught.value)
    assert "to standard error" in str(caught.value)


def test_program_is_stopped_soon_after_an_invalid_line(program: Write, tmp_path: Path) -> None:
    text = "import sys, time\nprint('Loading dataset...')\ntime.sleep(60)\n"
    started = time.monotonic()
    with pytest.raises(OracleFailed, match=r"'Loading dataset\.\.\.' in line 1"):
        program(text)(ARCHS)
    assert time.monotonic() - started < 20


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
    with pytest.raises(OracleFailed, match=rf"took longer than 2 s for {NAMES[0]}, number 1 of the batch of 40 from"):
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


def test_daemon_left_by_a_program_is_not_waited_for(program: Write) -> None:
    """A process in another session can't be found and killed, and keeps the inherited files open."""
    daemon = "import subprocess\nsubprocess.Popen(['sleep', '30'], start_new_session=True)\n"
    started = time.monotonic()
    assert (program(daemon + SUM)(ARCHS) == truth(ARCHS)).all()
    assert time.monotonic() - started < 10


def test_endless_output_is_stopped(program: Write) -> None:
    text = "import time\nwhile True:\n    print('1\\n' * 1_000, flush=True)\n    time.sleep(0.05)\n"
    started = time.monotonic()
    with pytest.raises(OracleFailed):
        program(text, 4)(ARCHS)
    assert time.monotonic() - started < 3.5


@pytest.mark.parametrize("limit", [None, np.inf])
def test_no_time_limit(program: Write, limit: float | None) -> None:
    assert (program(SUM, limit)(ARCHS) == truth(ARCHS)).all()


SLOW = "import sys, time\nfor line in sys.stdin:\n    time.sleep(0.4)\n    print(sum(map(int, line.strip())))\n"


def test_time_limit_counts_one_architecture(program: Write) -> None:
    """Eight of .4 s take longer than the limit together. Nothing is flushed: the program runs unbuffered."""
    started = time.monotonic()
    assert (program(SLOW, 2.5)(ARCHS[:8]) == truth(ARCHS[:8])).all()
    assert time.monotonic() - started > 2.5


def test_program_that_hangs_after_its_last_answer_is_stopped_and_its_answers_count(program: Write) -> None:
    assert (program(SUM + "sys.stdout.flush()\nimport time\ntime.sleep(60)\n", 2)(ARCHS) == truth(ARCHS)).all()


# -- parsing the command ---------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "   ", "'unclosed", "no-such-program-of-anybody --x", "./nowhere", "/", "'a b'"])
def test_missing_program_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").write_text("#!/bin/sh\n")  # not executable
    with pytest.raises(UserError, match="--oracle-command") as caught:
        CommandOracle.parse(SPACE, text, 1)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("./a.py", r"./a.py is not executable: chmod \+x ./a.py, or start it with its interpreter: python ./a.py$"),
        ("a.py", "a.py is not on PATH. For the file in this folder: python a.py$"),
        ("./folder", "./folder is a folder"),
        ("./b.py", "there is no program ./b.py .in /"),
        ("no-such-program", "there is no program no-such-program on PATH$"),
        (
            "CUDA_VISIBLE_DEVICES=0 python a.py",
            "sets variables. Let env set them: env CUDA_VISIBLE_DEVICES=0 python a.py$",
        ),
        ("cat | python a.py", r"'\|' is for a shell, .*: bash -c 'cat \| python a.py'$"),
        ("cd folder && python a.py", "'&&' is for a shell"),
        ("source env/bin/activate; python a.py", "';' is for a shell"),
        ("python a.py > log", "'>' is for a shell"),
        ("python a.py 2>> log", "'2>>' is for a shell"),
        ("python a.py 2>&1", "'2>&' is for a shell"),
        ("python a.py < names", "'<' is for a shell"),
        ("python a.py &", "'&' is for a shell"),
        ("python $HOME/a.py", "'[$]H' is for a shell"),
        ("python ${HOME}/a.py", "'[$]{' is for a shell"),
        ("python $(ls *.py)", "'[$][(]' is for a shell"),
        ("python `ls *.py`", "'`' is for a shell"),
        ("python ~/a.py", "'~' is for a shell"),
    ],
)
def test_command_that_cannot_be_started_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text("print(1)\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"^--oracle-command: .*{why}"):
        CommandOracle.parse(SPACE, text)


@pytest.mark.parametrize(
    "text",
    [
        "bash -c 'while read line; do echo $((1 + 2)) | cat; done'",
        'bash -c "while read line; do echo 3 2>&1; done"',
        "env A=1 bash -c 'while read line; do echo 3; done'",
        r"bash -c while\ read\ line\;\ do\ echo\ 3\;\ done",
    ],
)
def test_shell_that_is_named_is_started(text: str) -> None:
    assert (CommandOracle.parse(SPACE, text, 30)(ARCHS) == 3).all()


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


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("echo 1\n", "first line must name the interpreter"),
        ("#!/no/such/interpreter\n", "the interpreter that its first"),
    ],
    ids=["no shebang", "no interpreter"],
)
def test_program_that_cannot_be_started_is_named(tmp_path: Path, text: str, why: str) -> None:
    path = script(tmp_path / "oracle", text)
    with pytest.raises(OracleFailed, match=f"oracle does not start: .*{why}"):
        CommandOracle.parse(SPACE, str(path), 5)(ARCHS)


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
