"""Stored answers of programs: whatever ends a batch, no answer that was printed is requested twice."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lissnas.artifacts import journal
from lissnas.core.errors import DamagedFile, LissnasError, UserError
from lissnas.oracles.cache import CachedOracle, batch_of
from lissnas.oracles.command import CommandOracle, file_digests
from lissnas.oracles.label_collection import Attempt, LabelLog
from lissnas.oracles.program import OracleFailed
from lissnas.oracles.reuse import Reuse
from lissnas.spaces import ChoiceSpace, Space
from lissnas.spaces.declared.space import parse_space
from tests import labelling_program

YAML = labelling_program.SPACE
SPACE = parse_space(YAML, "space.yaml")
ARCHS = SPACE.sample_distinct(40, np.random.default_rng(0))
NAMES = SPACE.format(ARCHS)
lines = labelling_program.names


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def oracle(
    before: str = "pass",
    batch: int = 64,
    limit: float | None = 30.0,
    space: Space = SPACE,
    text: str = "python train.py",
    **reuse: Any,
) -> CachedOracle:
    """Return the oracle of one run; the program runs `before` ahead of each answer."""
    labelling_program.write(before)
    command = CommandOracle(space, [sys.executable, "-S", "train.py"], limit)
    return CachedOracle(command, text, Path(".out.answers"), Reuse(**reuse), batch)


def values(names: list[str] = NAMES) -> list[float]:
    return [labelling_program.value(name) for name in names]


# -- what ends a batch -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "why"),
    [
        ("if i == 7: value = 'nan'", "answered 'nan' in line 8"),
        ("if i == 7: value = ''", "answered '' in line 8"),
        ("if i == 7: value = '84%'", "answered '84%' in line 8"),
        ("if i == 7: value = 'None'", "answered 'None' in line 8"),
        ("if i == 7: print('epoch 1')", "answered 'epoch 1' in line 8"),
        ("if i == 7: sys.exit(0)", "answered 7 lines for the batch of 40"),
        ("if i == 7: sys.exit(3)", "exited with code 3"),
        ("if i == 7: os.kill(os.getpid(), 9)", "exited with code -9"),
        ("if i == 7: print(9, end='', flush=True); os._exit(1)", "exited with code 1"),
        ("if i == 7: print(9, end='', flush=True); time.sleep(60)", "took longer than 2 s"),
        ("if i == 7: time.sleep(60)", "took longer than 2 s"),
        ("if i == 7: print('x' * 100_000)", "printed more than 41,984 bytes"),
        ("if i == 7: print('x' * 100_000, flush=True); os._exit(0)", "printed more than 41,984 bytes"),
    ],
)
def test_answers_before_the_fault_are_kept(before: str, why: str) -> None:
    with pytest.raises(OracleFailed, match=why) as caught:
        oracle(before, limit=2)(ARCHS)
    assert "7 answers of this batch are stored in .out.answers" in str(caught.value)
    Path("requested").unlink()
    assert oracle()(ARCHS).tolist() == values()
    assert lines("requested") == NAMES[7:]
    assert not batch_of(Path(".out.answers")).exists()


def test_too_many_lines_keep_the_answers() -> None:
    with pytest.raises(OracleFailed, match=r"printed 'done' in line 41 .* 40 answers of this batch are stored"):
        oracle("if i == 39: print(value); value = 'done'")(ARCHS)
    again = oracle("sys.exit(9)")
    assert again(ARCHS).tolist() == values()
    assert again.reuse.note().startswith("40 of 40 labels are from .out.answers")


def test_answers_are_stored_as_they_arrive() -> None:
    """The program waits until its earlier answers are in the journal."""
    wait = """
    until = time.monotonic() + 20
    while open('.out.answers').read().count('value') < i and time.monotonic() < until: time.sleep(.01)
    if time.monotonic() >= until: sys.exit('the answers are not stored')
    """
    assert oracle(wait.strip())(ARCHS[:5]).tolist() == values(NAMES[:5])


def test_full_disk_loses_no_printed_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    append = journal.Journal.append

    def full(self: journal.Journal, *records: Any) -> None:
        if len(self.records) > 5:
            raise OSError(28, "No space left on device")
        append(self, *records)

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "append", full)
        with pytest.raises(OSError, match="No space"):
            oracle("time.sleep(.05)")(ARCHS)
    printed = lines("printed")
    assert len(printed) > 5
    Path("requested").unlink()
    assert oracle()(ARCHS).tolist() == values()
    assert not {*printed} & {*lines("requested")}


def start(before: str, batch: int = 64) -> BaseProcess:
    """Start a run in a fork of this process, which costs no imports."""

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            oracle(before, batch)(ARCHS)
        except (OracleFailed, KeyboardInterrupt):
            os._exit(1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    child.start()
    return child


def interrupt(how: str, after: int, batch: int) -> int | None:
    """Start a run, and interrupt it once `after` more answers were printed; return its exit code."""
    before, number = labelling_program.ENDS[how]
    there = len(lines("printed"))
    run = start(before.replace("AFTER", str(after)), batch)
    labelling_program.end(run, lambda: len(lines("printed")) >= there + after, number)
    return run.exitcode


def interrupt_at_random(seed: int) -> Counter[str]:
    """Interrupt runs in each way, then finish; return how many were interrupted in which way."""
    for name in (".out.answers", "requested", "printed"):
        Path(name).unlink(missing_ok=True)
    rng, done = np.random.default_rng(seed), Counter[str]()
    for how in map(str, rng.permutation(list(labelling_program.ENDS))):
        done[how] += interrupt(how, int(rng.integers(0, 8)), int(rng.choice([3, 8, 64]))) != 0
    printed = lines("printed")
    assert len(printed) == len({*printed})
    Path("requested").unlink(missing_ok=True)
    assert oracle()(ARCHS).tolist() == values()
    assert not {*printed} & {*lines("requested")}
    return done


@pytest.mark.parametrize("seed", range(2))
def test_interrupted_runs_request_no_printed_answer_twice(seed: int) -> None:
    assert interrupt_at_random(seed).total()


@pytest.mark.faults
def test_a_hundred_interruptions_request_no_printed_answer_twice() -> None:
    done, seed = Counter[str](), 100
    while done.total() < 100:
        done += interrupt_at_random(seed)
        seed += 1
    print(dict(done))
    assert done.keys() == labelling_program.ENDS.keys()


def test_program_stops_with_a_killed_run() -> None:
    """Also its children: a program that goes on would train what the next run requests."""
    run = start("os.system('echo $PPID >> pids; sleep 30 & echo $! >> pids; wait') if i == 3 else 0")
    until = time.monotonic() + 60
    while len(lines("pids")) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    run.kill()
    run.join()
    pids = lines("pids")
    assert len(pids) == 2
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(alive, pids))


def alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_output_of_a_killed_run_is_read_up_to_its_first_invalid_or_incomplete_line() -> None:
    run = oracle()
    run(ARCHS[:1])
    header = f'{{"about": {{"space": "mine"}}, "names": {NAMES[:4]}}}'.replace("'", '"')
    for output, kept in (("1\n2\nx\n4\n", 2), ("1\n2\n3", 2), ("", 0), ("1\n2\n3\n4\n5\n6\n", 4), ("\n1\n", 0)):
        Path(".out.answers").unlink(missing_ok=True)
        batch_of(run.path).write_text(f"{header}\n{output}")
        oracle()(ARCHS[:0])
        with LabelLog.opened(run.path, {"space": "mine"}) as log:
            found = [(name, log.value(name)) for name in log.attempts]
        assert found == list(zip(NAMES, range(1, kept + 1), strict=False))
        assert not batch_of(run.path).exists()


@pytest.mark.parametrize("header", ["", '{"about', '{"about": {}, "names": ["1|'])
def test_output_file_without_its_header_is_dropped(header: str) -> None:
    batch_of(Path(".out.answers")).write_text(header)
    assert oracle()(ARCHS).tolist() == values()


@pytest.mark.parametrize("text", ["mine", "[1, 2]\n3\n", '{"names": []}\n'])
def test_file_of_the_user_is_not_taken_for_output(text: str) -> None:
    batch_of(Path(".out.answers")).write_text(text)
    with pytest.raises(UserError, match=r"\.out\.answers\.batch is not a file of lissnas"):
        oracle()(ARCHS)
    assert batch_of(Path(".out.answers")).read_text() == text


# -- failures ----------------------------------------------------------------------------------------
FAILS = f"value = 'failed' if name == {NAMES[12]!r} else value"


def test_failure_is_requested_once_in_a_run_and_again_in_the_next() -> None:
    first = oracle(FAILS, batch=10)
    for _ in range(3):
        assert np.isnan(first(ARCHS)).nonzero()[0].tolist() == [12]
    assert lines("requested") == NAMES
    kept = oracle("sys.exit(9)", keep_failed=True)
    assert np.isnan(kept(ARCHS)).nonzero()[0].tolist() == [12]
    notes: list[str] = []
    again = oracle(say=notes.append)
    assert again(ARCHS).tolist() == values()
    assert lines("requested") == [*NAMES, NAMES[12]]
    assert again.reuse.note().startswith("39 of 40 labels")
    assert len(notes) == 1
    assert notes[0].startswith("Note: .out.answers has 1 failed label, requested again when needed")


def test_failure_of_two_runs_is_requested_once_in_each() -> None:
    for _ in range(3):
        run = oracle(FAILS)
        assert np.isnan(run(ARCHS)[12])
        assert np.isnan(run(ARCHS)[12])
    assert lines("requested").count(NAMES[12]) == 3


# -- other declarations, programs and settings -----------------------------------------------------------
REORDERED = YAML.replace("name: a,", "name: b_,").replace("name: b,", "name: a,").replace("b_", "b")
CHANGES = {
    "positions reordered": (REORDERED, False),
    "position renamed": (YAML.replace("name: a,", "name: depth,"), False),
    "position added": (YAML + "  - {name: d, choices: [u, v]}\n", False),
    "metric renamed": (YAML.replace("name: acc", "name: latency_ms"), False),
    "name of the space": (YAML.replace("name: mine", "name: yours"), False),
    "direction flipped": (YAML.replace("maximize", "minimize"), True),
    "constraint added": (YAML + "constraints:\n  - {if: {a: '1'}, then: {b: ['1', '2']}}\n", True),
    "choice added": (YAML.replace("[x, y, z]", "[w, x, y, z]"), True),
    "cost added": (YAML + "costs: {flops: {a: {'1': 1, '2': 2, '3': 3, '4': 4, '5': 5}}}\n", True),
    "comment added": ("# mine\n" + YAML, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_answers_belong_to_the_meaning_of_names(change: str) -> None:
    """The program's numbers are stored with its sign, so that another direction needs no new ones."""
    text, same = CHANGES[change]
    oracle()(ARCHS)
    space = parse_space(text, "space.yaml")
    rows = space.sample_distinct(40, np.random.default_rng(1))
    names = space.format(rows)
    Path("requested").unlink()
    notes: list[str] = []
    oracle(space=space, say=notes.append)(rows)
    assert {*lines("requested")} == ({*names} - {*NAMES} if same else {*names})
    assert bool(notes) != same
    if not same:
        assert notes[0].startswith("Note: .out.answers has 40 labels that this run does not use: ")
        assert re.search(r"changed\. --reuse-answers uses them; to drop them, delete .out.answers\.$", notes[0])
    Path("requested").unlink()
    oracle()(ARCHS)  # the answers of the first declaration are still there
    assert lines("requested") == []


