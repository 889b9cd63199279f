"""The study of the tests: small changes of the core's code, each of which a test has to notice.

python -m tests.robustness --name mutants     (or `make study NAME=mutants`)

cosmic-ray makes the changes. Each is tried on a copy of the project, by those tests alone that run the changed line.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from tempfile import NamedTemporaryFile
from typing import Any

from lissnas.artifacts.journal import add_to, rows_in
from lissnas.core.errors import LissnasError
from lissnas.core.rng import stream

CORE = (
    "lissnas/spaces",
    "lissnas/artifacts",
    *("lissnas/shrinkers/lissnas.py", "lissnas/shrinkers/selection.py", "lissnas/shrinkers/state.py"),
)
"""Spaces and their keys, the reducer, subspaces, the store."""
UNITS = (
    *("anynetx", "balls", "cell", "cover", "declared", "diversity", "huge_spaces", "labels", "large_shrinks", "parts"),
    *("quality", "remote", "rules", "samplers", "shrink", "sources"),
)
INPUTS = (
    "test_names_that_are_no_architecture",
    "test_every_part_of_a_declaration",
    "test_declarations_that_are_wrong_as_a_whole",
)
TESTS = (
    "tests/conformance",
    "tests/golden",
    *(f"tests/unit/test_{name}.py" for name in UNITS),
    "tests/unit/test_nets.py::test_full_size_networks_cost_what_the_space_says",
    *(f"tests/faults/test_bad_input.py::{name}" for name in INPUTS),
    "tests/faults/test_damage.py",
    "tests/faults/test_limits.py",
)
"""Tests of the core, that run it within their own process."""
SLOW = (
    "tests/unit/test_cell.py::test_key_equality_is_isomorphism_on_100_000_pairs",
    "tests/unit/test_remote.py::test_a_result_goes_there_and_is_found_again",
    "tests/faults/test_damage.py::test_every_damage_is_found_before_use",
    "tests/faults/test_limits.py::test_two_at_once_one_works_the_other_says_who_holds_the_lock",
)
"""Those of them that take longer than any mutant's tests may."""
MUTANTS = 300
SECONDS = 30.0
"""Of tests of a mutant's line, the fastest first: what they take where nothing is changed."""
OTHERS = 15.0
"""Of tests of the rest of its file."""
COPIED = (
    "lissnas",
    "flows",
    "studies",
    "tests",
    "infra",
    "docs",
    "pyproject.toml",
    "params.yaml",
    "README.md",
    "Makefile",
)


@dataclass(frozen=True)
class Mutant:
    """A change that cosmic-ray makes: its operator's so-and-so-many place in a file."""

    file: str
    operator: str
    occurrence: int
    line: int
    column: int


