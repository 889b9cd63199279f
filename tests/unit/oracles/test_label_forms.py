"""Labels as people have them: each form is read to the same labels as plain CSV, or refused with its cause."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lissnas import spaces
from lissnas.core.errors import ConfigError, InvalidArchitecture, UserError
from lissnas.oracles.label_table import Labels, read_labels
from lissnas.spaces import Space
from lissnas.spaces.declared import parse_space
from lissnas.study import Study

TINY = parse_space(
    """\
name: tiny
metric: {name: acc, direction: maximize}
positions:
  - {name: a, choices: [1, 2, 3, 4, 5]}
  - {name: b, choices: [1, 2, 3, 4, 5]}
  - {name: c, choices: [x, y, z]}
""",
    "space.yaml",
)
RULES = parse_space(
    """\
name: rules
metric: {name: acc, direction: maximize}
positions:
  - {name: op, choices: [conv, pool, skip]}
  - {name: k, choices: [3, 5, 7]}
  - {name: rate, choices: [0.1, 0.01, 0.001]}
  - {name: se, choices: ["no", "yes"]}
constraints:
  - {forbid: {op: conv, k: 7}}
inactive:
  - {when: {op: [pool, skip]}, positions: [k]}
""",
    "space.yaml",
)
HEADER = "a,b,c,acc"
ROWS = [f"{a},{b},{c},{60 + 5 * a + b}.5" for a in range(1, 6) for b in range(1, 6) for c in "xz"]
PLAIN = "\n".join([HEADER, *ROWS]) + "\n"


def read(folder: Path, data: str | bytes, space: Space = TINY, name: str = "labels.csv") -> Labels:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_labels(path, space)


def refused(folder: Path, data: str | bytes, space: Space = TINY) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, data, space)
    return caught.value.problems


Form: TypeAlias = Literal["NFC", "NFD"]


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue().to_pybytes())


def changed(row: int, text: str) -> str:
    """Return the plain file with another row; the header is row 0."""
    lines = PLAIN.splitlines()
    lines[row] = text
    return "\n".join(lines) + "\n"


FORMS: dict[str, tuple[str | bytes, str]] = {
    "semicolons": (PLAIN.replace(",", ";"), "columns are separated by semicolons"),
    "tabs": (PLAIN.replace(",", "\t"), "columns are separated by tabs"),
    "bars": (PLAIN.replace(",", "|"), "columns are separated by vertical bars"),
    "a sep= line": ("sep=;\n" + PLAIN.replace(",", ";"), "columns are separated by semicolons"),
    "a sep= line with a strange character": ("sep=~\n" + PLAIN.replace(",", "~"), "columns are separated by '~'"),
    "decimal commas": (PLAIN.replace(",", ";").replace(".", ","), "acc has decimal commas"),
    "decimal commas in quotes": (
        "\n".join([HEADER, *(f'{r[:6]}"{r[6:].replace(".", ",")}"' for r in ROWS)]),
        "acc has decimal commas",
    ),
    "percent signs": (PLAIN.replace(".5\n", ".5%\n"), "percent signs of acc left out"),
    "percent signs after spaces": (PLAIN.replace(".5\n", ".5 %\n"), "percent signs of acc left out"),
    "decimal commas and percent": (PLAIN.replace(",", ";").replace(".5\n", ",5 %\n"), "acc has decimal commas"),
    "empty rows of a spreadsheet": (PLAIN + ",,,\n" * 3, ""),
    "empty rows between": (PLAIN.replace("\n2,", "\n,,,\n\n2,", 1), ""),
    "an empty column": ("\n".join(f"{line}," for line in PLAIN.splitlines()), ""),
    "a column of row numbers": ("\n".join(f"{i if i else ''},{r}" for i, r in enumerate(PLAIN.splitlines())), ""),
    "a second header": (PLAIN.replace("\n3,", f"\n{HEADER}\n3,", 1), "1 repeated header left out"),
    "two more headers": (PLAIN.replace("\n3,", f"\n{HEADER}\n{HEADER}\n3,", 1), "2 repeated headers left out"),
    "comments at first": ("# my labels\n#\n\n" + PLAIN, ""),
    "a comment between": (PLAIN.replace("\n3,", "\n# third, part\n3,", 1), "1 comment line left out"),
    "a comment as wide as a row": (PLAIN.replace("\n3,", "\n# 1,2,3,4\n3,", 1), "1 comment line left out"),
    "a byte order mark": ("\ufeff" + PLAIN, ""),
    "UTF-16": (PLAIN.encode("utf-16"), ""),
    "carriage returns": (PLAIN.replace("\n", "\r"), ""),
    "Windows": (PLAIN.replace("\n", "\r\n"), ""),
    "all quoted": ("\n".join(",".join(f'"{c}"' for c in line.split(",")) for line in PLAIN.splitlines()), ""),
    "numbers as 3.0": (PLAIN.replace("\n3,", "\n3.0,").replace(",4,", ",4.00,"), ""),
    "other case": (PLAIN.replace(HEADER, "A,B,C,Acc"), "regardless of case: A as a, B as b, C as c, Acc as acc"),
    "all finished": ("\n".join(f"{r},{'ok' if i else 'status'}" for i, r in enumerate(PLAIN.splitlines())), ""),
    "parquet as CSV": (
        parquet(**dict(zip(HEADER.split(","), zip(*(r.split(",") for r in ROWS), strict=True), strict=True))),
        "the file is parquet",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_is_read_as_plain_file(tmp_path: Path, form: str) -> None:
    data, note = FORMS[form]
    plain, labels = read(tmp_path, PLAIN), read(tmp_path, data)
    assert (labels.archs == plain.archs).all()
    assert labels.values.tolist() == plain.values.tolist()
    assert plain.notes == ()
    assert note in labels.describe()
    assert bool(labels.notes) == bool(note)


def thousands(form: str) -> str:
    return "\n".join([HEADER, *(f'{r[:6]}"{form.format(i=i)}"' for i, r in enumerate(ROWS))])


@pytest.mark.parametrize("form", ["1,234.{i:02}", "1.234,{i:02}", "1 234.{i:02}", "1\u202f234,{i:02}", "1'234.{i:02}"])
def test_separators_of_thousands_are_left_out(tmp_path: Path, form: str) -> None:
    labels = read(tmp_path, thousands(form))
    assert sorted(labels.values.tolist()) == pytest.approx([1234 + i / 100 for i in range(50)])
    assert "separators of thousands in acc left out" in labels.describe()


UNCERTAIN = {
    "a comma before three digits": (thousands("1,2{i:02}"), 2, "'1,200' can be read in two ways"),
    "one decimal comma": (changed(5, '1,3,x,"83,5"'), 6, "'83,5' has a comma; other rows have a decimal point"),
    "points and commas": (changed(5, '1,3,x,"1,234"'), 6, "'1,234' has a comma"),
    "one percent sign": (changed(5, "1,3,x,83%"), 6, "'83%' has a percent sign, other rows have none"),
    "a word": (changed(5, "1,3,x,high"), 6, "'high' is no number"),
    "infinity": (changed(5, "1,3,x,-inf"), 6, "'-inf' is not finite"),
    "the largest number": (changed(5, "1,3,x,1.7976931348623157e308"), 6, "acc 1.798e+308 is too large"),
    "the lowest number": (changed(5, "1,3,x,-1e308"), 6, "acc -1e+308 is too large"),
    "1e307": (changed(5, "1,3,x,1e307"), 6, "acc 1e+307 is too large"),
    "a short row": (changed(5, "1,3,x"), 6, "3 cells, where the header has 4"),
    "a long row after a comment": ("# c\n" + changed(5, "1,3,x,83,7"), 7, "5 cells, where the header has 4"),
    "a header of other columns": (changed(5, "a,b,acc"), 6, "a second header, of other columns (3 cells"),
    "a header in another order": (changed(5, "acc,a,b,c"), 6, "a second header, with the columns in another order"),
    "a quote in a quoted cell": (changed(5, '1,3,x,"8"3'), 6, "not CSV"),
    "an empty cell": (changed(5, "1,,x,83"), 6, "'b' is empty; expected one of 1, 2, 3, 4, 5"),
    "an unknown state": (f"{HEADER},status\n1,1,x,60,good\n" + "\n".join(f"{r},ok" for r in ROWS), 2, "status 'good'"),
}


@pytest.mark.parametrize("case", UNCERTAIN)
def test_uncertain_file_is_refused_by_line(tmp_path: Path, case: str) -> None:
    data, line, what = UNCERTAIN[case]
    found = refused(tmp_path, data)
    assert found[0].startswith(f"labels.csv:{line}: ")
    assert what in found[0]


def test_lines_are_counted_through_cells_with_breaks(tmp_path: Path) -> None:
    rows = PLAIN.splitlines()
    noted = [f"{rows[0]},note", *(f'{row},"first\nsecond"' for row in rows[1:3]), "9,1,x,5,", "1,2,3", "8,1,x,5,"]
    places = [p.partition(": ")[0] for p in refused(tmp_path, "sep=,\n" + "\n".join(noted))]
    assert places == ["labels.csv:1", "labels.csv:7", "labels.csv:8", "labels.csv:9"]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"PK\x03\x04" + b"\0" * 99, "a zip archive or an Excel workbook; export it as CSV"),
        (b"\x1f\x8b" + b"\0" * 99, "compressed by gzip"),
        (PLAIN.encode() + b"\xe9\n", "not UTF-8; save the file as UTF-8"),
    ],
)
def test_other_files_are_named(tmp_path: Path, data: bytes, cause: str) -> None:
    (problem,) = refused(tmp_path, data)
    assert cause in problem


# -- states of trials --------------------------------------------------------------------------------
@pytest.mark.parametrize("column", ["status", "Status", "state", "State"])
@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("COMPLETE", "TrialState.COMPLETE", "TERMINATED", "SUCCEEDED", "finished", "OK", "", "done", "N/A"), "ok"),
        (("FAIL", "KILLED", "error", "ERROR", "timeout", "Failed: OOM", "TrialState.FAIL", "USER_CANCELED"), "failed"),
        (("finished with an error", "time-out", "Timed out", "CRASHED"), "failed"),
        (("PRUNED", "EARLY_STOPPED", "early stopped", "stopped"), "pruned"),
        (("RUNNING", "WAITING", "PENDING", "paused"), "unfinished"),
    ],
)
def test_states_of_trials(tmp_path: Path, column: str, words: tuple[str, ...], kind: str) -> None:
    rows = [f"{row},COMPLETE" for row in ROWS]
    for i, word in enumerate(words):
        rows[i] = f"{ROWS[i].rpartition(',')[0]},10.0,{word}"  # chance
    if "time-out" in words:
        rows[words.index("time-out")] = f"{ROWS[0]},timeout"
    labels = read(tmp_path, "\n".join([f"{HEADER},{column}", *rows]))
    counted = {why: len(archs) for why, archs in labels.unlabelled.items() if len(archs)}
    assert counted == ({} if kind == "ok" else {kind: len(words)})
    assert (10.0 in labels.values) == (kind == "ok")
    assert kind == "ok" or f"{len(words)} rows {kind}" in labels.describe()


def test_missing_values_are_counted(tmp_path: Path) -> None:
    rows = [row.rpartition(",")[0] for row in ROWS]
    texts = ["", "N/A", "None", "null", "-", "nan", "NaN"]
    labels = read(tmp_path, "\n".join([HEADER, *(f"{r},{t}" for r, t in zip(rows, texts, strict=False)), *ROWS[7:]]))
    assert {why: len(archs) for why, archs in labels.unlabelled.items()} == {"empty": 5, "failed": 2}
    assert len(labels.archs) == 43


def test_column_of_another_meaning_called_state_is_ignored(tmp_path: Path) -> None:
    rows = [f"{row},{'CA' if i % 2 else 'NY'}" for i, row in enumerate(ROWS)]
    assert len(read(tmp_path, "\n".join([f"{HEADER},state", *rows])).archs) == 50


# -- arch next to the columns of positions -----------------------------------------------------------
def test_arch_and_columns_that_disagree_are_refused_by_row(tmp_path: Path) -> None:
    rows = [f"{'|'.join(row.split(',')[:3])},{row}" for row in ROWS]
    assert len(read(tmp_path, "\n".join([f"arch,{HEADER}", *rows])).archs) == 50
    rows[3] = f"5|5|z,{ROWS[3]}"
    rows[7] = f"5|5,{ROWS[7]}"
    rows[9] = f",{ROWS[9]}"
    found = refused(tmp_path, "\n".join([f"arch,{HEADER}", *rows]))
    assert found == [
        f"labels.csv:5: arch says 5|5|z, the columns say {'|'.join(ROWS[3].split(',')[:3])}; which one is right?",
        "labels.csv:9: expected 3 choices joined by '|', found 2 in '5|5'",
    ]


def test_numbers_of_runs_are_no_architectures(tmp_path: Path) -> None:
    rows = [f"net{i:04},{row}" for i, row in enumerate(ROWS)]
    labels = read(tmp_path, "\n".join([f"arch,{HEADER}", *rows]))
    assert len(labels.archs) == 50
    assert "'arch' has no architectures ('net0000')" in labels.describe()


# -- choices -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "nan", "None", "-", "99", "3.0", "x y"])
def test_nothing_is_read_at_inactive_positions(tmp_path: Path, text: str) -> None:
    assert RULES.format(RULES.parse([f"pool|{text}|0.1|no"])) == ["pool|3|0.1|no"]
    with pytest.raises(InvalidArchitecture):
        RULES.parse([f"conv|{text if text != '3.0' else '7.0'}|0.1|no"])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("conv|3.0|1e-1|no", "conv|3|0.1|no"),
        ("conv|+5|0.10|yes", "conv|5|0.1|yes"),
        ("conv|5|1e-03|True", "conv|5|0.001|yes"),
        ("conv|5|0.01|FALSE", "conv|5|0.01|no"),
    ],
)
def test_equal_numbers_and_booleans_are_the_same_choice(name: str, meaning: str) -> None:
    assert RULES.format(RULES.parse([name])) == [meaning]


@pytest.mark.parametrize("name", ["conv|4|0.1|no", "conv|3|0.2|no", "conv|3|0.1|1", "conv|7|0.1|no", "Conv|3|0.1|no"])
def test_other_texts_are_refused(name: str) -> None:
    with pytest.raises(InvalidArchitecture):
        RULES.parse([name])


def test_nulls_booleans_and_floats_of_parquet(tmp_path: Path) -> None:
    n = 24
    rates = np.tile(np.array([0.1, 0.01, 0.001], np.float32), n // 3)
    data = parquet(
        op=["conv", "pool"] * (n // 2),
        k=[(3.0, 5.0)[i // 12] if i % 2 == 0 else None for i in range(n)],
        rate=list(pa.array(rates)),
        se=[i % 4 < 2 for i in range(n)],
        acc=[60.0 + i for i in range(n)],
    )
    (tmp_path / "labels.parquet").write_bytes(data)
    labels = read_labels(tmp_path / "labels.parquet", RULES, min_labels=0)
    assert int(labels.repeats.sum()) == n
    assert len(labels.archs) == 18


def test_equal_numbers_are_a_choice_twice() -> None:
    text = "name: s\nmetric: {name: m, direction: maximize}\npositions:\n  - {name: a, choices: [1e-3, 0.01, 0.001]}\n"
    with pytest.raises(ConfigError, match=r"positions.0.choices.2: '0.001' is the same number as '1e-3'"):
        parse_space(text, "space.yaml")


# -- Unicode -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_equal(tmp_path: Path, form: Form, other: Form) -> None:
    text = "name: s\nmetric: {name: acc, direction: maximize}\npositions:\n  - {name: étage, choices: [a, é, ü]}\n"
    text += "  - {name: b, choices: [1, 2, 3, 4, 5, 6, 7]}\n"
    space = parse_space(unicodedata.normalize(form, text), "space.yaml")
    rows = [f"{c},{b},{b + 10 * len(c)}" for c in ("a", "é", "ü") for b in range(1, 8)]
    labels = read(tmp_path, unicodedata.normalize(other, "\n".join(["étage,b,acc", *rows])), space)
    assert len(labels.archs) == 21
    assert len(space.parse([unicodedata.normalize(other, "é|1")])) == 1


def test_positions_that_look_alike_are_duplicates() -> None:
    text = "name: s\nmetric: {name: acc, direction: maximize}\npositions:\n"
    for form in ("NFC", "NFD"):
        text += f"  - {{name: {unicodedata.normalize(form, 'étage')}, choices: [a, b]}}\n"
    with pytest.raises(ConfigError, match="duplicate position"):
        parse_space(text, "space.yaml")


# -- marks of failure --------------------------------------------------------------------------------
@pytest.mark.parametrize("mark", ["-1", "0", "1e9", "-1e30"])
def test_values_far_from_all_others_are_reported(tmp_path: Path, mark: str) -> None:
    labels = read(tmp_path, changed(5, f"1,3,x,{mark}"))
    assert "1 label is far from all others (66.5 to 90.5)" in labels.describe()


@pytest.mark.parametrize("value", ["10.0", "50", "99.9", "-2"])
def test_bad_but_possible_values_are_not_reported(tmp_path: Path, value: str) -> None:
    assert read(tmp_path, changed(5, f"1,3,x,{value}")).notes == ()


# -- other notations ---------------------------------------------------------------------------------
NOTATIONS = [
    ("nas_bench_macro", "2111110", "found '2111110'; leading zeros are lost"),
    ("nas_bench_macro", "12345678.0", "it a number; store it as text"),
    ("shufflenetv2", "3.2E+19", "a spreadsheet made it a number"),
    ("nasbench201", "(4, 0, 3, 1, 4, 3)", "as NASLib uses"),
    ("nasbench201", "[4, 0, 3, 1, 4, 3]", "as NASLib uses"),
    ("nasbench201", "1462", "found '1462'; it is an index"),
    ("nasbench201", "none~0|+|none~0|none~1|+|none~0|none~1|none~2", "the outer | are missing"),
    ("nasbench201", "|none~0| + |none~0|none~1| + |none~0|none~1|none~2|", "leave out the spaces"),
    ("nasbench301", "Genotype(normal=[('sep_conv_3x3', 0)])", "it is a genotype of DARTS"),
    ("ofa_mobilenetv3", "{'ks': [3, 5], 'e': [3]}", "in \"{'ks': [3, 5], 'e': [3]}\"; it is a Python dictionary"),
]


@pytest.mark.parametrize(("space", "name", "cause"), NOTATIONS)
def test_other_notations_are_shown_with_their_cause(tmp_path: Path, space: str, name: str, cause: str) -> None:
    assert cause in refused(tmp_path, f'arch,accuracy\n"{name}",5\n', spaces.get(space))[-1]


def test_column_of_another_name_is_pointed_out(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "architecture,accuracy\n22212220,5\n", spaces.get("nas_bench_macro"))[:1]
    assert "rename 'architecture' to 'arch'" in problem


# -- studies -----------------------------------------------------------------------------------------
def test_study_keeps_a_file_that_it_has_to_rewrite(tmp_path: Path) -> None:
    data = "# mine\n" + PLAIN.replace(",", ";").replace(".", ",")
    (tmp_path / "labels.csv").write_text(data)
    study = Study.open(tmp_path, TINY)
    before = study.labels
    study.tell(["1|1|y"], [99.25])
    assert (tmp_path / "labels.original.csv").read_text() == data
    after = Study.open(tmp_path, TINY).labels
    assert sorted(after.values.tolist()) == sorted([*before.values.tolist(), 99.25])


# -- numbers with other text, exports of trials, other kinds of files ------------------------------------
@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("89.3 ms", "more than a number; write the number alone, such as 89.3"),
        ("89.3 ± 0.3", "more than a number; write the number alone, such as 89.3"),
        ("tensor(89.3)", "more than a number; write the number alone, such as 89.3"),
        ('"[89.3, 88]"', "more than a number; write the number alone, such as 89.3"),
        ("'89.3", "more than a number; write the number alone, such as 89.3"),
        ("893/1000", "more than a number; write the number alone, such as 893"),
        ("2024-01-01", "more than a number; write the number alone, such as 2024"),
        ("٨٩", "digits of another script; write 0 to 9"),
        ("８９．３", "digits of another script; write 0 to 9"),
        ("x1", "is no number; for a missing value"),
    ],
)
def test_number_with_other_text_is_named(cell: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"arch,acc\n00000000,{cell}\n11111111,90\n")
    with pytest.raises(UserError, match=rf"labels\.csv:2: acc .*{re.escape(why)}"):
        read_labels(path, spaces.get("nas_bench_macro"), "acc", min_labels=0)


PREFIXED = parse_space(
    "name: s\nmetric: {name: acc, direction: maximize}\npositions:\n"
    "  - {name: a, choices: [1, 2]}\n  - {name: b, choices: [1-10, y]}\n",
    "space.yaml",
)


@pytest.mark.parametrize("prefix", ["params_", "config/", "hp.", "user:"])
def test_columns_of_positions_with_a_common_prefix_are_read(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"number,{prefix}b,acc,{prefix}a\n0,y,1,1\n1,1-10,2,2\n")
    labels = read_labels(path, PREFIXED, min_labels=0)
    assert PREFIXED.format(labels.archs) == ["1|y", "2|1-10"]
    assert f"read without '{prefix}'" in labels.describe()


@pytest.mark.parametrize("header", ["params_a,config/b,acc", "xa,xb,acc", "p_a,p_b,q_a,q_b,acc"])
def test_columns_without_one_common_prefix_are_refused(header: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"{header}\n{','.join(['1'] * len(header.split(',')))}\n")
    with pytest.raises(UserError, match=r"neither a column for each position \(a, b\) nor 'arch'"):
        read_labels(path, PREFIXED, min_labels=0)


@pytest.mark.parametrize("date", ["01-Oct", "Oct-01", "2024-10-01", "2024-10-01 00:00:00"])
def test_choice_that_a_spreadsheet_made_a_date_is_named(date: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"a,b,acc\n1,{date},1\n")
    with pytest.raises(UserError, match=r"unknown choice of b .*spreadsheet turns texts such as 1-10 into dates"):
        read_labels(path, PREFIXED, min_labels=0)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("l.csv.gz", "decompress it"),
        ("l.xlsx", "export the sheet as CSV"),
        ("l.jsonl", "convert it"),
        ("l", ""),
    ],
)
def test_other_endings_are_refused_with_what_to_do(name: str, fix: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"expected a file that ends in \.csv or \.parquet.*{fix}"):
        read_labels(tmp_path / name, PREFIXED)


def test_columns_of_parquet_that_differ_by_blanks_are_duplicates(tmp_path: Path) -> None:
    columns = {"a": ["1", "2"], "b": ["y", "y"], "acc": [1.0, 2.0], " acc ": [0.0, 1.0]}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    with pytest.raises(UserError, match="duplicate column 'acc'"):
        read_labels(tmp_path / "labels.parquet", PREFIXED, min_labels=0)