def test_answers_of_another_command_are_left_or_adopted() -> None:
    oracle("value += 1", text="python old.py")(ARCHS[:20])
    notes: list[str] = []
    assert oracle(say=notes.append)(ARCHS[10:]).tolist() == values()[10:]
    assert "has 20 labels that this run does not use: the command of the program changed. --reuse" in notes[0]
    Path("requested").unlink()
    adopting = oracle(adopt=True)
    expected = [v + (i < 10) for i, v in enumerate(values())]  # its own answers come first
    assert adopting(ARCHS).tolist() == expected
    assert oracle("sys.exit(9)")(ARCHS).tolist() == expected  # adopted for good
    assert lines("requested") == []


def test_password_in_a_command_is_neither_stored_nor_compared() -> None:
    oracle(text="python train.py --url http://me:abcd12345@host/")(ARCHS[:5])
    assert "abcd12345" not in Path(".out.answers").read_text()
    oracle("sys.exit(9)", text="python train.py --url http://me:other99999@host/")(ARCHS[:5])


def test_answers_of_an_earlier_version_are_left_or_adopted() -> None:
    with journal.Journal.opened(Path(".out.answers"), {"oracle": "command python train.py", "space": "mine"}) as old:
        old.append({"arch": NAMES[0], "value": 7.0, "error": None, "seconds": None})
    notes: list[str] = []
    assert oracle(say=notes.append)(ARCHS[1:]).tolist() == values()[1:]
    assert "has 1 label that this run does not use: stored by an earlier version of lissnas. --reuse" in notes[0]
    assert oracle(adopt=True)(ARCHS).tolist() == [7.0, *values()[1:]]


