"""Write a page for each study from its committed results when the site is built.

MkDocs loads this file as a hook (mkdocs.yml). A page has the study's finding, computed from its table, the command, the
machine, the date, the picture if there is one, and what the study itself wrote to `studies/results`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any, TypeAlias

from lissnas import artifacts, benchmarks
from lissnas.shrinkers.comparison_summary import verdict_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results"
FOLDER = "results"
TABLES_ONLY = ("compare_ofa_edf",)
"""Tables without a page: data of another study's picture."""
NOT_RIVALS = ("lissnas", "lissnas_collect", "score_all")

Row: TypeAlias = dict[str, str]


@dataclass(frozen=True)
class StudyPage:
    """Title, finding and picture of the page of a study."""

    title: str
    finding: Callable[[Sequence[Row]], str]
    picture: tuple[str, str] | None = None
    """File in docs/pictures, and its alternative text."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the studies and their tables to the site; a hook of MkDocs."""
    from mkdocs.structure.files import File

    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    for table in sorted(RESULTS.glob("*.csv")):
        files.append(File.generated(config, f"{FOLDER}/{table.name}", abs_src_path=str(table)))
    return files


def pages() -> dict[str, str]:
    """Return the pages by path: one for each study, and an index."""
    made = {f"{FOLDER}/{name}.md": page(name) for name in STUDIES}
    rows = [f"| [{study.title}]({name}.md) | {study.finding(rows_of(name))} |" for name, study in STUDIES.items()]
    intro = (
        "# Results\n\nThis page lists the long experiments (studies) and the finding of each. Their results are "
        "committed in `studies/results`. `make study NAME=...` runs a study again and resumes after an interruption.\n"
    )
    return {f"{FOLDER}/index.md": "\n".join([intro, "| study | finding |", "| --- | --- |", *rows, ""])} | made


