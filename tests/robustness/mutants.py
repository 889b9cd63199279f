"""Mutation testing of the core: each mutant is run against the tests of `make test` that cover its line or file.

python -m tests.robustness --name mutants     (or `make study NAME=mutants`)

cosmic-ray creates the mutants of studies/results/mutants.csv. They are located by operator and text of their line, so
that the same mutants are tested after the code has moved.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher, get_close_matches
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from lissnas.artifacts import Journal
from lissnas.cli import render
from lissnas.core.errors import LissnasError
from studies.run import RESULTS, WORK, Rows, table

ROOT = Path(__file__).parents[2]
CORE = ("lissnas/spaces", "lissnas/artifacts", "lissnas/shrinkers")
MAX_SECONDS = (30.0, 15.0)
"""Total seconds of tests that cover a mutant's line, and of others that cover its file; the fastest run first."""
TIMEOUT_SECONDS = 200.0
"""Seconds, including imports, after which the tests of a mutant count as hanging."""
MIN_SIMILARITY = 0.7
"""Similarity of two lines, 0 to 1, above which they count as the same line after an edit."""
MAX_MEMORY = 8 << 20
"""KiB of address space for the tests of a mutant: a mutated size may be huge."""


@dataclass(frozen=True)
class Mutant:
    """A mutant of cosmic-ray: an operator at one of its occurrences in a file."""

    file: str
    operator: str
    occurrence: int
    line: int


def mutants() -> tuple[Rows, str]:
    """Test mutants of the committed core; skip those that were tested on the same commit."""
    work, before = (WORK / "mutants").absolute(), list(csv.DictReader((RESULTS / "mutants.csv").open()))
    roots, free = [work / f"project-{i}" for i in range(os.cpu_count() or 1)], SimpleQueue[Path]()
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)  # a killed run leaves a mutant there
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        free.put(root)

    def run(mutant: Mutant, names: Sequence[str]) -> dict[str, Any]:
        root = free.get()
        try:
            return run_mutant(root, mutant, names)
        finally:
            free.put(root)

    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with (
        Journal.opened(work / "mutants.jsonl", commit) as journal,
        ThreadPoolExecutor(len(roots)) as pool,
        render.lines("changing") as line,
    ):
        coverage, found = LineCoverage(roots[0], work), relocated(roots[0], before)
        done = {(row["file"], row["operator"], row["occurrence"]) for row in journal.records}
        left = [m for m in found if (m.file, m.operator, m.occurrence) not in done]
        for row in pool.map(run, left, [coverage.tests(m) for m in left]):
            journal.append(row)
            line(f"{len(journal.records)}/{len(found)} {row['file']}:{row['line']} {row['outcome']}")
        rows = sorted(journal.records, key=itemgetter("file", "line", "operator", "occurrence"))
    return rows, mutants_page(rows)


def changed(diff: str) -> list[str]:
    """Return the removed and added lines of a diff, with their signs."""
    return [line for line in diff.splitlines() if line[:1] in ("+", "-") and line[:3] not in ("+++", "---")]


def relocated(root: Path, rows: Iterable[Mapping[str, Any]], core: Sequence[str] = CORE) -> list[Mutant]:
    """Return the mutants of an earlier study's rows at their current positions; omit those whose line is gone."""
    from cosmic_ray.commands.init import init
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db

    codes = {path: path.read_text() for name in core for path in (sorted((root / name).rglob("*.py")) or [root / name])}
    with use_db(":memory:", WorkDB.Mode.create) as work:
        init(list(codes), work, {})
        specs = [item.mutations[0] for item in work.work_items]
    places: dict[str, dict[str, list[Any]]] = {}
    for spec in specs:
        line = codes[spec.module_path].splitlines()[spec.start_pos[0] - 1].strip()
        places.setdefault(spec.operator_name, {}).setdefault(line, []).append(spec)

    def similarity(spec: Any, row: Mapping[str, Any]) -> float:
        code = codes[spec.module_path]
        mutated = str(mutate_code(code, get_operator(spec.operator_name)(), spec.occurrence)).splitlines()
        line = mutated[min(spec.start_pos[0], len(mutated)) - 1].strip()
        added = next((text[1:].strip() for text in changed(row["diff"]) if text[0] == "+"), "")
        names = SequenceMatcher(None, row["file"], str(spec.module_path.relative_to(root))).ratio()
        return SequenceMatcher(None, line, added).ratio() + names / 100

    found = []
    for row in rows:
        lines = places.get(row["operator"], {})
        if near := get_close_matches(changed(row["diff"])[0][1:].strip(), lines, 1, MIN_SIMILARITY):
            spec = max(lines[near[0]], key=lambda one: similarity(one, row))
            lines[near[0]].remove(spec)
            if not lines[near[0]]:
                del lines[near[0]]
            file = str(spec.module_path.relative_to(root))
            found.append(Mutant(file, spec.operator_name, spec.occurrence, spec.start_pos[0]))
    return found