def test_force_requests_everything_again_once_a_run() -> None:
    oracle("value = 1 + i % 2")(ARCHS)
    Path("requested").unlink()
    forced = oracle(force=True, batch=10)
    assert forced(ARCHS[:20]).tolist() == values()[:20]
    assert forced(ARCHS).tolist() == values()
    assert lines("requested") == NAMES
    assert forced.reuse.note() == ""
    assert oracle("sys.exit(9)")(ARCHS).tolist() == values()
    assert oracle(adopt=True)(ARCHS).tolist() == values()


def test_interrupted_force_is_resumed_without_force() -> None:
    oracle("value = 1")(ARCHS)
    with pytest.raises(OracleFailed):
        oracle("if i == 30: sys.exit(1)", force=True)(ARCHS)
    Path("requested").unlink()
    assert oracle()(ARCHS).tolist() == values()
    assert lines("requested") == NAMES[30:]


# -- the file ----------------------------------------------------------------------------------------
def test_failed_batch_keeps_the_batches_before_it() -> None:
    with pytest.raises(OracleFailed, match=re.escape(f"batch of 8 from {NAMES[16]} to {NAMES[23]}")):
        oracle(f"if name == {NAMES[16]!r}: sys.exit(1)", batch=8)(ARCHS)
    Path("requested").unlink()
    assert oracle(batch=8)(ARCHS).tolist() == values()
    assert lines("requested") == NAMES[16:]
    assert oracle("sys.exit(9)")(ARCHS[::-1]).tolist() == values()[::-1]