def mutants(root: Path, count: int, seed: int = 0, core: Sequence[str] = CORE) -> list[Mutant]:
    """Return so many mutants of the core, drawn uniformly from all but those that change an annotation's text."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.work_db import WorkDB, use_db

    files = [path for name in core for path in (sorted((root / name).rglob("*.py")) or [root / name])]
    unread = {str(p): _annotations(p) for p in files}
    with use_db(":memory:", WorkDB.Mode.create) as work:
        init(files, work, {})
        specs = [item.mutations[0] for item in work.work_items]
    found = sorted(
        (str(s.module_path.relative_to(root)), s.operator_name, s.occurrence, *s.start_pos)
        for s in specs
        if not any(first <= s.start_pos < last for first, last in unread[str(s.module_path)])
    )
    chosen = stream(seed, "mutants").choice(len(found), min(count, len(found)), replace=False)
    return [Mutant(*found[i]) for i in sorted(chosen)]


def _annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where a file has annotations, which nothing evaluates: first and last place of each."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        for text in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(text, ast.expr):
                assert text.end_lineno is not None
                assert text.end_col_offset is not None
                found.append(((text.lineno, text.col_offset), (text.end_lineno, text.end_col_offset)))
    return found


class Tests:
    """Which tests run a line, and how long each takes, from one run of all of them."""

    def __init__(self, root: Path, work: Path) -> None:
        from coverage.numbits import register_sqlite_functions

        lines, times = work / "lines.db", work / "times.xml"
        if not times.exists():
            self._run(root, lines, work / "times.running.xml")
            (work / "times.running.xml").rename(times)
        self._seconds = {
            f"{case.get('classname', '')}::{case.get('name')}": float(case.get("time", 0.0))
            for case in ET.parse(times).iter("testcase")
        }
        self._root, self._lines = root, sqlite3.connect(lines)
        register_sqlite_functions(self._lines)

    def _run(self, root: Path, lines: Path, times: Path) -> None:
        options = [
            "--cov=lissnas",
            "--cov-context=test",
            "--cov-report=",
            f"--junitxml={times}",
            "-o",
            "junit_family=xunit1",
            "-p",
            "tests.forgetful",
            *(f"--deselect={name}" for name in SLOW),
        ]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "loadfile", *options, *TESTS],
            cwd=root,
            env=_environment(root, COVERAGE_FILE=str(lines)),
        )
        if done.returncode:
            raise LissnasError(f"the tests end with code {done.returncode} before anything is changed")

    def of(self, mutant: Mutant) -> tuple[list[str], float]:
        """Return the tests that run a line, then others that run anything in its file, and the seconds that they take.

        The others since what is made when a file is imported is made before all tests.
        """
        query = (
            "select distinct context.context from line_bits join file on file.id = file_id "
            "join context on context.id = context_id where file.path = ? and context.context != ''"
        )
        path = str(self._root / mutant.file)
        own = self._lines.execute(f"{query} and num_in_numbits(?, numbits)", (path, mutant.line)).fetchall()
        chosen: list[str] = []
        total = 0.0
        for found, most in ((own, SECONDS), (self._lines.execute(query, (path,)).fetchall(), OTHERS)):
            names = {text.rpartition("|")[0] for (text,) in found}.difference(chosen)  # names of cases may have a |
            spent = 0.0
            for seconds, name in self._one_of_each_first(names):
                if not spent or spent + seconds <= most:
                    chosen.append(name)
                    spent += seconds
            total += spent
        return chosen, total

    def _one_of_each_first(self, names: Iterable[str]) -> list[tuple[float, str]]:
        """Return seconds and names: the fastest case of each test, the fastest first, then each one's next."""
        cases: dict[str, list[tuple[float, str]]] = {}
        for name in names:
            cases.setdefault(name.partition("[")[0], []).append((self._time(name), name))
        ranked = [(rank, case) for own in cases.values() for rank, case in enumerate(sorted(own))]
        return [case for _, case in sorted(ranked)]

    def _time(self, name: str) -> float:
        file, *classes, test = name.split("::")
        return self._seconds.get(f"{'.'.join([file.removesuffix('.py').replace('/', '.'), *classes])}::{test}", 0.0)


def _environment(root: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **more}


def mutants_study(work: Path, on_mutant: Callable[[str], None], count: int = MUTANTS) -> list[dict[str, Any]]:
    """Return a row for each mutant; those of an earlier run are kept, and so is the project as it was then."""
    work = work.absolute()
    kept, journal = work / "kept", work / "mutants.jsonl"
    if not kept.exists():
        shutil.rmtree(work, ignore_errors=True)
        _copy(Path(__file__).parents[2], work / "making")
        (work / "making").rename(kept)
    roots = [work / f"project-{i}" for i in range(os.cpu_count() or 1)]
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)  # whoever was killed left a mutant there
        _copy(kept, root)
    rows = rows_in(journal)
    done = {(row["file"], row["operator"], row["occurrence"]) for row in rows}
    tests = Tests(roots[0], work)
    left = [m for m in mutants(roots[0], count) if (m.file, m.operator, m.occurrence) not in done]
    chosen = {mutant: tests.of(mutant) for mutant in left}
    check_tests(roots[0], sorted({name for names, _ in chosen.values() for name in names}))
    free: SimpleQueue[Trier] = SimpleQueue()

    def tried(mutant: Mutant, names: Sequence[str], seconds: float) -> dict[str, Any]:
        own = free.get()
        try:
            return own(mutant, names, seconds)
        finally:
            free.put(own)

    with ExitStack() as triers, ThreadPoolExecutor(len(roots)) as pool:
        for root in roots:
            free.put(triers.enter_context(trier(root)))
        try:
            for one in as_completed([pool.submit(tried, m, *own) for m, own in chosen.items()]):
                rows.append(one.result())
                add_to(journal, rows[-1])
                on_mutant(f"{len(rows)}/{count} {rows[-1]['file']}:{rows[-1]['line']} {rows[-1]['outcome']}")
        finally:
            pool.shutdown(cancel_futures=True)
    return sorted(rows, key=lambda row: (row["file"], row["line"], row["operator"], row["occurrence"]))


