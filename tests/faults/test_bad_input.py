"""Invalid input: each case has a valid outcome, or exits with code 2 and a message that names the place."""

from __future__ import annotations

import bz2
import copy
import csv
import gzip
import inspect
import io
import json
import os
import signal
import types
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from ruamel.yaml import YAML

from lissnas import benchmarks, config, spaces
from lissnas.artifacts.folder import publish
from lissnas.benchmarks import official
from lissnas.cli import app as app_module
from lissnas.core import process
from lissnas.core.errors import ConfigError, InvalidArchitecture, LissnasError, UserError
from lissnas.oracles.label_table import read_labels
from lissnas.shrinkers.methods import METHODS
from lissnas.spaces import Space
from lissnas.spaces.declared import parse_space, read_space
from tests.faults.harness import MARK, PAYLOAD, Case, failures, peak, report

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in its temporary folder; check that no payload ran and that less than 2 GiB were used."""
    monkeypatch.chdir(tmp_path)
    before = peak()
    yield
    assert not list(tmp_path.rglob(MARK))
    assert peak() - before < 2 << 30


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield a folder in which to run the command, with parameters, a file and self-referencing links."""
    monkeypatch.setenv("LISSNAS_DATA", str(tmp_path / "imported"))
    monkeypatch.setenv("TERMINAL_WIDTH", "500")
    handler = signal.getsignal(signal.SIGTERM)
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "file").write_text("text\n")
    (folder / "params.yaml").write_text(yaml(small()))
    for name in ("loop", "loop.csv", "loop.yaml"):
        (folder / name).symlink_to(name)
    yield folder
    signal.signal(signal.SIGTERM, handler)


def mutated(data: st.DataObject, whole: bytes) -> bytes:
    """Return the bytes with some flipped, replaced, removed, repeated or inserted."""
    out = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(0, len(out) - 1)))
        how = data.draw(st.sampled_from(("flip", "byte", "remove", "repeat", "insert")))
        if how == "flip" and out:
            out[at] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "byte" and out:
            out[at] = data.draw(st.integers(0, 255))
        elif how == "remove":
            del out[at : at + data.draw(st.integers(1, 40))]
        elif how == "repeat":
            out[at:at] = out[at : at + data.draw(st.integers(1, 40))]
        else:
            out[at:at] = data.draw(st.binary(max_size=8) | st.sampled_from(TOKENS))
    return bytes(out)


TOKENS = tuple(b"&a *a !!x [[ {{ - ? : | > % @ ` ' \" # , .nan 1e999 -1 \xff \0 \n --- ... << ~".split(b" "))


# -- params.yaml -----------------------------------------------------------------------------------
class Raw(str):
    """A piece of YAML that is written without quotes."""


Path_ = tuple[str, ...]


def small() -> dict[str, Any]:
    """Return params.yaml with one entry of each mapping, since it is read hundreds of times."""
    tree = YAML(typ="safe", pure=True).load((ROOT / "params.yaml").read_text())
    tree["recipes"] = {"cpu": tree["recipes"]["cpu"]}
    tree["benchmarks"] = {"nas_bench_macro": tree["benchmarks"]["nas_bench_macro"]}
    tree["compare"]["methods"] = "all"
    return dict(tree)


def yaml(tree: dict[str, Any], indent: str = "") -> str:
    """Return nested mappings as YAML, one entry on each line."""
    out = []
    for key, value in tree.items():
        if isinstance(value, dict):
            out += [f"{indent}{key}:\n{yaml(value, indent + '  ')}"]
        else:
            out += [f"{indent}{key}: {value if isinstance(value, Raw) else json.dumps(value)}\n"]
    return "".join(out) or f"{indent}{{}}\n"