def test_duplicates_within_a_batch_are_evaluated_once() -> None:
    assert oracle()(np.concatenate([ARCHS[:3], ARCHS[:3]])).tolist() == values()[:3] * 2
    assert lines("requested") == NAMES[:3]


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_truncated_record_is_evaluated_again(cut: int) -> None:
    run = oracle()
    run(ARCHS)
    run.path.write_bytes(run.path.read_bytes()[:-cut])
    Path("requested").unlink()
    assert oracle()(ARCHS).tolist() == values()
    assert lines("requested") == NAMES[-1:]


def test_changed_value_is_detected() -> None:
    run = oracle()
    run(ARCHS)
    text, value = run.path.read_text(), f'"value": {values()[5]}'
    assert value in text
    run.path.write_text(text.replace(value, '"value": 99.5', 1))
    with pytest.raises(DamagedFile, match="line"):
        oracle()(ARCHS)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stored_values_are_exact(numbers: list[float]) -> None:
    run = oracle("sys.exit(9)", keep_failed=True)
    run.path.unlink(missing_ok=True)
    with LabelLog.opened(run.path, run.about) as log:
        log.append(*(Attempt(name, value, None, None) for name, value in zip(NAMES, numbers, strict=False)))
    assert run(ARCHS[: len(numbers)]).tobytes() == np.array(numbers).tobytes()


