"""Untrusted files, truncated, corrupted or hostile: a result or a lissnas error, no code execution, bounded memory."""

from __future__ import annotations

import base64
import bz2
import decimal
import io
import json
import lzma
import pickle
import random
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost

from lissnas.benchmarks import official
from lissnas.benchmarks.official import published_model_check
from lissnas.benchmarks.official.published_model import load_model
from lissnas.benchmarks.official.tfrecord import masked_crc
from lissnas.core import memory_limit as bounds
from lissnas.core.errors import LissnasError, UserError
from lissnas.core.rng import stream
from lissnas.oracles.label_table import read_labels
from lissnas.spaces import Space
from tests.faults.harness import MARK, Case, failures, peak, report
from tests.faults.test_bad_input import LABELS, PRODUCT, known_spaces
from tests.unit.benchmarks.test_official import (
    MICRO,
    bz2_pickle,
    infos201,
    tfrecord,
    torch_legacy,
    torch_zip,
    values101,
    whole201,
    whole_transnas,
)

SHORT = ("201 torch", "transnas torch")
"""Files that `make test` truncates and corrupts too."""
SPARE = 192 << 20
"""Memory limit of a reader in these tests, in bytes; the default is a gigabyte."""


@pytest.fixture(autouse=True)
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run each test in its temporary folder; check that no payload ran and that at most a gigabyte was used."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bounds, "BASE_BYTES", SPARE)
    before = peak()
    yield
    assert not list(tmp_path.rglob(MARK))
    assert peak() - before < 1 << 30