def page(name: str) -> str:
    """Return the page of one study."""
    study, text = STUDIES[name], (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    origin = re.match(r"Made by (`[^`]+`) on (.+?), (\d{4}-\d\d-\d\d)\.\s*", text)
    if origin is None:
        raise ValueError(f"{name}.md: the first line does not name command, machine and date. Run the study again.")
    command, machine, date = origin.groups()
    parts = [
        f"# {study.title}\n\n{study.finding(rows_of(name))}\n",
        f"| command | machine | date | table |\n| --- | --- | --- | --- |\n"
        f"| {command} | {machine} | {date} | [{name}.csv]({name}.csv) |\n",
    ]
    if study.picture is not None:
        parts.append(f"![{study.picture[1]}](../pictures/{study.picture[0]})\n")
    return "\n".join([*parts, text[origin.end() :]])


def readme_results() -> str:
    """Return the README's table of results and its sentences, made from the table of the comparison."""
    rows = artifacts.read_csv(RESULTS / "compare.csv")
    cells = []
    for name in dict.fromkeys(row["benchmark"] for row in rows):
        own = {row["method"]: row for row in rows if row["benchmark"] == name}
        table, ours, ceiling = benchmarks.get(name), own["lissnas"], own["score_all"]
        unit = " %" if "%" in table.metric else ""
        values = float(table.values.mean()), ours["mean_true"], ceiling["mean_true"]
        means = [f"{value:.2f}{unit}" if unit else f"{value:.4f}" for value in values]
        size = f"{len(table.values):,} to {ours['size']:,.0f}"
        kept = f"{ours['seeds'] * ours['kept_best']:.0f}/{ours['seeds']}"
        cells.append([name, size, *means, kept])
    columns = ["benchmark", "architectures", "full", "shrunk", "ceiling", "best kept"]
    return f"{artifacts.to_markdown(columns, cells)}\n\nOf the methods compared, {verdict_lines(rows)[0]}"


def rows_of(name: str) -> list[Row]:
    """Return the rows of a study's table."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# -- the findings ----------------------------------------------------------------------------------
def _groups(rows: Sequence[Row], *columns: str) -> Iterator[tuple[tuple[str, ...], list[Row]]]:
    keys = dict.fromkeys(tuple(row[column] for column in columns) for row in rows)
    for key in keys:
        yield key, [row for row in rows if tuple(row[column] for column in columns) == key]


def _mean(rows: Sequence[Row], column: str) -> float:
    return mean(float(row[column]) for row in rows)


def _large(size: str) -> str:
    return f"{float(size):.2g}".replace("e+", "e")


def _count(rows: Sequence[Row], column: str) -> int:
    return sum(row[column] == "true" for row in rows)


def _predictors(rows: Sequence[Row]) -> str:
    groups = {key: own for key, own in _groups(rows, "space", "labels") if int(key[1]) >= 300}
    behind = [max(_mean(own, "trees_tau"), _mean(own, "kernel_tau")) - _mean(own, "tau") for own in groups.values()]
    ahead = [_mean(own, "tau") - _mean(own, "trees_tau") for own in groups.values()]
    return (
        f"From 300 labels on, the stack's tau is at most {max(behind):.3f} behind its better member, on {len(groups)} "
        f"combinations of space and number of labels, and up to {max(ahead):.2f} ahead of the trees."
    )


def _shrink(rows: Sequence[Row]) -> str:
    elite = [row for row in rows if row["variant"] == "elite"]
    return (
        f"The default variant `elite` keeps the best network in {_count(elite, 'kept_best')} of {len(elite)} shrinks "
        f"of {len({row['benchmark'] for row in elite})} benchmarks, with at most "
        f"{max(int(row['labels']) for row in elite):,} labels each."
    )


def _compare(rows: Sequence[Row]) -> str:
    return verdict_lines(artifacts.read_csv(RESULTS / "compare.csv"))[0]


def _compare_ofa(rows: Sequence[Row]) -> str:
    ours = next(row for row in rows if row["method"] == "lissnas")
    nearest = max((row for row in rows if row["method"] not in NOT_RIVALS), key=lambda row: float(row["mean_true"]))
    return (
        f"Of {_large(ours['full_size'])} networks `lissnas` keeps {int(ours['size']):,} with a mean predicted accuracy "
        f"of {float(ours['mean_true']):.2f} %; the nearest listed rival (`{nearest['method']}`) reaches "
        f"{float(nearest['mean_true']):.2f} %, a uniform sample {float(ours['full_mean']):.2f} %."
    )


def _huge(rows: Sequence[Row]) -> str:
    minutes = [float(row["seconds"]) / 60 for row in rows]
    largest = max((row["full_size"] for row in rows), key=int)
    return (
        f"{len(rows)} spaces of up to {_large(largest)} architectures shrink on two cores in {min(minutes):.1f} to "
        f"{max(minutes):.1f} minutes, with at most {max(float(row['memory_gib']) for row in rows):.1f} GiB of memory."
    )


def _scaling(rows: Sequence[Row]) -> str:
    last = max(rows, key=lambda row: int(row["queries"]))
    return (
        f"Time and memory grow in proportion to the queries: {int(last['queries']) / 1e6:.1f} million take "
        f"{float(last['seconds']):.0f} s and {float(last['peak_mib']):,.0f} MiB."
    )


def _labels(rows: Sequence[Row]) -> str:
    collected = [row for row in rows if row["mode"] == "collected"]
    groups = _groups(collected, "benchmark", "budget")
    shares = {key: 100 * _mean(group, "gain") / _mean(group, "possible") for key, group in groups}
    few, many = ([share for (_, budget), share in shares.items() if budget == n] for n in ("100", "1000"))
    return (
        f"100 collected labels reach {min(few):.0f} to {max(few):.0f} % of the possible gain on {len(few)} benchmarks, "
        f"1,000 labels {min(many):.0f} to {max(many):.0f} %."
    )


def _packaged_labels(rows: Sequence[Row]) -> str:
    weak, strong = (choose(rows, key=lambda row: float(row["tau"])) for choose in (min, max))
    return (
        f"Labels from trainings of seconds teach a predictor something on `{strong['space']}` (tau "
        f"{float(strong['tau']):.2f}) and nothing on `{weak['space']}` (tau {float(weak['tau']):.2f})."
    )


def _locality(rows: Sequence[Row]) -> str:
    any_edit = [row for row in rows if row["change"] == "any"]
    near = [float(row["correlation"]) for row in any_edit if row["distance"] == "1"]
    falls = sum(
        all(float(a["correlation"]) > float(b["correlation"]) for a, b in pairwise(group))
        for _, group in _groups(any_edit, "benchmark")
    )
    return (
        f"Architectures at one edit have correlated values ({min(near):.2f} to {max(near):.2f}), and the "
        f"correlation falls with each further edit on {falls} of {len(near)} benchmarks."
    )


def _ranking(rows: Sequence[Row]) -> str:
    ours = {row["method"]: row for row in rows if row["benchmark"] == "nas_bench_macro" and row["sample"] == "ours"}
    tau = {name: float(ours[name]["kendall"]) for name in ("lissnas", "full")}
    return (
        f"On NAS-Bench-Macro a supernet of the shrunk space ranks networks of that space with a Kendall tau of "
        f"{tau['lissnas']:.3f}, a supernet of the full space with {tau['full']:.3f}."
    )


def _faults(rows: Sequence[Row]) -> str:
    return f"{_count(rows, 'equal')} of {len(rows)} commands killed at random finish after a restart with equal bytes."


def _races(rows: Sequence[Row]) -> str:
    return f"In {_count(rows, 'equal')} of {len(rows)} simultaneous starts one process did the work, with equal bytes."


def _soak(rows: Sequence[Row]) -> str:
    runs = next(row for row in rows if row["what"] == "flow runs")
    growth = ", ".join(f"{runs[f'{what}_growth']} more {what}" for what in ("files", "threads", "processes"))
    memory = 100 * float(runs["memory_growth"])
    return f"{runs['count']} flow runs in one process end with {growth}, and {memory:.1f} % more memory."


def _fuzz(rows: Sequence[Row]) -> str:
    harmful = sum(bool(row["harm"]) for row in rows)
    inputs = sum(int(row["inputs"]) for row in rows)
    return (
        f"{inputs:,} generated inputs to {len(rows)} readers: {harmful} readers crashed, hung or used too much memory."
    )


def _mutants(rows: Sequence[Row]) -> str:
    noticed = sum(row["outcome"] != "survived" for row in rows)
    return f"The tests notice {noticed} of {len(rows)} random one-place changes of the core's code."


STUDIES = {
    "shrink": StudyPage("Shrinks of all benchmarks", _shrink),
    "compare": StudyPage("Comparison of shrinkers", _compare),
    "compare_ofa": StudyPage("Comparison on Once-for-All MobileNetV3", _compare_ofa),
    "labels": StudyPage(
        "Label curve", _labels, ("label_curve.png", "Gain against the number of labels on nine benchmarks")
    ),
    "huge": StudyPage("Huge spaces", _huge),
    "scaling": StudyPage("Time and memory", _scaling, ("scaling.png", "Time and memory against the number of queries")),
    "packaged_labels": StudyPage("Packaged labels", _packaged_labels),
    "predictors": StudyPage("Predictors", _predictors),
    "locality": StudyPage("Locality", _locality),
    "ranking": StudyPage("Supernet ranking", _ranking),
    "faults": StudyPage("Killed commands", _faults),
    "races": StudyPage("Simultaneous starts", _races),
    "soak": StudyPage("Endurance", _soak),
    "fuzz": StudyPage("Fuzzing", _fuzz),
    "mutants": StudyPage("Mutation testing", _mutants),
}