def test_log_is_locked_until_its_process_is_killed() -> None:
    run = start("time.sleep(60)")
    until = time.monotonic() + 60
    while not lines("requested") and time.monotonic() < until:
        time.sleep(0.02)
    try:
        with pytest.raises(UserError, match=f"is being written by process {run.pid}"):
            oracle()(ARCHS)
    finally:
        run.kill()
        run.join()
    assert oracle()(ARCHS).tolist() == values()


def test_folder_instead_of_a_log_is_refused() -> None:
    Path(".out.answers").mkdir()
    with pytest.raises(LissnasError, match="answers"):
        oracle()(ARCHS)


def test_space_that_is_not_declared_is_bound_by_its_name() -> None:
    plain = ChoiceSpace("made_up", [4] * 12)
    rows = plain.sample_distinct(5, np.random.default_rng(0))
    command = CommandOracle(plain, [sys.executable, "-c", "import sys\nfor line in sys.stdin: print(3)"], 30.0)
    assert CachedOracle(command, "python", Path(".out.answers"))(rows).tolist() == [3.0] * 5
    notes: list[str] = []
    other = CachedOracle(
        CommandOracle(ChoiceSpace("another", [4] * 12), command.command, 30.0),
        "python",
        Path(".out.answers"),
        Reuse(say=notes.append),
    )
    other(rows)
    assert "the space changed" in notes[0]


# -- content of the program ----------------------------------------------------------------------------
def test_answers_of_a_changed_program_are_not_used_silently() -> None:
    oracle("value += 1")(ARCHS[:20])
    program = Path("train.py").read_text()
    for changed in (program + "# fixed\n", program):
        notes: list[str] = []
        labelling_program.write()
        run = oracle(say=notes.append)
        Path("train.py").write_text(changed)
        Path("requested").unlink()
        expected = values()
        if changed == program:  # the first version is back, and its answers with it
            expected[:20] = [value + 1 for value in expected[:20]]
        assert run(ARCHS).tolist() == expected
        assert lines("requested") == (NAMES[20:] if changed == program else NAMES)
        assert "has 20 labels that this run does not use: the content of the program changed" in notes[0]
        assert notes[0].endswith("--reuse-answers uses them; to drop them, delete .out.answers.")


def test_a_program_that_is_changed_while_it_runs_stays_the_same_for_the_run() -> None:
    change = "open('train.py', 'a').write('# changed')"
    run = oracle(change, batch=10)
    assert run(ARCHS).tolist() == values()
    assert run(ARCHS).tolist() == values()
    assert lines("requested") == NAMES


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("python train.py", ["train.py"]),
        ("python -u ./train.py --config=conf.yaml --log=log.txt", ["./train.py", "conf.yaml"]),
        ("./good a.csv", ["./good"]),
        ("python -m pkg.train", ["pkg/train.py"]),
        ("""bash -c "CUDA_VISIBLE_DEVICES=0 python train.py | tail -1" """, ["train.py"]),
        ("python large.py pkg missing.py", []),
        ("python 'unclosed", []),
        ("python " + "x" * 5000 + " a\0b", []),
    ],
)
def test_scripts_and_configurations_of_a_command_are_its_content(text: str, files: list[str]) -> None:
    Path("pkg").mkdir()
    for name in ("train.py", "conf.yaml", "log.txt", "a.csv", "pkg/train.py"):
        Path(name).write_text(name)
    Path("good").write_text("#!/bin/sh\n")
    Path("large.py").write_bytes(bytes(2 << 20))
    found = file_digests(text)
    assert [*found] == files
    for name in files:
        Path(name).write_text("#! changed")
    changed = file_digests(text)
    assert [*changed] == files
    assert all(changed[name] != found[name] for name in files)