# -- valid files -----------------------------------------------------------------------------------
def packed(members: dict[str, bytes], kind: str = "tar") -> bytes:
    """Return a tar or zip archive of members."""
    sink = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(sink, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return sink.getvalue()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def one201() -> dict[str, Any]:
    """Return the results of one architecture, with few evaluations to keep files small."""
    infos = {k: v for k, v in infos201(0).items() if k == "12"}
    for state in infos.values():
        state["all_results"] = {key: value for key, value in state["all_results"].items() if key[1] == 777}
        for result in state["all_results"].values():
            result["eval_acc1es"] = {k: v for k, v in result["eval_acc1es"].items() if k.endswith("@11")}
            result["train_acc1es"] = {}
    return infos


def one_transnas() -> dict[str, Any]:
    data = whole_transnas()["data"]
    return {"data": {"micro": {MICRO[0]: {"class_scene": data["micro"][MICRO[0]]["class_scene"]}}}}


@cache
def valid_files() -> dict[str, tuple[str, str, bytes]]:
    """Return small valid files by title: benchmark, file name, content."""
    whole = {**whole201(), "arch2infos": {0: one201()}, "meta_archs": []}
    return {
        "tfrecord": ("nasbench101", "nb.tfrecord", tfrecord(values101()[:3])),
        "201 bz2": ("nasbench201", "nb.pbz2", bz2_pickle(whole)),
        "201 torch": ("nasbench201", "nb.pth", torch_legacy(whole)),
        "201 torch zip": ("nasbench201", "nb.pth", torch_zip(whole, zipfile.ZIP_DEFLATED)),
        "201 tar": ("nasbench201", "nb.tar", packed({"a/000000.pickle.pbz2": bz2_pickle(one201())})),
        "transnas torch": ("transnas", "t.pth", torch_legacy(one_transnas())),
        "transnas zip": ("transnas", "t.pth", torch_zip(one_transnas())),
    }


def titles() -> list[Any]:
    """Return the titles of the valid files; all but SHORT are marked as fault tests."""
    return [title if title in SHORT else pytest.param(title, marks=pytest.mark.faults) for title in valid_files()]


def convert(kind: str, name: str, folder: Path) -> object:
    return official.convert(kind, folder / name, official.digests(folder / name))


def of_file(
    title: str, kind: str, name: str, data: bytes, passes: bool | None = False, message: str | None = None
) -> Case:
    return Case(
        title, partial(convert, kind, name), {name: data}, passes, name if message is None else message, LissnasError
    )


def test_valid_files_are_read(tmp_path: Path) -> None:
    found = failures([of_file(title, *parts, passes=True) for title, parts in valid_files().items()], tmp_path)
    assert not found, report(found)


@pytest.mark.parametrize("title", titles())
def test_truncated_files(tmp_path: Path, title: str) -> None:
    kind, name, data = valid_files()[title]
    stride = max(1, len(data) // 150)
    cases = [of_file(f"{title} cut at {i}", kind, name, data[:i], None) for i in range(0, len(data), stride)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


def corrupted(data: bytes, rng: random.Random) -> bytes:
    """Return the data with some bytes flipped, replaced, removed, moved or repeated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out))
        how = rng.randrange(5)
        if how < 2:
            out[at] ^= 1 << rng.randrange(8)
        elif how == 2:
            out[at : at + 4] = rng.choice(
                (b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", bytes(rng.randrange(256) for _ in range(4)))
            )
        elif how == 3:
            del out[at : at + rng.randrange(1, 30)]
        else:
            out[at:at] = out[rng.randrange(len(out)) :][: rng.randrange(1, 30)]
        if not out:
            break
    return bytes(out)


@pytest.mark.parametrize("title", titles())
def test_corrupted_files(tmp_path: Path, title: str) -> None:
    kind, name, data = valid_files()[title]
    rng = random.Random(title)
    found = failures([of_file(f"{title} {i}", kind, name, corrupted(data, rng), None) for i in range(250)], tmp_path)
    assert not found, report(found)


# -- valid format, invalid content -----------------------------------------------------------------
def self_containing() -> list[Any]:
    out: list[Any] = [1]
    out.append(out)
    return out


def laughs(depth: int = 40) -> list[Any]:
    """Return a billion laughs: nested shared lists of a few hundred bytes that take gigabytes to print or compare."""
    out: list[Any] = ["ha"]
    for _ in range(depth):
        out = [out] * 9
    return out


def deep(depth: int = 200) -> list[Any]:
    out: list[Any] = []
    for _ in range(depth):
        out = [out]
    return out


ODD: tuple[Callable[[], Any], ...] = (
    *(
        lambda: None,
        lambda: True,
        lambda: -1,
        lambda: 0,
        lambda: 10**400,
        lambda: -(10**5_000),
        lambda: 2**63,
        lambda: 1e308,
    ),
    *(
        lambda: float("nan"),
        lambda: float("inf"),
        lambda: "",
        lambda: "x",
        lambda: "5",
        lambda: b"x",
        lambda: "\ud800",
        lambda: "\0",
    ),
    *(
        lambda: "9" * 100_000,
        list,
        dict,
        set,
        tuple,
        lambda: [[]],
        lambda: {1: 2},
        lambda: {"a": {}},
        lambda: [None] * 50,
    ),
    *(
        self_containing,
        laughs,
        deep,
        lambda: np.float64("nan"),
        lambda: np.float32(1),
        lambda: [0.5] * 2_000,
        lambda: "1" * 2_000,
    ),
)
"""Values that are invalid or unusual almost everywhere."""


def with_odd_part(value: Any, rng: random.Random) -> Any:
    """Return plain data with one part, or a key, replaced by an odd value."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)()
    if isinstance(value, list):
        at = rng.randrange(len(value))
        return [*value[:at], with_odd_part(value[at], rng), *value[at + 1 :]]
    key = rng.choice(list(value))
    if rng.random() < 0.1:
        other = rng.choice((None, -1, 10**5_000, "x", "", b"x", 1.5, (1, 2), ("cifar10", "x"), "ab", "9" * 100_000))
        return {(other if k == key else k): v for k, v in value.items()}
    if rng.random() < 0.1:
        return {k: v for k, v in value.items() if k != key}
    return {**value, key: with_odd_part(value[key], rng)}


def row101(rng: random.Random) -> bytes:
    """Return a record whose row, or the encoded message in it, is odd."""
    row = json.loads(values101()[0])
    at = rng.randrange(5)
    odd: tuple[Any, ...] = (
        "",
        "0" * 49,
        "1" * 49,
        5,
        -1,
        10**400,
        None,
        [],
        {},
        "\ud800",
        "x" * 1_000_000,
        True,
        1e308,
        "input,output",
        "AAAA",
        "é",
        "\0",
    )
    if rng.random() < 0.5:
        row[at] = rng.choice(odd)
        return json.dumps(row).encode()
    if rng.random() < 0.5:
        row[4] = base64.b64encode(corrupted(base64.b64decode(row[4]), rng)).decode()
        return json.dumps(row).encode()
    return corrupted(json.dumps(row).encode(), rng)


def with_odd_content(title: str, rng: random.Random) -> bytes:
    """Return a file of valid format with odd content."""
    if title == "tfrecord":
        return tfrecord([values101()[0], row101(rng), values101()[1]])
    if title.startswith("transnas"):
        value: Any = with_odd_part(one_transnas(), rng)
        return torch_legacy(value) if title == "transnas torch" else torch_zip(value)
    if title == "201 tar":
        return packed({"a/000000.pickle.pbz2": bz2_pickle(with_odd_part(one201(), rng))})
    value = with_odd_part({"arch2infos": {0: one201()}}, rng)
    forms: dict[str, Callable[[Any], bytes]] = {
        "201 bz2": bz2_pickle,
        "201 torch": torch_legacy,
        "201 torch zip": torch_zip,
    }
    return forms[title](value)


@pytest.mark.parametrize("title", titles())
def test_odd_content(tmp_path: Path, title: str) -> None:
    kind, name, _ = valid_files()[title]
    rng = random.Random(title)
    cases = [of_file(f"{title} {i}", kind, name, with_odd_content(title, rng), None) for i in range(200)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


# -- pickles that would run code -------------------------------------------------------------------
def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def calls(module: str, name: str, *args: bytes) -> bytes:
    """Return a pickle that calls a named function."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n(" + b"".join(args) + b"tR."


TOUCH = text(f"touch {MARK}")
HUGE = b"\x8a\x08" + struct.pack("<q", 2**62)


def hostile() -> dict[str, bytes]:
    """Return pickles that would run code, each in a different way."""
    named = {
        ("os", "system"): (TOUCH,),
        ("posix", "system"): (TOUCH,),
        ("nt", "system"): (TOUCH,),
        ("subprocess", "Popen"): (TOUCH,),
        ("subprocess", "getoutput"): (TOUCH,),
        ("builtins", "eval"): (text(f"open({MARK!r}, 'w')"),),
        ("builtins", "exec"): (text(f"open({MARK!r}, 'w')"),),
        ("builtins", "__import__"): (text("os"),),
        ("__builtin__", "eval"): (text(f"open({MARK!r}, 'w')"),),
        ("builtins", "open"): (text(MARK), text("w")),
        ("builtins", "getattr"): (text(""), text("join")),
        ("builtins", "compile"): (text("1"), text("x"), text("eval")),
        ("builtins", "bytearray"): (HUGE,),
        ("builtins", "range"): (HUGE,),
        ("io", "open"): (text(MARK), text("w")),
        ("_io", "FileIO"): (text(MARK), text("w")),
        ("pathlib", "Path"): (text("/etc/passwd"),),
        ("shutil", "rmtree"): (text("."),),
        ("importlib", "import_module"): (text("antigravity"),),
        ("runpy", "run_path"): (text("x.py"),),
        ("code", "interact"): (),
        ("pty", "spawn"): (text("sh"),),
        ("socket", "create_connection"): (text("127.0.0.1"),),
        ("webbrowser", "open"): (text("file:///"),),
        ("ctypes", "CDLL"): (text("libc.so.6"),),
        ("operator", "attrgetter"): (text("x"),),
        ("functools", "partial"): (),
        ("types", "FunctionType"): (),
        ("copyreg", "_reconstructor"): (),
        ("pickle", "loads"): (b"C\x02N.",),
        ("_pickle", "loads"): (b"C\x02N.",),
        ("marshal", "loads"): (b"C\x02N.",),
        ("torch._utils", "_rebuild_tensor_v2"): (b"N", b"K\x00", b"(" + HUGE + b"t", b"(K\x01t", b"\x89", b"}"),
        ("torch._utils", "_rebuild_parameter"): (),
        ("torch.storage", "_load_from_bytes"): (b"C\x02N.",),
        ("torch.serialization", "load"): (text("x"),),
        ("torch", "load"): (text("x"),),
        ("torch.jit", "load"): (text("x"),),
        ("numpy", "load"): (text("x"),),
        ("numpy", "fromfile"): (text("/etc/passwd"),),
        ("numpy", "memmap"): (text("/etc/passwd"),),
        ("numpy.core.multiarray", "_reconstruct"): (),
        ("numpy._core.multiarray", "_reconstruct"): (),
        ("numpy.testing._private.utils", "runstring"): (text("1"), b"}"),
        ("xgboost.core", "Booster"): (),
        ("lissnas.artifacts.atomic", "write"): (text(MARK), b"C\x01x"),
        ("lissnas.benchmarks.official.restricted", "load"): (text("x"),),
        ("__main__", "x"): (),
        ("sys", "exit"): (),
        ("os", "environ"): (),
        ("collections", "OrderedDict.fromkeys"): (),
        ("collections", "_sys.modules"): (),
        ("builtins", "set.__class__"): (),
        ("x" * 100_000, "y" * 100_000): (),
        ("é\x1b[31m", "z"): (),
    }
    out = {f"{module[:40]}.{name[:40]}": calls(module, name, *args) for (module, name), args in named.items()}
    system = text("os") + text("system")
    return out | {
        "STACK_GLOBAL": b"\x80\x04" + system + b"\x93" + TOUCH + b"\x85R.",
        "INST": b"(" + TOUCH + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + TOUCH + b"o.",
        "NEWOBJ": b"\x80\x02cos\nsystem\n" + TOUCH + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + system + b"\x93" + TOUCH + b"\x85}\x92.",
        "in a frame": b"\x80\x04\x95" + struct.pack("<Q", 11 + 14) + b"cos\nsystem\n" + TOUCH + b"\x85R.",
        "after a valid one": pickle.dumps({"a": 1})[:-1] + calls("os", "system", TOUCH),
        "as a key": b"}(" + calls("os", "system", TOUCH)[:-1] + b"Nu.",
        "BUILD of a name": b"cos\nsystem\n}b.",
        "a persistent id": b"(X\x07\x00\x00\x00storageX\x03\x00\x00\x00cpuK\x01tQ.",
        "a persistent id as text": b"Pos.system\n.",
    }


FORMS: dict[str, Callable[[bytes], tuple[str, str, bytes]]] = {
    "bare": lambda data: ("transnas", "t.pth", data),
    "bz2": lambda data: ("nasbench201", "nb.pbz2", bz2.compress(data)),
    "torch": lambda data: (
        "transnas",
        "t.pth",
        torch_legacy(None)[: -len(pickle.dumps(None, 2) + pickle.dumps([], 2))] + data,
    ),
    "torch zip": lambda data: ("transnas", "t.pth", packed({"archive/data.pkl": data}, "zip")),
    "tar": lambda data: ("nasbench201", "nb.tar", packed({"a/0.pickle.pbz2": bz2.compress(data)})),
    "bare in a tar": lambda data: ("nasbench201", "nb.tar", packed({"a/0.pickle.pbz2": data})),
    "a model": lambda data: ("nasbench301", "nb.zip", packed({"m/surrogate_model.model": b"\x80\x03" + data}, "zip")),
}


def test_pickles_that_would_run_code_are_refused(tmp_path: Path) -> None:
    cases = [
        of_file(f"{name} {form}", *make(data), message="refuses to load: it names")
        for name, data in hostile().items()
        for form, make in FORMS.items()
    ]
    found = failures(cases, tmp_path)
    assert not found, report(found)


STAND_IN = b"ccollections\nOrderedDict\n"


def malformed() -> dict[str, bytes]:
    """Return pickles that name no function, but are malformed or request huge memory."""
    scalar, dtype = b"cnumpy.core.multiarray\nscalar\n(", b"cnumpy\ndtype\n(X\x02\0\0\0%sI0\nI1\ntR"

    def size(code: bytes, n: int) -> bytes:
        return b"\x80\x05" + code + struct.pack("<Q", n) + b"xx."

    ladder = b"]" + b"".join(b"q" + bytes([i]) + b"]" + b"h" + bytes([i]) * 1 + b"a" for i in range(100)) + b"."
    return {
        "a memo of billions": b"\x80\x02]r" + struct.pack("<I", 2**32 - 2) + b".",
        "a memo of hundreds of millions": b"\x80\x02]r" + struct.pack("<I", 2**28) + b".",
        "a memo by text": b"]p4000000000\n.",
        "a memo beyond all": b"]p" + b"9" * 5_000 + b"\n.",
        "a negative memo": b"]p-1\n.",
        "what no memo holds": b"h\x07.",
        **{
            f"{n} bytes of {code!r}": size(code, n)
            for code in (b"\x8d", b"\x8e", b"\x96", b"\x95")
            for n in (2**63, 2**64 - 1, 2**40, 2**33)
        },
        "a long of billions of digits": b"\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "a negative long": b"\x8b" + struct.pack("<i", -1) + b".",
        "an int of digits": b"I" + b"9" * 100_000 + b"\n.",
        "a long of digits": b"L" + b"9" * 100_000 + b"L\n.",
        "a float of nothing": b"F\n.",
        "a float that is none": b"Fx\n.",
        "an unknown opcode": b"\xff.",
        "an unknown protocol": b"\x80\xff.",
        "an empty stack": b".",
        "no mark": b"t.",
        "marks": b"(" * 100_000 + b".",
        "tuples of tuples": b")" + b"\x85" * 100_000 + b".",
        "an out-of-band buffer": b"\x80\x05\x97.",
        "a read-only buffer": b"\x80\x05\x98.",
        "extensions": b"\x80\x02\x84" + struct.pack("<i", 2**31 - 1) + b".",
        "a negative extension": b"\x80\x02\x84" + struct.pack("<i", -1) + b".",
        "items of a list for a dictionary": b"](K\x01K\x02u.",
        "items added to nothing": b"N(K\x01e.",
        "an unhashable key": b"}(]Nu.",
        "attributes of a dictionary": b"}}X\x01\x00\x00\x00aK\x01sb.",
        "slots of a list": b"]N}X\x01\x00\x00\x00aK\x01s\x86b.",
        "a call of a dictionary": b"})R.",
        "a call of a number": b"K\x01)R.",
        "a call with no tuple": STAND_IN + b"K\x01R.",
        "a dictionary of a text": STAND_IN + b"(X\x02\x00\x00\x00abtR.",
        "a dictionary of itself": STAND_IN + b"(}tR.",
        "text that is no UTF-8": b"X\x02\x00\x00\x00\xff\xfe.",
        "a name of no text": b"\x80\x04K\x01K\x02\x93.",
        "a scalar of objects": scalar + dtype % b"O8" + b"C\x08aaaaaaaatR.",
        "a scalar of many numbers": scalar + dtype % b"f8" + b"C\x10aaaaaaaaaaaaaaaatR.",
        "a dtype of no order": dtype % b"f8" + b"(K\x03X\x01\0\0\0xt.b.",
        "a dtype built of nothing": dtype % b"f8" + b"Nb.",
        "a dtype built of a text": dtype % b"f8" + b"X\x01\0\0\0<b.",
        "a dtype of text": b"cnumpy\ndtype\n(X\x03\x00\x00\x00U99tR.",
        "a list of itself": b"]q\x00h\x00a.",
        "lists of each other": ladder,
        "a text copied a hundred thousand times": b"(c_codecs\nencode\nq\x00"
        + b"X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"q\x01X\x06\x00\x00\x00latin1q\x02"
        + b"h\x00h\x01h\x02\x86R" * 100_000 + b"t.",
        "a million empty dictionaries": b"(" + b"}" * 1_000_000 + b"t.",
    }  # fmt: skip


@pytest.mark.faults
def test_malformed_and_memory_exhausting_pickles(tmp_path: Path) -> None:
    cases = [
        of_file(f"{name} {form}", *FORMS[form](data))
        for name, data in malformed().items()
        for form in ("bare", "bz2", "torch zip")
    ]
    found = failures(cases, tmp_path)
    assert not found, report(found)


def bombs() -> dict[str, tuple[str, str, bytes]]:
    """Return decompression bombs: files of a few kilobytes that unpack to gigabytes."""
    zeros = bz2.compress(
        b"\x80\x04\x8d" + struct.pack("<Q", 3 << 30) + bytes(64 << 20)
    )  # a prefix of the text is enough
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a/data.pkl", "w") as member,
    ):
        member.write(b"\x80\x04\x8d" + struct.pack("<Q", 2 << 30))
        for _ in range(512):
            member.write(bytes(1 << 20))
    models = io.BytesIO()
    with zipfile.ZipFile(models, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i in range(2):
            with archive.open(f"m{i}/surrogate_model.json", "w") as member:
                for _ in range(400):
                    member.write(b" " * (1 << 20))
    return {
        "bz2": ("nasbench201", "nb.pbz2", zeros),
        "bz2 in a tar": ("nasbench201", "nb.tar", packed({"a/0.pickle.pbz2": zeros})),
        "a deflated pickle": ("transnas", "t.pth", sink.getvalue()),
        "deflated models": ("nasbench301", "nb.zip", models.getvalue()),
    }


@pytest.mark.faults
def test_decompression_bombs(tmp_path: Path) -> None:
    found = failures([of_file(name, *parts) for name, parts in bombs().items()], tmp_path)
    assert not found, report(found)


# -- archives --------------------------------------------------------------------------------------
def header(
    name: str, size: bytes = b"%011o\0" % 4, kind: bytes = b"0", link: str = "", magic: bytes = b"ustar\x0000"
) -> bytes:
    """Return the header of a tar member, with a correct checksum for any content."""
    block = bytearray(512)
    block[:100] = name.encode()[:100].ljust(100, b"\0")
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136] = size[:12].ljust(12, b"\0")
    block[136:148], block[156:157] = b"00000000000\0", kind
    block[157:257] = link.encode()[:100].ljust(100, b"\0")
    block[257:265] = magic
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def tars() -> dict[str, bytes]:
    """Return tar archives with hostile members."""
    name, data = "a/0.pickle.pbz2", bz2_pickle(one201())
    whole = packed({name: data})
    body = data.ljust(-(-len(data) // 512) * 512, b"\0")
    real = b"%011o\0" % len(data)
    end = bytes(1024)
    packer = zlib.compressobj(1, wbits=31)
    zeros = packer.compress(header("././@LongLink", b"\x80\0\0\0\0\0\0\0\x80\0\0\0", b"L"))
    zeros += b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()

    def pax(records: bytes) -> bytes:
        return header("p", b"%011o\0" % len(records), b"x") + records.ljust(512, b"\0")

    out = {
        **{
            f"a {what}": header(name, b"0" * 11, kind, "/etc/passwd") + end
            for what, kind in (
                ("link", b"1"),
                ("symbolic link", b"2"),
                ("device", b"3"),
                ("block device", b"4"),
                ("folder", b"5"),
                ("pipe", b"6"),
                ("strange thing", b"Z"),
            )
        },
        "a link to a member": whole[: -len(end)] + header("b/1.pickle.pbz2", b"0" * 11, b"1", name) + end,
        "a link out of it": header("b", b"0" * 11, b"2", "/")
        + header("b/etc/0.pickle.pbz2", b"0" * 11, b"1", "../../etc/passwd")
        + end,
        "a negative size": header(name, b"\xff" * 12) + body + end,
        "a size of 2^63": header(name, b"\x80\0\0\0\x80" + bytes(7)) + body + end,
        "a size of 2^95": header(name, b"\x80" + b"\xff" * 11) + body + end,
        "a size of text": header(name, b"xxxxxxxxxxxx") + body + end,
        "a size too large": header(name, b"%011o\0" % (1 << 32)) + body + end,
        "a size of nothing": header(name, b"") + body + end,
        "a negative size first": header("x", b"\xff" * 12) + header(name, real) + body + end,
        "a long name of gigabytes": header("././@LongLink", b"\x80\0\0\0\0\0\0\x02\0\0\0\0", b"L") + body + end,
        "a long name cut off": header("././@LongLink", b"%011o\0" % 100, b"L"),
        "long names of long names": header("././@LongLink", b"%011o\0" % 8, b"L") * 5_000 + end,
        "pax records of gigabytes": header("p", b"\x80\0\0\0\0\0\0\x02\0\0\0\0", b"x") + body + end,
        "a pax size that is negative": pax(b"12 size=-5\n\n") + header(name, real) + body + end,
        "a pax size of text": pax(b"11 size=x1\n") + header(name, real) + body + end,
        "a pax size of 2^70": pax(b"30 size=1180591620717411303424\n") + header(name, real) + body + end,
        "a pax record of no length": pax(b"0 a=b\n") + header(name, real) + body + end,
        "a pax record of huge length": pax(b"99999999999999999999 a=b\n") + header(name, real) + body + end,
        "a pax path of bytes": pax(b"15 path=\xff\xfe\xfd\n\n") + header(name, real) + body + end,
        "a sparse file": header(name, real, b"S") + body + end,
        "a sparse file by pax": pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
        + header(name, real)
        + body
        + end,
        "a sparse map of text": pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n")
        + header(name, b"%011o\0" % 512)
        + b"x\n" * 256
        + end,
        "a wrong checksum": whole[:148] + b"0000000\0" + whole[156:],
        "no end": whole[: len(body) + 512],
        "nothing": end,
        "only zeros": bytes(10_240),
        "a wrong member": packed({name: data, "a/1.pickle.pbz2": b"BZh9xxxx"}),
        "an empty member": packed({name: data, "a/1.pickle.pbz2": b""}),
        "gzip around noise": b"\x1f\x8b\x08" + bytes(20),
        "xz around noise": lzma.compress(bytes(2_000))[:60],
        "bz2 around noise": bz2.compress(whole)[:-9],
        "gzip around zeros": zeros,
    }
    return out


def test_tars_with_hostile_members(tmp_path: Path) -> None:
    cases = [of_file(f"tar {name}", "nasbench201", "nb.tar", data, None) for name, data in tars().items()]
    found = failures(cases, tmp_path)
    assert not found, report(found)


def test_member_names_outside_the_folder(tmp_path: Path) -> None:
    """Nothing is unpacked to disk, so such names have no effect."""
    before = {path for path in tmp_path.parent.rglob("*") if path.is_file()}
    names = (
        "../../planted.pickle.pbz2",
        "/tmp/planted.pickle.pbz2",
        "C:\\planted.pickle.pbz2",
        "~/planted.pickle.pbz2",
        "a\nb.pickle.pbz2",
    )
    cases = [
        of_file(f"tar {name!r}", "nasbench201", "nb.tar", packed({name: bz2_pickle(one201())}), True) for name in names
    ]
    model = json.dumps({"not": "a model"}).encode()
    cases += [
        of_file(f"zip {name!r}", "nasbench301", "nb.zip", packed({f"{name}/surrogate_model.model": model[1:]}, "zip"))
        for name in ("../..", "/tmp", "C:", "~", "a\nb", "\U0001f600", ".", "")
    ]
    found = failures(cases, tmp_path)
    assert not found, report(found)
    assert {path for path in tmp_path.parent.rglob("*") if path.is_file()} == before


def zips() -> dict[str, bytes]:
    """Return broken zip archives with the pickle that torch writes."""
    whole = packed({"a/data.pkl": pickle.dumps(one_transnas(), 2)}, "zip")
    directory = whole.rindex(b"PK\x01\x02")

    def patched(at: int, data: bytes) -> bytes:
        return whole[:at] + data + whole[at + len(data) :]

    last = whole.rindex(b"PK\x05\x06")
    return {
        "encrypted": patched(directory + 8, b"\x01\0"),
        "a strange flag": patched(directory + 8, b"\xff\xff"),
        "a name that is no UTF-8": patched(directory + 8, b"\0\x08")[: directory + 46]
        + b"\xff"
        + whole[directory + 47 :],
        "an unknown method": patched(directory + 10, b"\x63\0"),
        "a wrong method": patched(directory + 10, b"\x08\0"),
        "LZMA": patched(directory + 10, b"\x0e\0"),
        "bz2": patched(directory + 10, b"\x0c\0"),
        "a wrong checksum": patched(directory + 16, b"\0\0\0\0"),
        "a size of 4 GB": patched(directory + 20, b"\xfe\xff\xff\xff\xfe\xff\xff\xff"),
        "a size in zip64": patched(directory + 20, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        "a name of 65,535 bytes": patched(directory + 28, b"\xff\xff"),
        "an extra field of 65,535 bytes": patched(directory + 30, b"\xff\xff"),
        "another disk": patched(directory + 34, b"\xff\xff"),
        "a start beyond the end": patched(directory + 42, b"\xff\xff\xff\x7f"),
        "a start elsewhere": patched(directory + 42, b"\x05\0\0\0"),
        "65,535 members": patched(last + 8, b"\xff\xff\xff\xff"),
        "a directory of 4 GB": patched(last + 12, b"\xff\xff\xff\xff"),
        "a directory elsewhere": patched(last + 16, b"\xff\xff\xff\x7f"),
        "a comment": patched(last + 20, b"\xff\xff"),
        "two pickles": packed({"a/data.pkl": b"N.", "b/data.pkl": b"N."}, "zip"),
        "a folder": packed({"a/data.pkl/": b""}, "zip"),
        "a version of the future": patched(directory + 6, b"\xff\xff"),
        "nothing": b"PK\x05\x06" + bytes(18),
        "a beginning": b"PK\x03\x04",
    }


def test_broken_zips(tmp_path: Path) -> None:
    found = failures(
        [of_file(f"zip {name}", "transnas", "t.pth", data, None) for name, data in zips().items()], tmp_path
    )
    assert not found, report(found)


def test_links_out_of_a_folder_are_not_followed(tmp_path: Path) -> None:
    """Files outside the folder are not read through links."""
    outside = tmp_path / "outside"
    outside.write_bytes(bz2_pickle(one201()))
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "000000.pickle.pbz2").symlink_to(outside)
    (folder / "000001.pickle.pbz2").symlink_to("000001.pickle.pbz2")
    (folder / "surrogate_model.json").symlink_to(outside)
    (folder / "data_config.json").symlink_to("/etc/hostname")
    for kind in ("nasbench201", "nasbench301"):
        with pytest.raises(LissnasError, match=r"holds no (architectures|XGBoost model)"):
            official.convert(kind, folder, official.digests(folder))


# -- structures that expand in memory --------------------------------------------------------------
def structures() -> dict[str, tuple[str, str, bytes]]:
    """Return small files with shared or sparse content that could expand to an enormous size in memory."""
    states = one201()["12"]
    two = {"12": {**states, "arch_str": laughs()}, "200": {**states, "arch_str": laughs()}}
    cyclic = {"12": {**states, "arch_str": self_containing()}, "200": {**states, "arch_str": self_containing()}}
    curve = [0.5] * 1_000
    task = {"class_scene": {"metrics": {f"test_m{i}": curve for i in range(20_000)}}}
    endless = {"class_scene": {"metrics": {"valid_top1": [0.5] * 1_000_000}}}
    names = [
        f"64-41414-{a}_{b}{c}_{d}{e}{f}"
        for a in range(4)
        for b in range(4)
        for c in range(4)
        for d in range(4)
        for e in range(4)
        for f in range(2)
    ]
    few = {"class_scene": {"metrics": {"valid_top1": [0.5]}}}
    sparse = dict.fromkeys(names, few) | {names[0]: task}
    runs = [values101()[0].replace(b", 36, ", b", %d, " % epochs) for epochs in range(1, 4_000)]
    return {
        "names of gigabytes": ("nasbench201", "nb.pbz2", bz2_pickle({"arch2infos": {0: two}})),
        "names of themselves": ("nasbench201", "nb.pbz2", bz2_pickle({"arch2infos": {0: cyclic}})),
        "results of themselves": (
            "nasbench201",
            "nb.pbz2",
            bz2_pickle(
                {"arch2infos": {0: {"12": {**states, "all_results": {("cifar10", i): laughs() for i in range(9)}}}}}
            ),
        ),
        "twenty thousand metrics": ("transnas", "t.pth", torch_legacy({"data": {"micro": sparse}})),
        "a million epochs": ("transnas", "t.pth", torch_legacy({"data": {"micro": {names[0]: endless}}})),
        "a metric of gigabytes": (
            "transnas",
            "t.pth",
            torch_legacy({"data": {"micro": {names[0]: {"class_scene": {"metrics": {"valid_top1": laughs()}}}}}}),
        ),
        "a network of itself": (
            "transnas",
            "t.pth",
            torch_legacy({"data": {"micro": {names[0]: {"class_scene": self_containing()}}}}),
        ),
        "four thousand lengths": ("nasbench101", "nb.tfrecord", tfrecord(runs)),
        "four thousand runs": ("nasbench101", "nb.tfrecord", tfrecord(values101()[:1] * 4_000)),
    }


@pytest.mark.faults
def test_structures_that_expand_in_memory(tmp_path: Path) -> None:
    found = failures([of_file(name, *parts, passes=None) for name, parts in structures().items()], tmp_path)
    assert not found, report(found)


def tfrecords() -> dict[str, bytes]:
    """Return records with hostile headers or rows."""
    good = values101()[0]

    def head(length: int, crc: int | None = None) -> bytes:
        raw = struct.pack("<Q", length)
        return raw + struct.pack("<I", masked_crc(raw) if crc is None else crc)

    row = json.loads(good)
    rows = {
        "an array of arrays": b"[" * 200_000 + b"]" * 200_000,
        "an object of objects": b'{"a":' * 100_000,
        "digits": b"[1" + b"0" * 100_000 + b"]",
        "epochs of digits": good.replace(b", 36, ", b", 1" + b"0" * 5_000 + b", "),
        "epochs of 1e400": good.replace(b", 36, ", b", 1e400, "),
        "epochs of NaN": good.replace(b", 36, ", b", NaN, "),
        "no JSON": b"\xff\xfe",
        "NUL": bytes(100),
        "a square of a million": json.dumps([*row[:2], "0" * 1_000_000, *row[3:]]).encode(),
        "a million operations": json.dumps([*row[:3], ",".join(["input"] * 1_000_000), row[4]]).encode(),
        "a surrogate": json.dumps([*row[:3], "\ud800", row[4]]).encode(),
        "metrics that nest": json.dumps([*row[:4], base64.b64encode(b"\x0a\xff\xff\xff\xff\x0f").decode()]).encode(),
        "metrics of varints": json.dumps([*row[:4], base64.b64encode(b"\x08" + b"\xff" * 1_000).decode()]).encode(),
    }
    return {
        **{
            f"a length of {n}": head(n) + bytes(64)
            for n in (0, 1, 2**24, 2**24 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
        },
        **{f"a length of {n} without its checksum": head(n, 0) + bytes(64) for n in (5, 2**63, 2**64 - 1)},
        "zeros": bytes(4_096),
        "ones": b"\xff" * 4_096,
        **{name: tfrecord([good, row]) for name, row in rows.items()},
    }


@pytest.mark.faults
def test_records_with_hostile_headers_and_rows(tmp_path: Path) -> None:
    cases = [of_file(f"tfrecord {name}", "nasbench101", "nb.tfrecord", data) for name, data in tfrecords().items()]
    found = failures(cases, tmp_path)
    assert not found, report(found)


# -- models ----------------------------------------------------------------------------------------
@cache
def booster() -> xgboost.Booster:
    rng = np.random.default_rng(0)
    data = xgboost.DMatrix(rng.random((200, 5)), rng.random(200))
    return xgboost.train({"seed": 0, "nthread": 1, "max_depth": 4}, data, 3)


def model_corruptions() -> dict[str, Callable[[dict[str, Any]], object]]:
    """Return changes of a model after which a prediction would read outside of it, or never end."""

    def tree(model: dict[str, Any]) -> Any:
        return model["learner"]["gradient_booster"]["model"]["trees"][1]

    def forest(model: dict[str, Any]) -> Any:
        return model["learner"]["gradient_booster"]["model"]

    return {
        "a branch beyond the tree": lambda m: tree(m)["left_children"].__setitem__(0, 10_000),
        "a negative branch": lambda m: tree(m)["right_children"].__setitem__(0, -5),
        "a branch back to the root": lambda m: tree(m)["left_children"].__setitem__(1, 0),
        "a branch to itself": lambda m: tree(m)["left_children"].__setitem__(1, 1),
        "a cycle": lambda m: tree(m)["right_children"].__setitem__(1, tree(m)["left_children"][0]),
        "both branches the same": lambda m: tree(m)["right_children"].__setitem__(0, tree(m)["left_children"][0]),
        "half a leaf": lambda m: tree(m)["left_children"].__setitem__(0, -1),
        "a feature beyond the model": lambda m: tree(m)["split_indices"].__setitem__(0, 10_000),
        "a negative feature": lambda m: tree(m)["split_indices"].__setitem__(0, -1),
        "too few branches": lambda m: tree(m)["left_children"].pop(),
        "too few features": lambda m: tree(m)["split_indices"].pop(),
        "a group beyond the model": lambda m: forest(m)["tree_info"].__setitem__(0, 7),
        "a negative group": lambda m: forest(m)["tree_info"].__setitem__(0, -1),
        "too few groups": lambda m: forest(m)["tree_info"].pop(),
        "rounds of other trees": lambda m: forest(m)["iteration_indptr"].__setitem__(-1, 99),
        "rounds backwards": lambda m: forest(m)["iteration_indptr"].__setitem__(1, 3),
        "no rounds": lambda m: forest(m)["iteration_indptr"].clear(),
        "no trees": lambda m: forest(m).pop("trees"),
    }


@pytest.mark.parametrize("name", list(model_corruptions()))
def test_corrupted_model_is_refused(name: str) -> None:
    model = json.loads(booster().save_raw("json"))
    published_model_check.check(model, 5)
    model_corruptions()[name](model)
    with pytest.raises((ValueError, IndexError)):
        published_model_check.check(model, 5)


def models() -> dict[str, bytes]:
    """Return models that XGBoost reads wrongly, without end, or not at all."""
    ubj, text = bytes(booster().save_raw("ubj")), bytes(booster().save_raw("json"))
    model = json.loads(text)
    model["learner"]["gradient_booster"]["model"]["trees"][1]["split_indices"][0] = 10_000_000
    return {
        "a hundred thousand brackets": b'{"learner":' + b"[" * 100_000,
        "an array of 2^34 numbers": ubj[:2] + b"L\0\0\0\0\0\0\0\x07learner[$D#L" + struct.pack(">q", 2**34) + bytes(99),
        "a feature beyond the model": json.dumps(model).encode(),
    }  # fmt: skip


def test_model_of_an_official_file_is_loaded_in_another_process_first(tmp_path: Path) -> None:
    nested = packed({"m/surrogate_model.json": models()["a hundred thousand brackets"]}, "zip")
    found = failures([of_file("a model", "nasbench301", "nb.zip", nested, message="XGBoost can't load it")], tmp_path)
    assert not found, report(found)


@pytest.mark.faults
def test_models_that_xgboost_misreads_are_refused(tmp_path: Path) -> None:
    def load(data: bytes, folder: Path) -> object:
        return load_model(data)

    found = failures([Case(name, partial(load, data), message=" ") for name, data in models().items()], tmp_path)
    assert not found, report(found)
    rows = np.random.default_rng(1).random((9, 5), np.float32)
    read = load_model(bytes(booster().save_raw("json")))
    assert (read.inplace_predict(rows) == booster().inplace_predict(rows)).all()


# -- labels in parquet -----------------------------------------------------------------------------
def table(**changed: Any) -> dict[str, Any]:
    rows = [line.split(",") for line in LABELS]
    columns: dict[str, Any] = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    columns["accuracy"] = [float(value) for value in columns["accuracy"]]
    return columns | changed


def parquet(columns: Any, **how: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), sink, **how)
    return sink.getvalue()


def repeated(value: str, n: int) -> Any:
    """Return a column that repeats one value in the memory of one cell."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int8)), pa.array([value]))


def of_parquet(name: str, data: bytes, passes: bool | None = False) -> Case:
    def run(folder: Path) -> object:
        return read_labels(folder / "labels.parquet", known_spaces()["product"])

    return Case(f"parquet {name}", run, {"labels.parquet": data}, passes, "labels.parquet")


def parquets() -> list[Case]:
    """Return cases of labels with every parquet type, as metric and as position, and of invalid files."""
    n = len(LABELS) - 1
    of_type = {
        "lists": pa.array([[1.0]] * n),
        "deep lists": pa.array([[[[[[1.0]]]]]] * n),
        "structures": pa.array([{"a": 1.0}] * n),
        "mappings": pa.array([[("a", 1.0)]] * n, pa.map_(pa.string(), pa.float64())),
        "bytes": pa.array([b"\xff\xfe"] * n),
        "wide bytes": pa.array([b"abcd"] * n, pa.binary(4)),
        "texts": pa.array(["x" * 1_000] * n),
        "truths": pa.array([True] * n),
        "nothing": pa.nulls(n),
        "NaN": pa.array([float("nan")] * n),
        "infinity": pa.array([float("inf")] * n),
        "decimals": pa.array([decimal.Decimal("1e30")] * n),
        "days beyond the calendar": pa.array([2**31 - 1] * n, pa.date32()),
        "times before the calendar": pa.array([-(2**62)] * n, pa.timestamp("us")),
        "nanoseconds": pa.array([1_234_567_891] * n, pa.timestamp("ns")),
        "a zone that is none": pa.array([1] * n, pa.timestamp("ms", "no/where")),
        "durations": pa.array([2**62] * n, pa.duration("s")),
        "times of day": pa.array([1] * n, pa.time64("ns")),
        "halves": pa.array(np.ones(n, np.float16)),
        "a dictionary": pa.array(["x"] * n).dictionary_encode(),
        "the same": pa.array([5.0] * n),
    }
    text = parquet(table(width1=pa.array([f"w{i:05d}" for i in range(n)])), compression="NONE")
    # Number of rows as encoded in the footer: type of the field, then zigzag varint.
    counted = bytes([0x16, 2 * n & 0x7F | 0x80, 2 * n >> 7])
    start = len(text) - 8 - int.from_bytes(text[-8:-4], "little")
    out = [
        of_parquet(f"{column} of {name}", parquet(table(**{column: values})))
        for name, values in of_type.items()
        for column in ("accuracy", "width1")
    ]
    whole = {
        "no columns": parquet(pa.table({})),
        "no rows": parquet({name: pa.array([], pa.string()) for name in table()}),
        "a column twice": parquet(pa.table([*table().values(), table()["width1"]], names=[*table(), "width1"])),
        "three thousand columns": parquet({f"c{i}": ["x"] for i in range(3_000)}),
        "fifty million rows": parquet({"arch": repeated("x", 50_000_000)}),
        "a text of gigabytes": parquet({"arch": repeated("x" * (4 << 20), 400)}, compression="zstd"),
        "texts of gigabytes": texts_of_gigabytes("arch"),
        "a footer of fewer rows": text[:start] + text[start:].replace(counted, b"\x16\xc6\x01", 1),
        "a footer of less than no rows": text[:start] + text[start:].replace(counted, b"\x16\xc7\x01", 1),
        "texts that are no UTF-8": text.replace(b"w00007", b"w\xff\xfe007"),
        "no footer": text[:-8],
        "a footer of 4 GB": text[:-8] + b"\xff\xff\xff\xff" + text[-4:],
        "an encrypted footer": text[:-4] + b"PARE",
        "only the marks": b"PAR1PAR1",
        "CSV": "\n".join(LABELS).encode(),
    }  # fmt: skip
    return [
        *out,
        *(of_parquet(name, data) for name, data in whole.items()),
        of_parquet("as it is", parquet(table()), True),
    ]


def texts_of_gigabytes(column: str) -> bytes:
    """Return a megabyte of parquet that unpacks to two gigabytes of distinct texts."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema({column: pa.string()}), compression="zstd", use_dictionary=False) as writer:
        for start in range(0, 20_000, 1_000):
            writer.write_table(pa.table({column: [f"{i:06d}{'x' * 100_000}" for i in range(start, start + 1_000)]}))
    return sink.getvalue()


@pytest.fixture(scope="module")
def read_members() -> Callable[[Path, Space], object]:
    """Return the reader, imported before the memory of a test is measured."""
    from lissnas.spaces import members

    return members.read_members


@pytest.mark.faults
def test_members_in_parquet(read_members: Callable[[Path, Space], object], tmp_path: Path) -> None:
    """Read members of a shrunk space without a manifest."""
    space = known_spaces()["nas_bench_macro"]
    names = space.format(space.sample(100, stream(0, "members")))
    good, rng = parquet({"arch": names}, compression="NONE"), random.Random(1)
    files = {
        "texts of gigabytes": texts_of_gigabytes("arch"),
        "no UTF-8": good.replace(names[7].encode(), b"\xff" * len(names[7])),
        "numbers": parquet({"arch": [1, 2]}),
        "no column": parquet({"arc": names}),
        "an encrypted footer": good[:-4] + b"PARE",
        "another space's": parquet({"arch": ["3" * 8]}),
    }

    def of_members(name: str, data: bytes, passes: bool | None) -> Case:
        def run(folder: Path) -> object:
            return read_members(folder / "subspace.parquet", space)

        return Case(f"members {name}", run, {"subspace.parquet": data}, passes, "subspace.parquet")

    cases = [of_members("as they are", good, True), *(of_members(name, data, False) for name, data in files.items())]
    cases += [of_members(f"flipped {i}", corrupted(good, rng), None) for i in range(300)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


@pytest.mark.faults
def test_labels_in_parquet_of_every_type(tmp_path: Path) -> None:
    found = failures(parquets(), tmp_path)
    assert not found, report(found)


def test_truncated_and_corrupted_labels_in_parquet(tmp_path: Path) -> None:
    data, rng = parquet(table(), compression="NONE"), random.Random(0)
    cases = [of_parquet(f"cut at {i}", data[:i]) for i in range(0, len(data), len(data) // 150)]
    cases += [of_parquet(f"flipped {i}", corrupted(data, rng), None) for i in range(300)]
    found = failures(cases, tmp_path)
    assert not found, report(found)


@pytest.mark.faults
def test_memory_limit_in_a_fresh_process(tmp_path: Path) -> None:
    """Libraries allocate memory and start threads on first use."""
    kind, name, data = valid_files()["201 tar"]
    (tmp_path / name).write_bytes(data)
    (tmp_path / "labels.parquet").write_bytes(parquet(table()))
    (tmp_path / "space.yaml").write_text(PRODUCT)
    code = (
        "from pathlib import Path\nfrom lissnas.benchmarks import official\nfrom lissnas.oracles import read_labels\n"
        "from lissnas.spaces.declared import read_space\n"
        "print(len(read_labels(Path('labels.parquet'), read_space(Path('space.yaml'))).archs))\n"
        f"print(len(official.convert({kind!r}, Path({name!r}), official.digests(Path({name!r})))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == [str(len(LABELS) - 1), "4"], done.stderr


# -- images ----------------------------------------------------------------------------------------
@pytest.mark.faults
def test_cifar_archive_with_another_digest_is_not_unpickled(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed (the extra `torch`)")
    from lissnas.nets import images

    payload = calls("os", "system", TOUCH)
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (batches / name).write_bytes(payload)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(tars()["a link out of it"])
    with pytest.raises(UserError, match="CIFAR-10 is not in"):
        images.cifar(tmp_path, 10, download=False)


def test_invalid_images_are_reported(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed (the extra `torch`)")
    from PIL import Image

    from lissnas.nets import images

    sink = io.BytesIO()
    Image.new("RGB", (40, 40)).save(sink, "PNG")
    good = sink.getvalue()
    wide = good[:16] + struct.pack(">II", 60_000, 60_000) + good[24:]
    wide = wide[:29] + struct.pack(">I", zlib.crc32(wide[12:29])) + wide[33:]
    for name, data in {
        "cut": good[:60],
        "empty": b"",
        "text": b"text",
        "flipped": good[:45] + bytes(10) + good[55:],
        "wide": wide,
    }.items():
        folder = tmp_path / name
        for split in ("train", "val"):
            (folder / split / "a").mkdir(parents=True)
            for i in range(3):
                (folder / split / "a" / f"{i}.png").write_bytes(data)
        found = images.FolderData(folder, 0, 1, 16)
        with pytest.raises(UserError, match=r"\.png can't be read"):
            found.plain("test", 0, 1)
        with pytest.raises(UserError, match=r"\.png can't be read"):
            found.train_batch(0, 2)