def check_tests(root: Path, names: Sequence[str]) -> None:
    """Raise where a test has another name than coverage says: pytest would end with an error, as if it had noticed."""
    if not names:  # pytest would collect all
        return
    with NamedTemporaryFile("w", suffix=".txt") as listed:
        listed.write("\n".join(names))
        listed.flush()
        command = [sys.executable, "-m", "pytest", "--collect-only", "-qq", "-p", "no:xdist", f"@{listed.name}"]
        done = subprocess.run(command, cwd=root, env=_environment(root), capture_output=True, text=True)
    if done.returncode:
        raise LissnasError(f"tests that are not there: {(done.stderr or done.stdout)[-1000:]}")


def _copy(source: Path, target: Path) -> None:
    for name in COPIED:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (source / name).is_dir() else shutil.copy2)(source / name, place)


Trier = Callable[[Mutant, Sequence[str], float], dict[str, Any]]


@contextmanager
def trier(root: Path) -> Iterator[Trier]:
    """Give a function that returns what tests, which take so many seconds, make of a mutant of the project in `root`.

    Its rows say `killed` or `survived`, and with which code the tests ended, none where they did not end.
    """
    with subprocess.Popen(
        [sys.executable, "-P", str(Path(__file__).with_name("mutant_worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=root,
        env=_environment(root),
        text=True,
        start_new_session=True,  # an interruption is the study's: the file that is changed gets its text back
    ) as process:
        told, answers = process.stdin, process.stdout
        assert told is not None
        assert answers is not None

        def tried(mutant: Mutant, names: Sequence[str], seconds: float) -> dict[str, Any]:
            row: dict[str, Any] = {**vars(mutant), "tests": len(names)}
            if not names:
                return {**row, "outcome": "survived", "code": 0, "diff": "no test runs it"}
            asked = {**vars(mutant), "tests": names, "seconds": 30.0 + 3.0 * seconds}
            print(json.dumps(asked), file=told, flush=True)
            if not (answer := answers.readline()):
                raise LissnasError(f"{mutant} ended the process that tries mutants")
            return {**row, **json.loads(answer)}

        yield tried


def mutants_page(rows: Sequence[Mapping[str, Any]], made_by: str) -> str:
    """Return a Markdown table, a row a file, and the mutants that no test noticed."""
    lines = [
        f"{made_by} A random sample of cosmic-ray's mutants of the core; each is tried by the tests that run its line,",
        f"the fastest first, {SECONDS:g} s of them at most, and by {OTHERS:g} s of others of its file. One that no",
        "longer ends, or ends the process, is noticed.",
        "",
        "| file | mutants | noticed | share |",
        "|---|---|---|---|",
    ]
    for name in [*sorted({r["file"] for r in rows}), ""]:
        own = [r for r in rows if name in ("", r["file"])]
        noticed = sum(r["outcome"] != "survived" for r in own)
        lines.append(f"| {name or 'all'} | {len(own)} | {noticed} | {100 * noticed / len(own):.0f} % |")
    for row in rows:
        if row["outcome"] == "survived":
            changed = [c for c in row["diff"].splitlines() if c[:1] in "+-" and c[:3] not in ("+++", "---")]
            lines += ["", f"`{row['file']}:{row['line']}`, {row['operator']}, {row['tests']} tests:", "", "```diff"]
            lines += [*(changed or [row["diff"]]), "```"]
    return "\n".join(lines) + "\n"