class LineCoverage:
    """Tests of `make test` that cover a line, from one run of them in `root` with a coverage context for each test."""

    def __init__(self, root: Path, work: Path, tests: Sequence[str] = ("-n", "auto", "--dist", "loadfile")) -> None:
        from coverage.numbits import register_sqlite_functions

        lines, times = work / "lines.db", work / "times.xml"
        if not times.exists():
            words = [*tests, "--cov=.", "--cov-context=test", "--cov-report=", "-p", "tests.clear_caches"]
            given = {**os.environ, "PYTHONPATH": f"{root}:{ROOT}", "OMP_NUM_THREADS": "1", "COVERAGE_FILE": str(lines)}
            report = [f"--junitxml={times}.running", "-o", "junit_family=xunit1"]
            done = subprocess.run([sys.executable, "-m", "pytest", *words, *report], cwd=root, env=given)
            if done.returncode:
                raise LissnasError(f"the tests end with code {done.returncode} without any mutant")
            Path(f"{times}.running").rename(times)
        cases = ET.parse(times).iter("testcase")
        self._seconds = {(case.get("classname"), case.get("name")): float(case.get("time", 0)) for case in cases}
        self._root, self._lines = root, sqlite3.connect(lines)
        register_sqlite_functions(self._lines)

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that cover a mutant's line, then others that cover its file (imports are in no context)."""
        query = (
            "select distinct context.context from line_bits join file on file.id = file_id "
            "join context on context.id = context_id where file.path = ? and context.context != ''"
        )
        path, chosen = str(self._root / mutant.file), list[str]()
        of_line = self._lines.execute(f"{query} and num_in_numbits(?, numbits)", (path, mutant.line)).fetchall()
        for found, limit in zip((of_line, self._lines.execute(query, (path,)).fetchall()), MAX_SECONDS, strict=True):
            spent = 0.0
            names = {text.rpartition("|")[0] for (text,) in found} - {*chosen}  # names of cases may contain |
            for seconds, name in sorted((self._time(name), name) for name in names):
                if not spent or spent + seconds <= limit:
                    chosen.append(name)
                    spent += seconds
        return chosen

    def _time(self, name: str) -> float:
        file, _, test = name.partition(".py::")
        *classes, case = test.split("::")
        return self._seconds.get((".".join([file.replace("/", "."), *classes]), case), 0.0)


def run_mutant(root: Path, mutant: Mutant, names: Sequence[str]) -> dict[str, Any]:
    """Run tests on a mutant of the project in `root`; return its row with the outcome."""
    from cosmic_ray.mutating import mutate_and_test
    from cosmic_ray.work_item import MutationSpec

    row = {**asdict(mutant), "tests": len(names)}
    if not names:
        return {**row, "outcome": "survived", "code": 0, "diff": "no test runs it"}
    (root / ".names").write_text("\n".join(names))
    run = f"{shlex.quote(sys.executable)} -m pytest -x -p no:xdist -p no:cacheprovider @.names > .output 2>&1"
    script = f"ulimit -v {MAX_MEMORY}; export PYTHONPATH=$PWD OMP_NUM_THREADS=1; {run}; code=$?; echo $code; exit $code"
    command = shlex.join(["sh", "-c", f"cd {shlex.quote(str(root))}; {script}"])
    at = (mutant.line, 0), (mutant.line, 1)
    spec = MutationSpec(root / mutant.file, mutant.operator, mutant.occurrence, *at)
    result = mutate_and_test([spec], command, TIMEOUT_SECONDS)
    if result.test_outcome is None or result.diff is None:
        raise LissnasError(f"{mutant} can't be created: {result.output}")
    code = None if result.output == "timeout" else int(result.output)
    if "ERROR: not found: " in (output := (root / ".output").read_text(errors="replace")):  # it would count as noticed
        raise LissnasError(f"missing tests: {output[-1000:]}")
    diff = "\n".join(changed(result.diff))
    return {**row, "outcome": result.test_outcome.value, "code": code, "diff": diff}


def mutants_page(rows: Rows) -> str:
    """Return the page of the study: a row for each file, and the surviving mutants."""
    cells = []
    for name in [*sorted({r["file"] for r in rows}), "all"]:
        of_file = [r for r in rows if name in ("all", r["file"])]
        noticed = sum(r["outcome"] != "survived" for r in of_file)
        share = f"{100 * noticed / len(of_file):.0f} %"
        cells.append({"file": name, "mutants": str(len(of_file)), "noticed": str(noticed), "share": share})
    lines = ["Each mutant is run against tests of `make test` that cover its line or file.", "", table(cells)]
    for row in (row for row in rows if row["outcome"] == "survived"):
        lines += ["", f"`{row['file']}:{row['line']}`, {row['operator']}, {row['tests']} tests:", ""]
        lines += ["```diff", row["diff"], "```"]
    return "\n".join(lines)
