"""Label tables: averaged, skipped and negated labels, and problems reported by file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lissnas import spaces
from lissnas.core.errors import ConfigError
from lissnas.oracles.label_table import Labels, read_labels, write_rows
from lissnas.spaces import Space
from lissnas.spaces.declared import parse_space

SPACE = parse_space(
    """\
name: s
metric: {name: acc, direction: maximize}
positions:
  - {name: op1, choices: [no, "1", 1.0, conv]}
  - {name: op2, choices: [no, "1", 1.0, conv]}
  - {name: width, choices: [16, 32, 64]}
  - {name: depth, choices: [2, 3]}
constraints:
  - {forbid: {op1: conv, op2: conv}}
inactive:
  - {when: {depth: 2}, positions: [width]}
equivalent:
  - {exchange: [[op1], [op2]]}
""",
    "space.yaml",
)
LATENCY = parse_space(
    "name: s\nmetric: {name: ms, direction: minimize}\npositions:\n"
    "  - {name: a, choices: [1, 2, 3, 4, 5]}\n  - {name: b, choices: [1, 2, 3, 4, 5]}\n",
    "space.yaml",
)
HEADER = "op1,op2,width,depth,acc"


def lines(n: int = 24) -> list[str]:
    """Return a valid file: a header in line 1, then `n` different networks with different values."""
    text = write_rows(SPACE, SPACE.enumerate()[:n]).decode().splitlines()
    return [text[0], *(f"{row}{60 + i / 4}" for i, row in enumerate(text[1:]))]


def read(tmp_path: Path, rows: list[str], space: Space = SPACE, metric: str | None = None) -> Labels:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(rows) + "\n")
    return read_labels(path, space, metric)


def problems(tmp_path: Path, rows: list[str], space: Space = SPACE, metric: str | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, rows, space, metric)
    assert caught.value.exit_code == 2
    assert caught.value.source == str(tmp_path / "labels.csv")
    return caught.value.problems


def test_networks_values_and_repeats_are_read(tmp_path: Path) -> None:
    labels = read(tmp_path, lines())
    assert (labels.archs == SPACE.enumerate()[:24]).all()
    assert labels.values.tolist() == [60 + i / 4 for i in range(24)]
    assert labels.repeats.tolist() == [1] * 24
    assert (labels.metric, {why: len(archs) for why, archs in labels.unlabelled.items()}, labels.negated) == (
        "acc",
        {"empty": 0, "failed": 0},
        False,
    )
    assert labels.describe() == "24 networks with acc from 24 rows"


def test_equivalent_forms_of_a_network_are_averaged(tmp_path: Path) -> None:
    """Forms with exchanged groups or another choice at an inactive position are one network."""
    rows = [*lines(), "no,conv,16,2,50", "conv,no,64,2,60", "conv,no,32,2,1"]
    labels = read(tmp_path, rows)
    (at,) = np.flatnonzero(SPACE.key(labels.archs) == SPACE.key(SPACE.parse(["no|conv|16|2"])))
    others = [60 + i / 4 for i, row in enumerate(lines()[1:]) if row.startswith("no,conv,16,2")]
    assert labels.repeats[at] == 3 + len(others)
    assert labels.values[at] == pytest.approx(np.mean([50, 60, 1, *others]))
    assert "the mean of several" in labels.describe()


def test_empty_metrics_and_failed_trainings_are_skipped_and_counted(tmp_path: Path) -> None:
    rows = [f"{HEADER},status", *(row + ",ok" for row in lines()[1:])]
    rows[3] = rows[3].rpartition(",ok")[0].rpartition(",")[0] + ",,"
    rows[5] = rows[5].rpartition(",ok")[0].rpartition(",")[0] + ",diverged,failed"
    rows[6] = rows[6].replace(",ok", ",Failed")
    labels = read(tmp_path, rows)
    assert len(labels.archs) == 21
    assert {why: len(archs) for why, archs in labels.unlabelled.items()} == {"empty": 1, "failed": 2}
    assert "1 rows empty; 2 rows failed" in labels.describe()


def test_minimized_metric_is_negated(tmp_path: Path) -> None:
    text = write_rows(LATENCY, LATENCY.enumerate()).decode().splitlines()
    rows = [text[0], *(f"{row}{i}.5" for i, row in enumerate(text[1:]))]
    labels = read(tmp_path, rows, LATENCY)
    assert labels.negated
    assert labels.values.tolist() == [-(i + 0.5) for i in range(25)]
    assert labels.measured.tolist() == [i + 0.5 for i in range(25)]


@pytest.mark.parametrize("space", [SPACE, LATENCY, spaces.get("nasbench101"), spaces.get("nas_bench_macro")])
def test_suggested_rows_can_be_read_back_as_labels(tmp_path: Path, space: Space) -> None:
    rows = space.sample_distinct(25, np.random.default_rng(0))
    text = write_rows(space, rows).decode().splitlines()
    assert len(problems(tmp_path, text, space)) == 1
    filled = [text[0], *(f"{row}{i}" for i, row in enumerate(text[1:]))]
    labels = read(tmp_path, filled, space)
    assert set(space.key(labels.archs).tolist()) == set(space.key(rows).tolist())


def test_architectures_in_one_column_are_read(tmp_path: Path) -> None:
    rows = ["acc,arch", *(f"{i},{name}" for i, name in enumerate(SPACE.format(SPACE.enumerate()[:22])))]
    assert (read(tmp_path, rows).archs == SPACE.enumerate()[:22]).all()
    rows[4], rows[9] = "3,no|no|16", "8,no|n0|17|3"
    found = problems(tmp_path, rows)
    assert [p.partition(" ")[0] for p in found] == ["labels.csv:5:", "labels.csv:10:", "labels.csv:10:"]
    assert "expected 4 choices joined by '|', found 3" in found[0]
    assert "unknown choice of op2 'n0'. Did you mean 'no'?" in found[1]


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    text = [row.split(",") for row in lines()]
    columns = {name: [row[i] for row in text[1:]] for i, name in enumerate(text[0])}
    values: list[float | None] = [float(x) for x in columns["acc"]]
    table = {**columns, "depth": [int(x) for x in columns["depth"]], "acc": values}
    path = tmp_path / "labels.parquet"
    pq.write_table(pa.table(table), path)
    labels = read_labels(path, SPACE)
    assert (labels.archs == SPACE.enumerate()[:24]).all()
    assert labels.values.tolist() == [60 + i / 4 for i in range(24)]

    pq.write_table(pa.table({**table, "op1": ["nope", *columns["op1"][1:]], "acc": [None, np.inf, *values[2:]]}), path)
    with pytest.raises(ConfigError) as caught:
        read_labels(path, SPACE)
    assert [p.partition(": ")[0] for p in caught.value.problems] == ["labels.parquet:row 1", "labels.parquet:row 2"]
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(ConfigError, match="not parquet"):
        read_labels(path, SPACE)


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    rows = lines()
    rows[2] = "no,no,16,7,61"
    rows[4] = "cnv,0,16,2,61"
    rows[6] = "conv,conv,16,2,61"
    rows[8] = rows[8].rpartition(",")[0] + ",high"
    rows[9] = rows[9].rpartition(",")[0] + ",inf"
    rows[10] = rows[10].rpartition(",")[0] + ",1e999"
    rows[11] = rows[11].rpartition(",")[0] + ",1e31"
    rows[12] = rows[12].rpartition(",")[0] + ",61 %"
    rows[13] = rows[13].rpartition(",")[0]
    rows[14] += ",5"
    found = problems(tmp_path, rows)
    expected = [
        (3, "unknown choice of depth '7'"),
        (5, "unknown choice of op1 'cnv'. Did you mean 'conv'?"),
        (5, "unknown choice of op2 '0'"),
        (7, "breaks the constraint of line 9"),
        (9, "acc 'high' is no number"),
        (10, "acc 'inf' is not finite"),
        (11, "acc '1e999' is not finite"),
        (12, "acc 1e+31 is too large"),
        (13, "acc '61 %' has a percent sign, other rows have none"),
        (14, "4 cells, where the header has 5"),
        (15, "6 cells, where the header has 5"),
    ]
    rest = [p for p in found if "usable rows" not in p]
    assert len(rest) == len(expected)
    for problem, (line, what) in zip(rest, expected, strict=True):
        assert problem.startswith(f"labels.csv:{line}: ")
        assert what in problem


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], ["labels.csv:1: the file is empty"]),
        ([HEADER], ["labels.csv:1: the file has no rows"]),
        ([row.rpartition(",")[0] for row in lines()], ["labels.csv:1: the column 'acc', the metric, is missing"]),
        (
            [row.partition(",")[2] for row in lines()],
            ["labels.csv:1: the column 'op1' is missing; found op2, width, depth, acc"],
        ),
        (
            ["acc", *map(str, range(30))],
            ["labels.csv:1: neither a column for each position (op1, op2, width, depth) nor 'arch'"],
        ),
        (
            ["op1,op1,op2,width,depth,acc", *(f"no,{row}" for row in lines()[1:])],
            ["labels.csv:1: duplicate column 'op1'"],
        ),
        (lines(19), ["labels.csv:1: 19 networks with a label in 19 usable rows, at least 20 are needed"]),
        (
            [*lines(19), *(["no,no,16,2,"] * 3)],
            ["labels.csv:1: 19 networks with a label in 19 usable rows (3 empty), at least 20 are needed"],
        ),
        ([*lines(19), *lines(19)[1:]], ["labels.csv:1: 19 networks with a label in 38 usable rows"]),
        (
            [row.rpartition(",")[0] + ",5" if i else row for i, row in enumerate(lines())],
            ["labels.csv:1: acc is 5 for all"],
        ),
        ([*lines(), '"no,no'], ["labels.csv:26: not CSV: unexpected end of data"]),
    ],
)
def test_invalid_file_is_refused(tmp_path: Path, rows: list[str], expected: list[str]) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(rows))
    with pytest.raises(ConfigError) as caught:
        read_labels(path, SPACE)
    assert len(caught.value.problems) == len(expected)
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(start)


def test_metric_column_is_found_or_its_absence_reported(tmp_path: Path) -> None:
    space = spaces.get("nas_bench_macro")
    names = space.format(space.sample_distinct(25, np.random.default_rng(0)))
    one = ["arch,top1", *(f"{name},{i}" for i, name in enumerate(names))]
    assert read(tmp_path, one, space).metric == "top1"
    two = ["arch,top1,top5", *(f"{name},{i},{i + 5}" for i, name in enumerate(names))]
    assert problems(tmp_path, two, space) == [
        "labels.csv:1: the columns top1, top5 could be the metric; name one of them"
    ]
    assert sorted(read(tmp_path, two, space, "top5").values.tolist()) == [i + 5 for i in range(25)]
    assert "Did you mean 'top5'" in problems(tmp_path, two, space, "tp5")[0]
    none = ["arch", *names]
    assert problems(tmp_path, none, space) == ["labels.csv:1: no column holds a metric; found arch"]
    wide = [f"note,{HEADER}", *(f"again,{row}" for row in lines()[1:])]
    assert read(tmp_path, wide).metric == "acc"
    assert "'note'" in problems(tmp_path, wide, SPACE, "not")[0]


def test_more_than_twenty_problems_are_counted(tmp_path: Path) -> None:
    rows = lines(40)
    wrong = [
        row.replace("no", "na").replace("conv", "cnv").replace("1.0", "1.00") if i else row
        for i, row in enumerate(rows)
    ]
    found = problems(tmp_path, wrong)
    assert len(found) == 21
    assert found[-1].startswith("and ")
    space = spaces.get("nas_bench_macro")
    macro = [
        "arch,acc",
        *(f"3{i:07d},{i}" for i in range(500)),
        *(f"{n},1" for n in space.format(space.enumerate()[:30])),
    ]
    found = problems(tmp_path, macro, space)
    assert found[0].startswith("labels.csv:2: position 0 is '3'")
    assert found[-1] == "and 480 more"


def test_unreadable_file_is_refused_and_byte_order_mark_skipped(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    with pytest.raises(ConfigError, match="no such file"):
        read_labels(path, SPACE)
    path.write_bytes(b"a,b\n1,2\n\xff,3\n")
    with pytest.raises(ConfigError, match=r"labels.csv:3: not UTF-8"):
        read_labels(path, SPACE)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines()).encode())
    assert len(read_labels(path, SPACE).archs) == 24
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.parquet"):
        read_labels(tmp_path / "labels.txt", SPACE)


@settings(max_examples=40)
@given(st.permutations(range(30)), st.lists(st.integers(0, 29), max_size=30))
def test_order_of_rows_does_not_change_labels(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], again: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    base = lines(30)
    rows = [*base[1:], *(base[1 + i].rpartition(",")[0] + f",{i / 7}" for i in again)]
    ordered = read(folder, [base[0], *rows])
    mixed = read(folder, [base[0], *(rows[i] for i in reversed(range(30, len(rows)))), *(rows[i] for i in order)])
    assert (ordered.archs == mixed.archs).all()
    assert ordered.values.tolist() == mixed.values.tolist()
    assert ordered.repeats.sum() == 30 + len(again)