def leaves(model: type[BaseModel], tree: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    """Yield the path and the type of each leaf."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        inner, at = tree.get(name, {}), (*path, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, inner, at)
        elif get_origin(kind) is dict:
            (key,) = inner
            yield from leaves(get_args(kind)[1], inner[key], (*at, key))
        else:
            yield at, kind


def put(tree: dict[str, Any], path: Path_, value: Any) -> dict[str, Any]:
    """Return the tree with another value at a path."""
    first, *rest = path
    return {**tree, first: put(tree[first], tuple(rest), value) if rest else value}


def drop(tree: dict[str, Any], path: Path_) -> dict[str, Any]:
    """Return the tree without a path."""
    first, *rest = path
    if rest:
        return {**tree, first: drop(tree[first], tuple(rest))}
    return {key: value for key, value in tree.items() if key != first}


MANY = "1" + "0" * 300
ALWAYS = ("{a: 1}", "2001-01-01", "[[1]]", "[null]", ".nan")
WRONG = {
    int: ("x", "''", "true", "1.5", ".inf", "-.inf", "1e400", "-1", "'7'", "[1]", MANY, "0x" + "f" * 300, PAYLOAD),
    float: ("x", "''", "true", ".inf", "-.inf", "1e400", "-1", "-1e-300", "'0.5'", "[0.5]", MANY, PAYLOAD),
    bool: ("0", "1", "yes", "'true'", "x", "[true]", "''"),
    str: ("1", "1.5", "true", "[x]", MANY),
    list: ("x", "1", "true", "''", "[1.5]", "[true]", "[-1]", f"[{MANY}]"),
    Literal: ("nonsense", "''", "1", "[x]", "true", PAYLOAD),
}
"""Pieces of YAML that are invalid for every leaf of a type."""


def kinds(annotation: Any) -> set[Any]:
    """Return the types that an annotation allows; None means that null is allowed."""
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return set[Any]().union(*map(kinds, get_args(annotation)))
    if origin is Annotated:
        return kinds(get_args(annotation)[0])
    return {origin or (None if annotation is type(None) else annotation)}


def wrong_values(annotation: Any) -> list[Raw]:
    """Return pieces of YAML that are invalid for the type."""
    allowed = kinds(annotation)
    by_kind = [{*WRONG[kind], *ALWAYS} for kind in allowed - {None}]
    values = set.intersection(*by_kind) | (set() if None in allowed else {"null"})
    return [Raw(value) for value in sorted(values)]


def load_params(folder: Path) -> object:
    known = benchmarks.names()
    return config.load(folder / "params.yaml", {}, known, (), METHODS, spaces.names())


def of_params(name: str, text: str | bytes, message: str = "params.yaml", passes: bool | None = False) -> Case:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return Case(f"params {name}", load_params, {"params.yaml": data}, passes, message)


@cache
def wrong_leaves() -> list[tuple[Path_, list[Raw]]]:
    return [(path, wrong_values(kind)) for path, kind in leaves(config.Params, small())]


def single_leaves() -> list[Case]:
    """Return a case for every third leaf, with one of its invalid values each."""
    tree = small()
    return [
        of_params(
            f"{'.'.join(path)} = {values[i % len(values)][:40]}",
            yaml(put(tree, path, values[i % len(values)])),
            f"\n  {'.'.join(path)}",
        )
        for i, (path, values) in enumerate(wrong_leaves()[::3])
    ]


def batches() -> list[tuple[str, list[str]]]:
    """Return files in which all leaves are invalid at once, with the paths that the error must name."""
    out = []
    for i in range(max(len(values) for _, values in wrong_leaves())):
        tree = small()
        for path, values in wrong_leaves():
            tree = put(tree, path, values[i % len(values)])
        out.append((yaml(tree), [".".join(path) for path, _ in wrong_leaves()]))
    return out


def missing() -> list[tuple[str, list[str]]]:
    """Return files with an unknown key in each mapping, and with a custom recipe that lacks one of its leaves."""
    tree = small()
    recipe = tree["recipes"]["cpu"]
    out = [(yaml(put(tree, ("recipes", "mine"), drop(recipe, (key,)))), [f"recipes.mine.{key}"]) for key in recipe]
    for holder in sorted({path[:-1] for path, _ in wrong_leaves()}):
        out.append((yaml(put(tree, (*holder, "zzz"), 1)), [".".join((*holder, "zzz"))]))
    return out


def bomb(n: int, merge: bool = False) -> str:
    """Return YAML in which each anchor contains the previous one nine times."""
    lines = ["a0: &a0 " + ("{k: 1}" if merge else "[lissnas, abs]")]
    for i in range(1, n):
        nine = ", ".join([f"*a{i - 1}"] * 9)
        lines.append(f"a{i}: &a{i} " + (f"{{<<: [{nine}]}}" if merge else f"[{nine}]"))
    return "\n".join(lines) + "\n"


def whole_files() -> list[Case]:
    """Return cases of params.yaml that are invalid as a whole."""
    good = yaml(small())
    data = good.encode()
    methods = good.replace('  methods: "all"', "  methods: *a29")
    assert methods != good
    trees = "trees: 300"
    assert trees in good
    texts: dict[str, str | bytes] = {
        "bomb": bomb(30) + methods,
        "bomb of keys": "a: &a [x, x]\n? [*a, *a]\n: 1\n" + good,
        "alias of itself": methods.replace("*a29", "&a29 [*a29]"),
        "merged with itself": good + "z: &z {<<: *z}\n",
        "undefined alias": good + "z: *nothing\n",
        "merged text": good + "<<: x\n",
        "merged list": good + "z: {<<: [1, 2]}\n",
        "ten thousand brackets": good + "z: " + "[" * 10_000 + "]" * 10_000,
        "a hundred thousand brackets": "[" * 100_000,
        "ten thousand mappings": "z: " + "{z: " * 10_000,
        "ten thousand dashes": "- " * 10_000,
        "ten thousand question marks": "? " * 10_000,
        "a staircase": "".join(" " * i + "a:\n" for i in range(1_000)),
        "a long key": good + "? " + "k" * 200_000 + "\n: 1\n",
        "a long text": good.replace(trees, "trees: " + "v" * 200_000),
        "a long tag": good.replace(trees, "trees: !" + "t" * 100_000 + " 1"),
        "a long anchor": good.replace(trees, "trees: *" + "t" * 100_000),
        "5,000 digits": good.replace(trees, "trees: 1" + "0" * 5_000),
        "50,000 hexadecimal digits": good.replace(trees, "trees: 0x" + "f" * 50_000),
        "900 hexadecimal digits": good.replace("min_child_weight: 5", "min_child_weight: 0x" + "f" * 900),
        "a second document": good + "---\n" + good,
        "a second empty document": good + "---\n",
        "a version": "%YAML 9.9\n---\n" + good,
        "tab": "\t" + good,
        "an open list": good + "z: [1, 2\n",
        "an open quote": good + 'z: "a\n',
        "a stray bracket": good + "]\n",
        "no colon": good + "z\n",
        "a control character": good + "z: \x07\n",
        "a delete character": good + "z: \x7f\n",
        "NUL": data + b"\0",
        "NUL first": b"\0" + data,
        "NUL inside": data[:500] + b"\0" + data[500:],
        "UTF-16": good.encode("utf-16"),
        "UTF-16-LE": good.encode("utf-16-le"),
        "UTF-16-BE": good.encode("utf-16-be"),
        "UTF-32": good.encode("utf-32"),
        "UTF-7": b"+ACY-" + data[:10],
        "latin-1": good.replace('"elite"', '"\xe9lite"', 1).encode("latin-1"),
        "a surrogate": good + '"\ud800": 1\n',
        "half a character": data + "ä".encode()[:1],
        "overlong UTF-8": data + b"# \xc0\xaf\n",
        "EBCDIC": good.encode("cp037"),
        "gzip": b"\x1f\x8b\x08\0\0\0\0\0" + data,
        "a picture": b"\x89PNG\r\n\x1a\n" + data,
        "empty": "",
        "blank": " \n\n",
        "a comment": "# nothing\n",
        "a list": "- 1\n- 2\n",
        "an empty list": "[]",
        "an empty mapping": "{}",
        "a text": "just text",
        "a number": "3",
        "null": "~",
        "true": "true",
        "a date": "2001-01-01",
        "JSON": json.dumps(["lissnas"]),
        "XML": "<a>1</a>",
        "Python": "import os\n",
        "escape codes in a key": good + '"\\e[31m": 1\n',
        "a surrogate escape": good.replace('variant: "elite"', 'variant: "\\ud800"'),
        "a surrogate escape as a key": good + '"\\ud800": 1\n',
        "a number as a key": good + "1: 2\n",
        "null as a key": good + "~: 2\n",
        "NaN as a key": good + ".nan: 2\n",
        "a list as a key": good + "? [a]\n: 2\n",
        "a mapping as a key": good + "? {a: b}\n: 2\n",
        "a number as a benchmark": good.replace("nas_bench_macro:", "7:"),
        "null as a benchmark": good.replace("nas_bench_macro:", "~:"),
        "another benchmark": good.replace("nas_bench_macro:", "../../nasbench101:"),
        "a thousand unknown keys": good + "".join(f"k{i}: 1\n" for i in range(100)),
        "more than twenty thousand values": good + "z: [" + "1, " * 20_000 + "1]\n",
    }
    tags = (
        *("!!python/object/apply:os.system", "!!python/name:os.system", "!!python/module:os", "!!python/tuple"),
        *("!!python/object/new:os.system", "!!python/object:os.system", "!!binary", "!!set", "!!omap", "!!pairs"),
        *("!!bool", "!!int", "!!float", "!!null", "!!timestamp", "!!str", "!!map", "!!seq", "!!merge", "!!value"),
        *("!mine", "!<tag:yaml.org,2002:python/object/apply:os.system>", "!"),
    )
    for tag in tags:
        for value in (f'["touch {MARK}"]', f'"touch {MARK}"', f"{{a: touch {MARK}}}"):
            texts[f"{tag} {value}"] = good.replace(trees, f"trees: {tag} {value}")
    cases = [of_params(name, text) for name, text in texts.items()]
    sections = [name for name in small() if f"\n{name}:" in "\n" + good]
    return cases + [of_params(f"{name} twice", good + f"{name}: {{}}\n", "line") for name in sections]


def valid_params() -> list[Case]:
    good = yaml(small())
    texts = {
        "as it is": good,
        "with a byte order mark": "\ufeff" + good,
        "Windows": good.replace("\n", "\r\n"),
        "with an end": good + "...\n",
        "as JSON": json.dumps(small()),
        "with an alias": good.replace("width: null", "width: &w 0.5", 1).replace("width: 0.5", "width: *w", 1),
        "with a merge": good.replace("recipes:\n  cpu:", "recipes:\n  cpu: &r").replace(
            "torch:", "  other: {<<: *r, steps: 3}\ntorch:", 1
        ),
    }
    return [of_params(name, text, passes=True) for name, text in texts.items()]


def no_files() -> list[Case]:
    """Return cases of paths without a readable parameter file."""

    def at(name: str, make: Callable[[Path], None] | None = None) -> Case:
        def run(folder: Path) -> None:
            path = folder / name
            if make is not None:
                make(path)
            try:
                config.load(path, {}, benchmarks.names())
            finally:
                if make is not None:
                    path.rmdir() if path.is_dir() else path.unlink()

        return Case(f"params at {name[:40]!r}", run, message=name[:40])

    def loop(path: Path) -> None:
        path.symlink_to(path.name)

    def secret(path: Path) -> None:
        path.touch(mode=0)

    # root can read every file.
    locked = [at("secret.yaml", secret)] if getattr(os, "geteuid", int)() else []
    return [
        *locked,
        at("none.yaml"),
        at("folder.yaml", Path.mkdir),
        at("l" * 300),
        at("loop.yaml", loop),
        at("no/where.yaml"),
    ]


def test_invalid_values_of_parameters(tmp_path: Path) -> None:
    found = failures(single_leaves(), tmp_path)
    assert not found, report(found)


def test_all_invalid_parameters_are_reported_at_once(tmp_path: Path) -> None:
    found = []
    path = tmp_path / "params.yaml"
    for text, paths in [*batches(), *missing()]:
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_params(tmp_path)
        named = {line.partition(": ")[0] for line in caught.value.problems}
        found += [name for name in paths if not any(n == name or n.startswith(f"{name}.") for n in named)]
    assert not found, report(found)


def test_invalid_parameter_files(tmp_path: Path) -> None:
    found = failures([*whole_files(), *valid_params(), *no_files()], tmp_path)
    assert not found, report(found)


def test_truncated_parameters(tmp_path: Path) -> None:
    data = yaml(small()).encode()
    cases = [of_params(f"cut at {i}", data[:i], passes=None) for i in range(0, len(data), 29)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


@settings(max_examples=25)
@given(st.data())
def test_mutated_parameters(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = mutated(data, yaml(small()).encode())
    found = failures([of_params("mutated", text, passes=None)], tmp_path_factory.mktemp("m"))
    assert not found, report(found)


# -- architectures ---------------------------------------------------------------------------------
EXAMPLE = ROOT / "lissnas" / "example"
PRODUCT = (EXAMPLE / "space.yaml").read_text()
CELL = """\
name: cells
kind: cell
metric: {name: acc, direction: maximize}
cell: {vertices: 4, max_edges: 5, ops: [conv, pool], ops_on: %s}
"""
TEXTS = (
    *(
        "",
        " ",
        "\0",
        "\n",
        "-",
        "|",
        "/",
        "+",
        "~",
        "0",
        "1",
        "-1",
        "nan",
        "None",
        "null",
        "true",
        "1e400",
        "é",
        "\ud800",
    ),
    *("../../etc/passwd", "/etc/passwd", "C:\\nul", f"$(touch {MARK})", f"; touch {MARK}", PAYLOAD, "%s%n", "{0}"),
    *("64-41414-", "64--basic", "64-0-basic", "64-1234-basic\0", "1" * 1_000_000, "|" * 100_000, "٣" * 8, "²" * 8),
    *("\u202e2221222", "2221222\u200b", "k3e3-k3e3|" * 5, "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|\n"),
)
"""Names that are not an architecture of any space."""


@cache
def known_spaces() -> dict[str, Space]:
    custom = {"product": PRODUCT, "vertices": CELL % "vertices", "edges": CELL % "edges"}
    return {name: spaces.get(name) for name in spaces.names()} | {
        name: parse_space(text, "space.yaml") for name, text in custom.items()
    }


def corrupted(name: str) -> list[str]:
    """Return texts that differ slightly from the name of an architecture."""
    middle = len(name) // 2
    out = [name + extra for extra in ("\0", "\n", " ", "\0" * 40, "0" * 40, "٣", "\r\n", "|")]
    out += [extra + name for extra in ("\0", " ", "\ufeff", "+")]
    for at in (0, middle, len(name) - 1):
        out += [name[:at] + extra + name[at + 1 :] for extra in ("\0", " ", "٣", "~", "\xff", "9", "A", "\ud800", "\n")]
        out += [name[:at] + extra + name[at:] for extra in ("\0", " ", "\n", "\u200b")]
    return [
        *out,
        name[:-1] + "\0",
        name[:middle],
        name[middle:],
        name[::-1],
        name * 2,
        name.upper(),
        name.encode().hex(),
    ]


def architectures() -> list[Case]:
    """Return cases of invalid names for each space; a name that is accepted must survive a round trip."""
    out = []
    for label, space in known_spaces().items():
        (good,) = space.format(space.sample(1, np.random.default_rng(1)))

        def read(folder: Path, space: Space = space, good: str = good, text: str = "") -> None:
            try:
                rows = space.parse([good, text, good])
            except InvalidArchitecture as error:
                raise error if error.row == 1 else AssertionError(f"row {error.row}") from None
            assert text.isascii()
            assert text.isprintable()
            assert space.key(rows)[1] == space.key(space.parse(space.format(rows)))[1]

        for text in [*TEXTS, *corrupted(good)]:
            plain = text.isascii() and text.isprintable() and " " not in text and text
            run = partial(read, text=text)
            out.append(Case(f"{label} {text[:60]!r}", run, passes=None if plain else False, message="in row 1"))
    return out


def test_invalid_architecture_names(tmp_path: Path) -> None:
    found = failures(architectures(), tmp_path)
    assert not found, report(found)


@settings(max_examples=100)
@given(name=st.sampled_from(sorted(known_spaces())), text=st.text(max_size=40))
def test_any_text_is_parsed_or_refused(name: str, text: str) -> None:
    space = known_spaces()[name]
    with suppress(InvalidArchitecture):
        assert space.format(space.parse([text])) != []


# -- labels ----------------------------------------------------------------------------------------
LABELS = (EXAMPLE / "labels.csv").read_text().splitlines()
CELLS = (
    *("nonsense", "nan", "NaN", "inf", "-inf", "1e999", "1_0", "٣", "0x10", "\0", "1,0", "a\nb", "a" * 200_000),
    *("=cmd|' /C calc'!A0", "../../etc/passwd", PAYLOAD, "\u202e1", "{}", "[1]", "1 2", "--1", "1e", ".", "+", "½"),
    *("\x1b[31m", "9" * 100_000, "e" * 50_000, "True", "1j", "1;2", "99%", "1e-9e", "\ufeff1", "<script>"),
)
READ = (("attention", "true"), ("accuracy", "nan"))
"""Cells that are read: `yes`, and a failed training."""


def parquet_of(lines: list[str]) -> bytes:
    """Return a CSV file as parquet, all columns as text."""
    header, *rows = (line.split(",") for line in lines)
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))), sink)
    return sink.getvalue()


def labels(folder: Path) -> object:
    return read_labels(folder / "labels.csv", known_spaces()["product"])


def of_labels(
    name: str, rows: list[list[str]] | str | bytes, message: str = "labels.csv", passes: bool | None = False
) -> Case:
    if isinstance(rows, list):
        sink = io.StringIO()
        csv.writer(sink, lineterminator="\n").writerows(rows)
        rows = sink.getvalue()
    data = rows.encode("utf-8", "surrogatepass") if isinstance(rows, str) else rows
    return Case(f"labels {name}", labels, {"labels.csv": data}, passes, message)


def cells_of_labels() -> list[Case]:
    """Return cases with each invalid cell in each column, each invalid column name, and each missing column."""
    table = [line.split(",") for line in LABELS]
    out = []
    for column, name in enumerate(table[0]):
        for i, cell in enumerate(CELLS):
            row = 1 + (7 * i + column) % (len(table) - 1)
            rows = [list(cells) for cells in table]
            rows[row][column] = cell
            # The reader counts lines of the file: a cell with a line break ends in the next line.
            message = f"labels.csv:{row + 1 + cell.count(chr(10))}: "
            # Anything is accepted at a position that another makes inactive, and some texts have a certain meaning.
            read = name in ("width4", "expansion") or (name, cell.lower()) in READ
            out.append(of_labels(f"{name} {cell[:40]!r}", rows, message, None if read else False))
        for title in ("", f"{name}s", name.upper(), table[0][column - 1], "\0", f"{name}\n", "a" * 10_000, "nan"):
            out.append(
                of_labels(
                    f"{name} called {title[:40]!r}",
                    [[*table[0][:column], title, *table[0][column + 1 :]], *table[1:]],
                    passes=None if title.strip().lower() == name else False,
                )
            )
        less = [[*cells[:column], *cells[column + 1 :]] for cells in table]
        out.append(of_labels(f"without {name}", less, name))
    return out


def files_of_labels() -> list[Case]:
    """Return cases of labels.csv that are invalid as a whole, and of unusual valid ones."""
    good = "\n".join(LABELS) + "\n"
    data, header = good.encode(), LABELS[0]
    texts: dict[str, str | bytes] = {
        "empty": "",
        "blank": "\n\n\n",
        "a byte order mark": "\ufeff",
        "a header": header,
        "no header": "\n".join(LABELS[1:]),
        "UTF-16 without a mark": good.encode("utf-16-le"),
        "latin-1": good.encode() + b"\xe9\n",
        "EBCDIC": good.encode("cp037"),
        "NUL bytes": b"\0" * 5_000,
        "NUL at the end": data + b"\0",
        "gzip": gzip.compress(data, mtime=0),
        "bz2": bz2.compress(data),
        "a zip": b"PK\x03\x04" + data,
        "parquet": b"PAR1" + data + b"PAR1",
        "a picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "noise": bytes(range(256)) * 40,
        "ASCII noise": "".join(map(chr, range(32, 127))) * 100,
        "an open quote": good + '"3,16',
        "an open quote at first": '"' + good,
        "a quote in a cell": good + '3,1"6"x,16\n',
        "a stray quote": good.replace("4,32", '4,"32"1', 1),
        "a wide row": good + "3," * 50_000 + "\n",
        "a wide header": ",".join(f"c{i}" for i in range(5_000)) + "\n" + "1\n" * 3,
        "a long line": "a" * 3_000_000,
        "many wrong rows": header + "\n" + "x\n" * 20_000,
        "many wrong cells": header + "\n" + (",".join(["nope"] * 12) + "\n") * 3_000,
        "JSON": json.dumps([header]),
        "YAML": PRODUCT,
        "HTML": "<table><tr><td>1</td></tr></table>",
        "one row": "\n".join(LABELS[:2]),
        "nineteen rows": "\n".join(LABELS[:20]),
        "twenty times the same": header + "\n" + f"{LABELS[1]}\n" * 20,
        "no values": "\n".join([header, *(line.rpartition(",")[0] + "," for line in LABELS[1:])]),
        "all the same": "\n".join([header, *(line.rpartition(",")[0] + ",5" for line in LABELS[1:])]),
        "all failed": "\n".join([f"{header},status", *(f"{line},failed" for line in LABELS[1:])]),
        "status twice": "\n".join([f"{header},status,status", *(f"{line},ok,ok" for line in LABELS[1:])]),
        "a formula": good.replace("4,32", "=1+1,32", 1),
        "arch of another space": "arch,accuracy\n" + "22212220,5\n" * 30,
        "arch without a metric": "arch\n" + "22212220\n" * 30,
        "huge values": "\n".join(
            [header, *(f"{line.rpartition(',')[0]},1e{i % 9}308" for i, line in enumerate(LABELS[1:]))]
        ),
    }
    for drop_last, row in ((True, 3), (True, 50), (False, 3), (False, 100)):
        lines = list(LABELS)
        lines[row] = lines[row].rpartition(",")[0] if drop_last else lines[row] + ",1"
        texts[f"row {row} {'short' if drop_last else 'long'}"] = "\n".join(lines)
    right: dict[str, str | bytes] = {
        "as it is": good,
        "the header twice": f"{header}\n{good}",
        "UTF-16": good.encode("utf-16"),
        "UTF-32": good.encode("utf-32"),
        "semicolons": good.replace(",", ";"),
        "tabs": good.replace(",", "\t"),
        "parquet as CSV": parquet_of(LABELS),
        "with a byte order mark": "\ufeff" + good,
        "Windows": good.replace("\n", "\r\n"),
        "old Macintosh": good.replace("\n", "\r"),
        "blank lines": good.replace("\n", "\n\n"),
        "quoted": "\n".join(",".join(f'"{cell}"' for cell in line.split(",")) for line in LABELS),
        "spaces": good.replace(",", " , "),
        "carriage returns in cells": good.replace("4,32", '"4\r",32', 3),
        "another column": "\n".join(f"{line},{MARK}" for line in LABELS),
        "no end of line": good.rstrip(),
    }
    out = [of_labels(name, text) for name, text in texts.items()]
    return out + [of_labels(name, text, passes=True) for name, text in right.items()]


def test_invalid_cells_and_columns_of_labels(tmp_path: Path) -> None:
    found = failures(cells_of_labels(), tmp_path)
    assert not found, report(found)


def test_invalid_label_files(tmp_path: Path) -> None:
    found = failures(files_of_labels(), tmp_path)
    assert not found, report(found)


def test_truncated_labels(tmp_path: Path) -> None:
    """A truncated row is detected; a truncated number is not, since there is no checksum."""
    data = ("\n".join(LABELS[:30]) + "\n").encode()
    found = failures([of_labels(f"cut at {i}", data[:i], passes=None) for i in range(0, len(data), 11)], tmp_path)
    assert not found, report(found)


@settings(max_examples=80)
@given(st.data())
def test_mutated_labels(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    text = mutated(data, "\n".join(LABELS[:30]).encode())
    found = failures([of_labels("mutated", text, passes=None)], tmp_path_factory.mktemp("m"))
    assert not found, report(found)


# -- space.yaml ------------------------------------------------------------------------------------
Spec = dict[str, Any]
SPACE: Spec = {
    "name": "my_space",
    "kind": "product",
    "metric": {"name": "accuracy", "direction": "maximize"},
    "positions": [
        {"name": "depth", "choices": ["2", "3", "4"]},
        {"name": "op1", "choices": ["none", "skip", "conv3x3"]},
        {"name": "op2", "choices": ["none", "skip", "conv3x3"]},
        {"name": "width1", "choices": ["16", "32"]},
        {"name": "width2", "choices": ["16", "32"]},
    ],
    "constraints": [
        {"ordered": ["width1", "width2"]},
        {"forbid": {"op1": "none", "op2": "none"}},
        {"if": {"depth": "2"}, "then": {"op2": ["none", "skip"]}},
        {"at_most": {"cost": "flops", "value": "600"}},
    ],
    "inactive": [{"when": {"depth": "2"}, "positions": ["width2"]}],
    "equivalent": [{"exchange": [["op1"], ["op2"]]}],
    "costs": {"flops": {"base": "5", "op1": {"none": "0", "skip": "1", "conv3x3": "90"}}},
}
CELLS_SPACE: Spec = {
    "name": "cells",
    "kind": "cell",
    "metric": {"name": "acc", "direction": "minimize"},
    "cell": {"vertices": "4", "max_edges": "5", "ops": ["conv", "pool"], "ops_on": "edges"},
}
NEVER = (
    *("[]", '""', "[[[[x]]]]", "{x: {y: {z: w}}}", "!!python/object/apply:os.system [touch planted]", "!x y"),
    *(
        "&a b",
        "*a",
        '"\\x07"',
        '"\\ud800"',
        '" x"',
        '"a\\nb"',
        "{x: 1, x: 2}",
        "[a, a]",
        "? [a]",
        "[nonsense, nonsense]",
    ),
)
"""Pieces of YAML that are invalid everywhere."""
MAYBE = (
    *(
        "",
        "{}",
        "nonsense",
        "-1",
        "0",
        "1e99",
        "1e100",
        "1e-99",
        "9**9**9",
        "1e999",
        ".nan",
        ".inf",
        "0x10",
        "1_000",
        "٣",
        "½",
    ),
    *(PAYLOAD.replace("'", "''").join("''"), "os.system", "width1.__class__", "${HOME}", "'{{7*7}}'", "width1 + 1"),
    *("'a|b'", "true", "~", "2001-01-01", "9" * 4_000, "x" * 100_000, "../../etc/passwd", "base", "arch", "depth"),
)
"""Pieces that are valid in some places: as a name, a choice or a number."""


def flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(flow, value)) + "]" if isinstance(value, list) else str(value)


def declared(spec: Spec) -> str:
    """Return a declaration as YAML, one line for each key and each entry of a list."""
    out = []
    for key, value in spec.items():
        lines = (
            [f"{key}:", *(f"  - {flow(item)}" for item in value)]
            if isinstance(value, list)
            else [f"{key}: {flow(value)}"]
        )
        out += lines
    return "\n".join(out) + "\n"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each part of a declaration."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def changed(value: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    """Return a copy after `change(container, key)` at a path."""
    out = copy.deepcopy(value)
    holder = out
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return out


def space_of(folder: Path) -> object:
    space = read_space(folder / "space.yaml")
    rows = space.sample(3, np.random.default_rng(0))
    return space.parse(space.format(rows)), space.encode(rows), space.costs(rows)


def of_space(name: str, text: str | bytes, message: str = "space.yaml", passes: bool | None = False) -> Case:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return Case(f"space {name}", space_of, {"space.yaml": data}, passes, message)


def line_of(spec: Spec, path: tuple[Any, ...]) -> int:
    """Return the line number of a part of a declaration."""

    def mark(holder: Any, key: Any) -> None:
        holder[key] = "HERE"

    lines = declared(changed(spec, path, mark)).splitlines()
    return 1 + next(i for i, line in enumerate(lines) if "HERE" in line)


def parts_of_spaces() -> list[Case]:
    """Return cases in which each part of two declarations is replaced, removed, renamed or repeated."""
    out = []
    for label, spec in (("product", SPACE), ("cell", CELLS_SPACE)):
        for at, path in enumerate(places(spec)):
            where = ".".join(map(str, path))
            line = f"line {line_of(spec, path)}: "

            for i, piece in enumerate((*NEVER, *MAYBE)):
                if (i + at) % 8:
                    continue  # an eighth of the pieces at each place

                def replace(holder: Any, key: Any, piece: str = piece) -> None:
                    holder[key] = piece

                text = declared(changed(spec, path, replace))
                passes = False if piece in NEVER else None
                out.append(
                    of_space(f"{label} {where} = {piece[:40]}", text, line if passes is False else "line ", passes)
                )

            def rename(holder: Any, key: Any) -> None:
                if isinstance(holder, dict):
                    renamed = {"zzz" if k == key else k: v for k, v in holder.items()}
                    holder.clear()
                    holder.update(renamed)
                else:
                    holder.append(holder[key])

            def remove(holder: Any, key: Any) -> None:
                del holder[key]

            for what, change in (("renamed", rename), ("removed", remove)):
                out.append(of_space(f"{label} {where} {what}", declared(changed(spec, path, change)), "line ", None))
    return out


HEAD = "name: s\nmetric: {name: acc, direction: maximize}\npositions:\n"


def positions(n: int, choices: int = 2) -> str:
    return HEAD + "".join(f"  - {{name: p{i}, choices: [{', '.join(map(str, range(choices)))}]}}\n" for i in range(n))


def whole_spaces() -> list[Case]:
    """Return cases of declarations that are invalid or enormous as a whole."""
    good = declared(SPACE)
    data = good.encode()
    three = positions(3)
    cycle = "".join(f"  - {{when: {{p{i}: 0}}, positions: [p{(i + 1) % 100}]}}\n" for i in range(100))
    chain = "".join(f"  - {{when: {{p{i}: 0}}, positions: [p{i + 1}]}}\n" for i in reversed(range(20)))
    never = "constraints:\n  - {forbid: {p0: [0, 1]}}\n"
    swaps = "".join(f"  - {{exchange: [[p{i}], [p{i + 1}]]}}\n" for i in range(20))
    texts: dict[str, str | bytes] = {
        "empty": "",
        "a list": "- 1\n",
        "null": "~",
        "a text": "x",
        "two documents": good + "---\n" + good,
        "a version": "%YAML 9.9\n---\n" + good,
        "a tag directive": "%TAG ! tag:x,2000:\n---\n!y " + good,
        "UTF-16": good.encode("utf-16"),
        "UTF-16-LE": good.encode("utf-16-le"),
        "UTF-32": good.encode("utf-32"),
        "latin-1": good.replace("my_space", "\xe9").encode("latin-1"),
        "EBCDIC": good.encode("cp037"),
        "NUL": data + b"\0",
        "gzip": gzip.compress(data, mtime=0),
        "noise": bytes(range(256)) * 40,
        "a surrogate": "name: \ud800\n",
        "a control character": good.replace("my_space", "\x1b[31m"),
        "another line separator": good.replace("my_space", "my\u2028space"),
        "right to left": good.replace("my_space", "\u202espace"),
        "an anchor bomb": bomb(30) + good,
        "a merge bomb": bomb(30, merge=True) + good,
        "a merge": good + "<<: {name: x}\n",
        "an alias of itself": good + "z: &z [*z]\n",
        "ten thousand brackets": good + "z: " + "[" * 10_000 + "]" * 10_000,
        "ten thousand mappings": good + "z: " + "{z: " * 10_000,
        "a hundred thousand brackets": "[" * 100_000,
        "ten thousand dashes": "- " * 10_000,
        "ten thousand question marks": "? " * 10_000,
        "a staircase": "".join(" " * i + "a:\n" for i in range(1_000)),
        "a long key": good + "? " + "k" * 200_000 + "\n: 1\n",
        "a long name": good.replace("my_space", "n" * 200_000),
        "a long tag": good + "z: !" + "t" * 100_000 + " 1\n",
        "a long anchor": good + "z: &" + "t" * 100_000 + " 1\n",
        "a list as a key": good + "? [a]\n: 1\n",
        "five thousand choices": HEAD + f"  - {{name: a, choices: [{', '.join(map(str, range(5_000)))}]}}\n",
        "five thousand equal choices": HEAD + f"  - {{name: a, choices: [{', '.join(['x'] * 5_000)}]}}\n",
        "five thousand operations": declared(
            {**CELLS_SPACE, "cell": {**CELLS_SPACE["cell"], "ops": list(range(5_000))}}
        ),
        "more than a thousand positions": positions(1_001),
        "a group of five thousand": three
        + f"inactive:\n  - {{when: {{p0: 0}}, positions: [{', '.join(['p1'] * 5_000)}]}}\n",
        "more than a thousand constraints": three + "constraints:\n" + "  - {forbid: {p0: 0, p1: 1}}\n" * 1_001,
        "more than a thousand rules of inactive": three
        + "inactive:\n"
        + "  - {when: {p0: 0}, positions: [p1]}\n" * 1_001,
        "digits of another script": three
        + "constraints:\n  - {at_most: {cost: c, value: ٣}}\ncosts:\n  c: {base: 2}\n",
        "two thousand unknown keys": good + "".join(f"k{i}: 1\n" for i in range(2_000)),
        "positions without an end": HEAD + "  - {name: a, choices: [1, 2]\n",
        "contradictory constraints": three + never,
        "contradictory constraints on eighty positions": positions(80) + never,
        "contradictory orders": three
        + "constraints:\n  - {forbid: {p0: 0}}\n  - {forbid: {p1: 1}}\n  - {ordered: [p0, p1]}\n",
        "a limit below the base": three + "constraints:\n  - {at_most: {cost: c, value: 1}}\ncosts:\n  c: {base: 2}\n",
        "a negative limit": three + "constraints:\n  - {at_most: {cost: c, value: -1e99}}\ncosts:\n  c: {base: 2}\n",
        "a cycle of a hundred": positions(100) + "inactive:\n" + cycle,
        "exchanges of everything": positions(21) + "equivalent:\n" + swaps,
        "thirteen groups": positions(13)
        + "equivalent:\n  - {exchange: ["
        + ", ".join(f"[p{i}]" for i in range(13))
        + "]}\n",
        "exchanges that constraints distinguish": positions(12)
        + "equivalent:\n  - {exchange: ["
        + ", ".join(f"[p{i}]" for i in range(12))
        + "]}\nconstraints:\n  - {forbid: {p0: 0}}\n",
        "costs of thirty digits": three + "costs:\n  c: {base: 1e20, p0: {0: 1e-10, 1: 0}}\n",
        "costs beyond 2^62": three + "costs:\n  c: {base: 1e18, p0: {0: 9e18, 1: 0}}\n",
        "an expression": three + "constraints:\n  - p0 < p1\n",
        "a call": three + f'constraints:\n  - "{PAYLOAD}"\n',
        "a call as a rule": three + f'constraints:\n  - {{"{PAYLOAD}": [p0, p1]}}\n',
        "a call as a limit": three
        + f'constraints:\n  - {{at_most: {{cost: c, value: "{PAYLOAD}"}}}}\ncosts:\n  c: {{base: 2}}\n',
        "a tower of powers": three + "constraints:\n  - {at_most: {cost: c, value: 9**9**9}}\ncosts:\n  c: {base: 2}\n",
        "nine operations": declared(
            {**CELLS_SPACE, "cell": {"vertices": 7, "max_edges": 21, "ops": list("abcdefghi"), "ops_on": "vertices"}}
        ),
        "forty operations on edges": declared(
            {
                **CELLS_SPACE,
                "cell": {"vertices": 7, "max_edges": 21, "ops": [f"o{i}" for i in range(40)], "ops_on": "edges"},
            }
        ),
        "ten thousand vertices": declared({**CELLS_SPACE, "cell": {**CELLS_SPACE["cell"], "vertices": "9999"}}),
    }
    right = {
        "as it is": good,
        "cells": declared(CELLS_SPACE),
        "with a byte order mark": "\ufeff" + good,
        "Windows": good.replace("\n", "\r\n"),
        "as JSON": json.dumps({**SPACE, "name": "json"}),
        "a chain of inactive positions": positions(21) + "inactive:\n" + chain,
        "a thousand positions of 10 choices": positions(1_000, 10),
        "a thousand constraints": positions(30) + "constraints:\n" + "  - {forbid: {p0: 0, p1: 1}}\n" * 1_000,
    }
    return [
        *(of_space(name, text) for name, text in texts.items()),
        *(of_space(name, text, passes=True) for name, text in right.items()),
    ]


def test_invalid_parts_of_declarations(tmp_path: Path) -> None:
    found = failures(parts_of_spaces(), tmp_path)
    assert not found, report(found)


def test_invalid_declarations(tmp_path: Path) -> None:
    before = peak()
    found = failures(whole_spaces(), tmp_path)
    assert not found, report(found)
    assert peak() - before < 1 << 30


def test_truncated_declarations(tmp_path: Path) -> None:
    data = declared(SPACE).encode()
    cases = [of_space(f"cut at {i}", data[:i], passes=None) for i in range(0, len(data), 3)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


@settings(max_examples=150)
@given(st.data())
def test_mutated_declarations(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from((SPACE, CELLS_SPACE)))
    text = mutated(data, declared(spec).encode())
    found = failures([of_space("mutated", text, passes=None)], tmp_path_factory.mktemp("m"))
    assert not found, report(found)


# -- the command -----------------------------------------------------------------------------------
TABLED = ("--benchmark", "nas_bench_macro")
BASES: dict[tuple[str, ...], tuple[str, ...]] = {
    ("shrink",): (*TABLED, "--out", "out"),
    ("locality",): (*TABLED, "--out", "out"),
    ("compare",): (*TABLED, "--out", "out"),
    ("search",): (*TABLED, "--out", "out", "--subspace", "none"),
    ("report",): ("--out", "out", "--data", "none"),
    ("suggest",): ("--space", "nas_bench_macro", "--out", "out.csv"),
    ("show",): ("none",),
    ("init",): ("file",),
    ("data",): (*TABLED, "--out", "out"),
    ("data", "import"): ("nasbench101", "none"),
    ("data", "list"): (),
    ("spaces",): (),
}
"""Base arguments of each command, to which invalid options are added."""
INTEGERS = ("x", "", "1.5", "1e3", "0x10", "-1", "9" * 5_000, "9" * 30, "NaN", "1 2", "[/x]")
NUMBERS = ("x", "", "nan", "-nan", "-1", "-inf", "1,5", "0x1p3", "1e", "[/x]")
WORDS_ = ("nonsense", "", "../../etc/passwd", PAYLOAD, "[/x]", "\udcff", "x" * 5_000, "a\nb", "é")
PATHS = ("none", "file", "", "l" * 300, "loop", "file/x", "[/x]", "\udcff", "a\nb", "../none", "/none/at/all")
"""Paths that are invalid for every option."""
NO_FOLDERS = ("file", "file/x", "l" * 300, "loop/x", "", ".", "..", "/", "x/..")
"""Paths that are invalid for a result."""
OF_KIND: dict[Any, tuple[str, ...]] = {
    int: INTEGERS,
    float: NUMBERS,
    str: WORDS_,
    Path: PATHS,
    Literal: WORDS_,
    list: PATHS,
}
FREE = {"--metric", "--device", "--folder", "--out", "--to", "--results", "--data"}
"""Options for which almost any value is valid; they have separate cases."""


@dataclass(frozen=True)
class Option:
    """An option of a command, and the type of its value."""

    command: tuple[str, ...]
    name: str
    kind: Any


@cache
def options_of() -> list[Option]:
    """Return the options of all commands, with the types of their annotations."""
    functions: dict[tuple[str, ...], Any] = {}

    def note(app: typer.Typer, path: tuple[str, ...]) -> None:
        if app.registered_callback is not None:
            functions[path] = app.registered_callback.callback
        functions.update({(*path, str(c.name)): c.callback for c in app.registered_commands})
        for group in app.registered_groups:
            assert group.typer_instance is not None
            note(group.typer_instance, (*path, group.name) if isinstance(group.name, str) else path)

    def walk(command: Any, path: tuple[str, ...]) -> Iterator[Option]:
        if path in BASES:
            hints = {
                p.name: p.annotation for p in inspect.signature(functions[path], eval_str=True).parameters.values()
            }
            for parameter in command.params:
                if parameter.param_type_name == "option" and parameter.name in hints:
                    (kind,) = kinds(hints[parameter.name]) - {None}
                    yield Option(path, parameter.opts[0], kind)
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, (*path, name))

    note(app_module.app, ())
    return list(walk(typer.main.get_command(app_module.app), ()))


def lissnas(folder: Path, *words: str) -> str:
    """Run a command and return its output; raise UserError for exit code 2, LissnasError for other nonzero codes."""
    buffers = io.BytesIO(), io.BytesIO()
    out = io.TextIOWrapper(buffers[0], "utf-8", write_through=True)
    err = io.TextIOWrapper(buffers[1], "utf-8", "backslashreplace", write_through=True)
    with chdir(folder), redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        process.run(lambda: app_module.app(args=list(words), prog_name="lissnas"))
    text = "".join(buffer.getvalue().decode() for buffer in buffers)
    text, code = " ".join(text.replace("│", " ").split()), ended.value.code or 0
    if "Traceback" in text or "\x1b" in text:
        raise RuntimeError(text)
    if code:
        raise (UserError if code == 2 else LissnasError)(f"exit code {code}: {text}")
    return text


def of_command(
    *words: str, message: str = "", passes: bool | None = False, refusal: type[LissnasError] = UserError
) -> Case:
    name = " ".join(word[:30] for word in words)
    return Case(f"lissnas {name!r}", partial(_command, words), {}, passes, message, refusal)


def _command(words: tuple[str, ...], folder: Path) -> str:
    return lissnas(folder, *words)


def replaced(base: tuple[str, ...], option: str, value: str) -> tuple[str, ...]:
    """Return the words with an option's value replaced, or added."""
    if option in base:
        at = base.index(option)
        return (*base[: at + 1], value, *base[at + 2 :])
    return (*base, option, value)


def options_with_wrong_values() -> list[Case]:
    """Return cases of every option of every command with values of the wrong type, out of range, or empty."""
    out = []
    for option in options_of():
        name, base = option.name, BASES[option.command]
        if name in FREE:
            continue
        if option.kind is bool:
            wrong: tuple[tuple[str, ...], ...] = ((f"{name}=maybe",), (f"--no-{name[2:]}",))
            out += [of_command(*option.command, *base, *words, message=name[2:]) for words in wrong]
            continue
        message = name[2:] if option.kind in (int, float) else ""
        values = (*OF_KIND[option.kind], *(("0",) if name == "--n" else ()))
        out += [of_command(*option.command, *replaced(base, name, value), message=message) for value in values]
    return out


def other_commands() -> list[Case]:
    """Return cases of other invalid arguments and combinations of arguments."""
    shrink = ("shrink", "--out", "out")
    custom = (*shrink, "--space", str(EXAMPLE / "space.yaml"))
    labelled = (*custom, "--labels", str(EXAMPLE / "labels.csv"))
    tabled = (*shrink, *TABLED)
    suggest = ("suggest", "--space", "nas_bench_macro", "--out")
    imports = ("data", "import")
    selections = (
        *(
            "",
            "@",
            "nasbench101@",
            "nasbench101@val",
            "nasbench101@val/mean",
            "nasbench101@val/mean/108",
            "none@val/max/1",
        ),
        *(
            "nasbench101@../../etc/passwd",
            "nasbench101@val/max/" + "9" * 5_000,
            "nasbench101@val/run" + "9" * 5_000 + "/1",
        ),
        *("nasbench101@val/max/٣", "nasbench101@val.[/x]/max/108", "transnas", "NASBENCH101", "nasbench101 ", "@@@@"),
    )
    words: list[tuple[str, ...]] = [
        ("zzz",),
        ("--zzz",),
        ("shrink",),
        ("shrink", "--out"),
        ("shrink", "out"),
        ("data", "zzz"),
        ("data", "import"),
        ("data", *TABLED),
        ("data", "--out", "out"),
        ("data", "--force", "list"),
        ("show",),
        ("show", "none", "none"),
        ("show", "file"),
        ("show", "loop"),
        ("show", "l" * 300),
        ("show", "\udcff"),
        ("show", "[/x]"),
        ("show", "s3:"),
        ("show", "s3://x"),
        ("show", "s3://../../x"),
        ("init", "file"),
        ("init", "file/x"),
        ("init", "loop"),
        ("init", "l" * 300),
        ("doctor", "x"),
        ("spaces", "x"),
        ("sync", "--all"),
        *((*shrink, "--benchmark", name) for name in selections),
        *((name, *TABLED, "--out", out) for name in ("shrink", "locality", "compare") for out in NO_FOLDERS),
        *(("data", *TABLED, "--out", out) for out in NO_FOLDERS),
        *(
            (*suggest, out)
            for out in ("out", "out.txt", "", ".", "file", "file/x.csv", "l" * 300 + ".csv", "loop/x.csv", ".csv/")
        ),
        *(
            (*tabled, option, "x")
            for option in ("--labels", "--metric", "--oracle-command", "--oracle-model", "--oracle-supernet")
        ),
        (*tabled, "--labels-from", "training"),
        (*tabled, "--space", "fairnas"),
        (*custom, "--table", "none"),
        custom,
        (*custom, "--labels", "file"),
        (*custom, "--labels", "loop.csv"),
        (*custom, "--labels", "l" * 300 + ".csv"),
        (*custom, "--labels", "none.parquet"),
        *((*labelled, "--metric", metric) for metric in ("arch", "status", "depth", "nonsense", "[/x]", "x" * 5_000)),
        *(
            (*custom, "--oracle-command", word)
            for word in ("", " ", "'", '"', "none_such", "./file", "/", "\\", "-", "./none x")
        ),
        *(
            (*custom, "--oracle-model", word)
            for word in ("", "file", "none.ubj", "none.json", ".", "loop", "l" * 300 + ".ubj")
        ),
        (*custom, "--oracle-model", str(ROOT / "pyproject.toml")),
        (*custom, "--oracle-supernet", "none"),
        (*custom, "--oracle-command", "true", "--labels-from", "training"),
        (*labelled, "--oracle-model", "x.ubj"),
        *(
            (*custom, "--oracle-command", "true", "--oracle-timeout", word)
            for word in ("nan", "-nan", "0", "-1", "1e-9")
        ),
        *(
            (*shrink, "--space", word)
            for word in ("", "none.yaml", "file", ".yaml", "loop.yaml", "l" * 300 + ".yaml", "s3://x/y.yaml")
        ),
        *(
            ("compare", *TABLED, "--out", "out", "--seeds", word)
            for word in ("", ",", "1-", "-1", "9-1", "0-99999999", "1e3", "0.5", "0,,1", "4294967296", "9" * 5_000)
        ),
        *(
            ("compare", *TABLED, "--out", "out", "--methods", word)
            for word in ("", ",", "all,lissnas", "lissnas nonsense", "LISSNAS", "lissnas;abs", "[/x]")
        ),
        ("report", "--data", "none"),
        ("report", "--data", "file", "--out", "out"),
        ("report", "--data", "loop", "--out", "out"),
        ("report", "--data", "l" * 300, "--out", "out"),
        *(
            (*imports, name, "file")
            for name in ("", "nonsense", "nasbench201/cifar10", "../nasbench101", "[/x]", "\udcff")
        ),
        *(
            (*imports, kind, place)
            for kind in official.KINDS
            for place in ("none", "loop", "l" * 300, "[/x]", "\udcff")
        ),
        (*imports, "nasbench101", str(EXAMPLE / "labels.csv"), "--to", "file"),
        ("search", *TABLED, "--out", "out", "--subspace", "file", "--device", "nonsense"),
        *(
            (*tabled, "--set", word)
            for word in ("shrink", "shrink=1", "=", ".=1", "srink.labels=30", "shrink.lables=30", "shrink.labels.x=1")
        ),
        *(
            (*tabled, "--set", f"shrink.labels={word}")
            for word in ("x", "", "[", "{", "1.5", "true", "-1", "*a", "!!python/name:os.system", "1" + "0" * 5_000)
        ),
        ("search", "--benchmark", "nonsense", "--out", "out", "--subspace", "none"),
        ("search", "--benchmark", "fairnas", "--out", "out", "--subspace", "none", "--table", "none"),
    ]
    return [
        *(of_command(*each) for each in words),
        *(of_command(*imports, kind, "file", refusal=LissnasError) for kind in official.KINDS),
        *(of_command(*imports, kind, ".", refusal=LissnasError) for kind in official.KINDS),
    ]


def other_results() -> list[Case]:
    """Return cases that pass the valid result of another stage."""
    shrink, search = ("shrink", *TABLED, "--out", "out"), ("search", *TABLED, "--out", "out")
    with_space = ("shrink", "--out", "out", "--space")
    words = (
        ("show", "other"),
        (*shrink, "--table", "other"),
        (*shrink, "--locality", "other"),
        (*with_space, "nas_bench_macro", "--oracle-supernet", "other"),
        (*with_space, "nas_bench_macro", "--oracle-model", "other"),
        (*with_space, "nasbench301", "--oracle-model", "other"),
        ("locality", *TABLED, "--out", "out", "--predictor", "other"),
        (*search, "--subspace", "other"),
        (*search, "--subspace", "other/metrics.json"),
        ("report", "--out", "out", "--data", "other"),
    )
    return [of_command(*each, message="other") for each in words]


def odd_places() -> list[tuple[str, ...]]:
    """Return commands that must succeed with odd file names."""
    out = []
    for name in ("[/x]", "[red]", "a b", "-x", "é", "\udcff", "a\nb", "%s", "$HOME", "'"):
        out += [
            ("init", f"./{name}"),
            ("suggest", "--space", "nas_bench_macro", "--n", "2", "--out", f"./{name}.csv"),
            ("data", "list", "--to", name),
        ]
    return out


def test_options_with_invalid_values(workplace: Path) -> None:
    """Run one in 16 cases: each takes a tenth of a second."""
    found = failures(options_with_wrong_values()[::16], workplace)
    assert not found, report(found)


def test_other_invalid_arguments(workplace: Path) -> None:
    found = failures(other_commands(), workplace)
    assert not found, report(found)


def test_results_of_another_stage_are_refused(workplace: Path) -> None:
    publish(workplace / "other", {"metrics.json": b"{}", "parameters.json": b"{}"})
    found = failures(other_results(), workplace)
    assert not found, report(found)


def test_odd_file_names_are_accepted(workplace: Path) -> None:
    found = []
    for words in odd_places():
        try:
            lissnas(workplace, *words)
        except Exception as error:
            found.append(f"{words}: {type(error).__name__}: {str(error)[-300:]}")
    assert not found, report(found)


def test_number_of_cases() -> None:
    """There are at least 1,000 cases, 200 of them of params.yaml, and no duplicate values."""
    leaf_values = [f"{'.'.join(path)} = {value}" for path, values in wrong_leaves() for value in values]
    parameters = [*whole_files(), *valid_params(), *no_files(), *missing(), *leaf_values]
    others = [*architectures(), *cells_of_labels(), *files_of_labels(), *parts_of_spaces(), *whole_spaces()]
    commands = [*options_with_wrong_values()[::16], *other_commands(), *other_results(), *odd_places()]
    assert len(parameters) >= 200
    assert len(commands) >= 150
    assert len(parameters) + len(others) + len(commands) >= 1_000
    assert len(set(leaf_values)) == len(leaf_values)
