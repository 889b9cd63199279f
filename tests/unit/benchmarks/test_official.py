"""Official benchmark files: each reader on files that the tests write in the official format."""

from __future__ import annotations

import base64
import bz2
import collections
import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lissnas import artifacts, benchmarks, spaces
from lissnas.benchmarks import official
from lissnas.benchmarks.official import (
    layout,
    nasbench101,
    nasbench201,
    nasbench301,
    nasbench301_models,
    protobuf,
    restricted,
    transnas,
)
from lissnas.benchmarks.official import sources as published
from lissnas.benchmarks.official.files import UnreadableFile
from lissnas.benchmarks.official.restricted import NotPlainData
from lissnas.benchmarks.official.tfrecord import masked_crc, records
from lissnas.cli import app
from lissnas.cli.data import app as data_app
from lissnas.core.errors import DamagedFile, LissnasError, UnknownName, UserError
from lissnas.spaces import Space
from lissnas.spaces.cell import adjacency
from lissnas.testing import SpaceSuite


# -- writers of the official formats ---------------------------------------------------------------
def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    """Return the Castagnoli checksum, computed bytewise with a table."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def tfrecord(rows: Sequence[bytes]) -> bytes:
    def crc(data: bytes) -> bytes:
        value = crc32c(data)
        return struct.pack("<I", (((value >> 15) | (value << 17)) + 0xA282EAD8) % 2**32)

    heads = [struct.pack("<Q", len(row)) for row in rows]
    return b"".join(head + crc(head) + row + crc(row) for head, row in zip(heads, rows, strict=True))


def evaluation(epoch: float, val: float, test: float) -> bytes:
    doubles = [(1, epoch), (2, 12.5), (3, 0.99), (4, val), (5, test)]
    return b"".join(bytes([n << 3 | 1]) + struct.pack("<d", v) for n, v in doubles) + b"\x32\x04/a/b"


def metrics(epochs: int, val: float, test: float) -> bytes:
    parts = [evaluation(0, 0.1, 0.1), evaluation(epochs / 2, 0.5, 0.5), evaluation(epochs, val, test)]
    message = b"".join(b"\x0a" + bytes([len(part)]) + part for part in parts)
    return message + b"\x10\xaa\xbf\xe3\x04" + b"\x19" + struct.pack("<d", 1234.5)


OFFICIAL = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")


def spec(bits: str, ops: Sequence[str]) -> tuple[str, str]:
    """Return adjacency and operations in the file's format from the upper triangle's digits."""
    n = len(ops) + 2
    matrix = np.zeros((n, n), int)
    matrix[np.triu_indices(n, 1)] = [int(b) for b in bits]
    return "".join(map(str, matrix.ravel())), ",".join(["input", *ops, "output"])


def row101(cell: tuple[str, str], epochs: int, val: float, test: float) -> bytes:
    encoded = base64.b64encode(metrics(epochs, val, test)).decode()
    return json.dumps([hashlib.md5(repr(cell).encode()).hexdigest(), epochs, *cell, encoded]).encode()


CELLS = (spec("1", ()), spec("110111", (OFFICIAL[0], OFFICIAL[2])), spec("101011", (OFFICIAL[0], OFFICIAL[2])))
ISOMORPHIC = spec("110011", OFFICIAL[:2]), spec("110011", OFFICIAL[1::-1])


def write101(path: Path, rows: Sequence[bytes]) -> Path:
    path.write_bytes(tfrecord(rows))
    return path


def values101(cells: Sequence[tuple[str, str]] = CELLS, epochs: Sequence[int] = (36, 108)) -> list[bytes]:
    """Return three runs per cell and length: val .5, .6, .7 and test .3, .4, .5, plus .01 times the cell's number."""
    return [
        row101(cell, e, 0.5 + 0.1 * run + 0.01 * i + e / 1e4, 0.3 + 0.1 * run + 0.01 * i)
        for run in range(3)
        for i, cell in enumerate(cells)
        for e in epochs
    ]


def result201(epochs: int, accuracies: dict[str, float], last_only: bool = False) -> dict[str, Any]:
    """Return the state of a `ResultsCount` as nats_bench writes it, with numpy numbers and ordered dicts."""
    steps = [epochs - 1] if last_only else range(epochs)
    evaluated = {f"{name}@{i}": value - (epochs - 1 - i) for name, value in accuracies.items() for i in steps}
    return {
        "name": "x",
        "net_state_dict": None,
        "train_acc1es": collections.OrderedDict((i, 50.0) for i in steps),
        "train_times": None,
        "params": np.float64(1.5),
        "flop": np.float32(80.25),
        "seed": 777,
        "epochs": epochs,
        "latency": [0.01],
        "eval_names": list(accuracies),
        "eval_acc1es": evaluated,
    }


def state201(arch: str, epochs: int, seeds: Sequence[int], base: float) -> dict[str, Any]:
    datasets = {
        "cifar10-valid": {"x-valid": base, "ori-test": base - 9},
        "cifar10": {"ori-test": base + 1},
        "cifar100": {"x-valid": base - 20, "x-test": base - 21, "ori-test": base - 22},
        "ImageNet16-120": {"x-valid": base - 40, "x-test": base - 41, "ori-test": base - 42},
    }
    results = {
        # Written in descending order of seeds: run 1 still has to be the smallest seed.
        (dataset, seed): result201(epochs, {k: v + seed / 1000 for k, v in accuracies.items()})
        for seed in sorted(seeds, reverse=True)
        for dataset, accuracies in datasets.items()
    }
    return {
        "arch_index": 0,
        "arch_str": arch,
        "all_results": results,
        "dataset_seed": {d: list(seeds) for d in datasets},
    }


ARCHS201 = (
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|none~1|nor_conv_3x3~2|",
)


def infos201(i: int, keys: tuple[str, str] = ("12", "200")) -> dict[str, Any]:
    # The second architecture was trained once for 200 epochs, the others three times.
    seeds = (777,) if i == 1 else (777, 888, 999)
    return {
        keys[0]: state201(ARCHS201[i], 12, (111, 777), 60.0 + i),
        keys[1]: state201(ARCHS201[i], 200, seeds, 80.0 + i),
    }


def whole201(keys: tuple[str, str] = ("12", "200")) -> dict[str, Any]:
    infos = {i: infos201(i, keys) for i in range(3)}
    return {"meta_archs": list(ARCHS201), "total_archs": 3, "arch2infos": infos, "evaluated_indexes": {0, 1, 2}}


def torch_legacy(value: Any) -> bytes:
    """Return the format of torch.save before 1.6: magic number, version, machine, the object, no storages."""
    parts: tuple[Any, ...] = (
        0x1950A86A20F9469CFC6C,
        1001,
        {"protocol_version": 1001, "little_endian": True},
        value,
        [],
    )
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def torch_zip(value: Any, packed: int = zipfile.ZIP_STORED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", packed) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3\n")
    return sink.getvalue()


def bz2_pickle(value: Any) -> bytes:
    return bz2.compress(pickle.dumps(value, protocol=4))


def write201(path: Path, form: str) -> Path:
    whole = whole201(("less", "full") if form.startswith("torch") else ("12", "200"))
    if form == "folder":
        path.mkdir()
        (path / "meta.pickle.pbz2").write_bytes(bz2_pickle({"meta_archs": list(ARCHS201)}))
        for i in range(3):
            (path / f"{i:06d}.pickle.pbz2").write_bytes(bz2_pickle(infos201(i)))
    elif form == "tar":
        with tarfile.open(path, "w") as archive:
            for i in (2, 0, 1):
                data = bz2_pickle(infos201(i))
                info = tarfile.TarInfo(f"NATS-tss-v1_0-3ffb9-simple/{i:06d}.pickle.pbz2")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    else:
        forms: dict[str, Callable[[Any], bytes]] = {
            "torch legacy": torch_legacy,
            "torch zip": torch_zip,
            "bz2": bz2_pickle,
        }
        path.write_bytes(forms[form](whole))
    return path


FORMS = ("torch legacy", "torch zip", "bz2", "folder", "tar")
MICRO = ("64-41414-1_02_333", "64-41414-0_00_000", "64-41414-3_33_333")
MACRO = ("64-1234-basic", "64-311-2-basic".replace("-2-", "2-"), "64-444111-basic")


def whole_transnas() -> dict[str, Any]:
    def task(names: Sequence[str], base: float, epochs: int) -> dict[str, Any]:
        curves = {
            f"{split}_{name}": [base + at + e + (100 if name == names[0] else 0) for e in range(epochs)]
            for at, split in ((0.0, "train"), (0.25, "valid"), (0.5, "test"))
            for name in names
        }
        return {"total_epochs": epochs, "metrics": {**curves, "time_elapsed": [1.0] * epochs}, "model_info": {}}

    def network(base: float) -> dict[str, Any]:
        return {
            "class_scene": task(("top1", "top5", "loss"), base, 5),
            "room_layout": task(("neg_loss", "loss"), base, 4),
            "segmentsemantic": task(("acc", "mIoU", "loss"), base, 3),
            "autoencoder": task(("ssim", "l1_loss"), base, 3),
        }

    data = {
        "micro": {arch: network(float(i)) for i, arch in enumerate(MICRO)},
        "macro": {arch: network(10.0 + i) for i, arch in enumerate(MACRO)},
    }
    return {"metrics_dict": {}, "info_names": [], "task_list": ["class_scene"], "data": data}


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LISSNAS_DATA", str(tmp_path / "imported"))
    return tmp_path / "imported"


def lissnas(*words: str | Path) -> str:
    """Run `lissnas data` with these arguments and return its output."""
    done = CliRunner().invoke(data_app, [str(w) for w in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


# -- TFRecord --------------------------------------------------------------------------------------
def test_checksum_matches_a_known_value() -> None:
    # CRC-32C of "123456789" is e3069283; rotated right by 15 and shifted by the constant.
    rotated = (0xE3069283 >> 15 | 0xE3069283 << 17) & 0xFFFFFFFF
    assert masked_crc(b"123456789") == (rotated + 0xA282EAD8) % 2**32


def test_records_are_read_with_their_offsets(tmp_path: Path) -> None:
    path = write101(tmp_path / "f", [b"ab", b"", b"c" * 70_000])
    assert list(records(path)) == [(0, b"ab"), (18, b""), (34, b"c" * 70_000)]


@pytest.mark.parametrize("cut", [1, 7, 11, 12, 13, 15, 17, 19, 30, 33])
def test_truncated_file_is_reported_with_its_record(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "f.tfrecord"
    path.write_bytes(tfrecord([b"ab", b"cd"])[:cut])
    start = 0 if cut < 18 else 18
    with pytest.raises(UnreadableFile, match=rf"f\.tfrecord: record at byte {start}: cut off .* after {cut} bytes"):
        list(records(path))


@settings(max_examples=200)
@given(data=st.data())
def test_any_flipped_bit_is_detected(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = tfrecord([b"first record", b"", b"the third one"])
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "f"
    path.write_bytes(bytes(broken))
    with pytest.raises(UnreadableFile, match=r"record at byte (0|28|44): the (length|data) do"):
        list(records(path))


def test_huge_length_is_refused_without_allocation(tmp_path: Path) -> None:
    head = struct.pack("<Q", 1 << 60)
    (tmp_path / "f").write_bytes(head + struct.pack("<I", masked_crc(head)) + b"x" * 100)
    with pytest.raises(UnreadableFile, match="more than a record has"):
        list(records(tmp_path / "f"))


# -- protocol buffers ------------------------------------------------------------------------------
def test_fields_of_every_wire_type_are_read() -> None:
    message = b"\x08\x96\x01" + b"\x12\x02hi" + b"\x19" + struct.pack("<d", 0.5) + b"\x25" + struct.pack("<f", 2)
    kinds = [(1, 0, 150), (2, 2, b"hi"), (3, 1, struct.pack("<d", 0.5)), (4, 5, struct.pack("<f", 2))]
    assert list(protobuf.fields(message)) == kinds


def test_messages_are_read_as_by_the_google_library() -> None:
    """The library is a dependency of MLflow, not of this package."""
    parts = ("descriptor_pb2", "descriptor_pool", "message_factory")
    descriptor_pb2, descriptor_pool, message_factory = (pytest.importorskip(f"google.protobuf.{p}") for p in parts)

    file = descriptor_pb2.FileDescriptorProto(name="m.proto", package="nasbench")
    inner, outer = file.message_type.add(name="EvaluationData"), file.message_type.add(name="ModelMetrics")
    names = ("current_epoch", "training_time", "train_accuracy", "validation_accuracy", "test_accuracy")
    for i, name in enumerate(names):
        inner.field.add(name=name, number=i + 1, type=1, label=1)
    inner.field.add(name="checkpoint_path", number=6, type=9, label=1)
    outer.field.add(name="evaluation_data", number=1, type=11, label=3, type_name=".nasbench.EvaluationData")
    outer.field.add(name="trainable_parameters", number=2, type=5, label=1)
    outer.field.add(name="total_time", number=3, type=1, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("nasbench.ModelMetrics"))
    ours = metrics(108, 0.91, 0.92)
    theirs = kind.FromString(ours)
    assert theirs.trainable_parameters == 10_018_730
    assert theirs.evaluation_data[2].validation_accuracy == 0.91
    assert theirs.SerializeToString() == ours
    assert nasbench101._accuracies(ours) == {nasbench101.VALIDATION: 0.91, nasbench101.TEST: 0.92}


@settings(max_examples=200)
@given(st.binary(max_size=80))
def test_random_bytes_are_a_message_or_an_error(data: bytes) -> None:
    with suppress(ValueError):
        for _, kind, value in protobuf.fields(data):
            assert isinstance(value, int if kind == protobuf.VARINT else bytes)


# -- NAS-Bench-101 ---------------------------------------------------------------------------------
def test_all_runs_and_epochs_of_nasbench101_are_read(tmp_path: Path) -> None:
    path = write101(tmp_path / "nb.tfrecord", values101())
    (table,) = nasbench101.read(path)
    assert table.benchmark == "nasbench101"
    space = spaces.get("nasbench101")
    keys = space.key(space.parse(table.archs))
    assert (keys[1:] > keys[:-1]).all()
    assert set(table.columns) == {f"{s}/run{k}/{e}" for s in ("val", "test") for k in (1, 2, 3) for e in (36, 108)}
    at = list(table.archs).index("1-")
    assert [table.columns[f"val/run{k}/108"][at] for k in (1, 2, 3)] == pytest.approx([51.08, 61.08, 71.08])
    assert [table.columns[f"test/run{k}/36"][at] for k in (1, 2, 3)] == pytest.approx([30, 40, 50])


def test_sampled_cells_are_read_back(tmp_path: Path) -> None:
    """A sample of the full space, written in the official format, is read back with its keys and values."""
    space = spaces.get("nasbench101")
    rows = space.sample_distinct(400, np.random.default_rng(0))
    cells = []
    for row, matrix in zip(rows, adjacency(rows), strict=True):
        used = matrix.any(axis=0) | matrix.any(axis=1)
        inside = matrix[np.ix_(used, used)]
        ops = [OFFICIAL[row[21 + v - 1]] for v in np.flatnonzero(used)[1:-1]]
        cells.append(("".join(map(str, inside.ravel())), ",".join(["input", *ops, "output"])))
    values = np.random.default_rng(1).random(len(rows))
    path = write101(tmp_path / "nb.tfrecord", [row101(c, 108, v, v / 2) for c, v in zip(cells, values, strict=True)])
    (table,) = nasbench101.read(path)
    order = np.argsort(space.key(rows))
    assert list(table.archs) == space.format(rows[order])
    assert table.columns["val/run1/108"] == pytest.approx(100 * values[order])
    assert table.columns["test/run1/108"] == pytest.approx(50 * values[order])


def test_isomorphic_cells_are_runs_of_one_network(tmp_path: Path) -> None:
    space = spaces.get("nasbench101")
    a, b = (space.key(space.parse([nasbench101._name(*cell)])) for cell in ISOMORPHIC)
    assert a == b
    assert ISOMORPHIC[0] != ISOMORPHIC[1]
    (table,) = nasbench101.read(write101(tmp_path / "nb.tfrecord", values101(ISOMORPHIC, (108,))))
    assert len(table.archs) == 1
    runs = [table.columns[f"val/run{k}/108"][0] for k in range(1, 7)]
    assert runs == pytest.approx([51.08, 52.08, 61.08, 62.08, 71.08, 72.08])


GOOD = row101(CELLS[1], 108, 0.9, 0.9)


def changed(**part: Any) -> bytes:
    row = json.loads(GOOD)
    for name, value in part.items():
        row[["hash", "epochs", "adjacency", "operations", "metrics"].index(name)] = value
    return json.dumps(row).encode()


BAD_ROWS = {
    "no JSON": (b"\xff{", "utf-8|decode"),
    "no row": (b'{"a": 1}', "expected a JSON row"),
    "short row": (b'["a", 108]', "expected a JSON row"),
    "deep": (b"[" * 100_000, "recursion"),
    "true epochs": (changed(epochs=True), "expected a JSON row"),
    "no epochs": (changed(epochs=0), "0 epochs"),
    "not square": (changed(adjacency="011"), r"'011' is not n\*n digits"),
    "other digits": (changed(adjacency="0120001100010000"), "digits 0 and 1"),
    "not ASCII": (changed(adjacency="01١0001100010000"), "digits 0 and 1"),
    "empty": (changed(adjacency=""), r"'' is not n\*n digits"),
    "too large": (changed(adjacency="0" * 64), "n from 2 to 7"),
    "backward edge": (changed(adjacency="0110100100010000"), "leads backwards"),
    "no path": (changed(adjacency="0100001000000000"), "no path"),
    "ten edges": (changed(adjacency=spec("1" * 10 + "0" * 5, OFFICIAL[:1] * 4)[0]), "operations"),
    "unknown operation": (changed(operations="input,conv5x5,maxpool3x3,output"), "conv5x5"),
    "no input": (changed(operations="maxpool3x3,maxpool3x3,maxpool3x3,output"), "expected input"),
    "few operations": (changed(operations="input,output"), "expected input, 2 of"),
    "no operations": (changed(operations=""), "operations are ''"),
    "no base64": (changed(metrics="?"), "base64|padding|alphabet"),
    "no metrics": (changed(metrics=""), "0 evaluations"),
    "cut metrics": (changed(metrics=base64.b64encode(metrics(108, 0.9, 0.9)[:70]).decode()), "cut off"),
    "NaN": (row101(CELLS[1], 108, float("nan"), 0.9), "validation_accuracy is nan"),
    "infinite": (row101(CELLS[1], 108, 0.9, float("inf")), "test_accuracy is inf"),
    "percent": (row101(CELLS[1], 108, 0.9, 90.0), "test_accuracy is 90.0, expected 0 to 1"),
}


@pytest.mark.parametrize("bad", list(BAD_ROWS))
def test_invalid_record_is_reported_with_its_byte_offset(tmp_path: Path, bad: str) -> None:
    row, reason = BAD_ROWS[bad]
    path = write101(tmp_path / "nb.tfrecord", [*values101(), row, *values101()])
    offset = len(tfrecord(values101()))
    with pytest.raises(UnreadableFile, match=rf"nb\.tfrecord: record at byte {offset}: .*(?i:{reason})"):
        nasbench101.read(path)


def test_cell_with_too_many_edges_is_refused(tmp_path: Path) -> None:
    cell = spec("1" * 10, OFFICIAL[:3])
    path = write101(tmp_path / "nb.tfrecord", [GOOD, row101(cell, 108, 0.9, 0.9)])
    with pytest.raises(UnreadableFile, match=rf"record at byte {len(tfrecord([GOOD]))}: 10 edges"):
        nasbench101.read(path)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match="holds no records"):
        nasbench101.read(write101(tmp_path / "nb.tfrecord", []))


# -- pickles ---------------------------------------------------------------------------------------
class Runs:
    """An object whose pickle calls `function(*args)` when it is loaded."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def hostile(name: str, marker: Path) -> tuple[Any, str]:
    import torch

    return {
        "os.system": (Runs(os.system, f"touch {marker}"), f"{os.name}.system"),
        "eval": (Runs(eval, f"open({str(marker)!r}, 'w')"), "(builtins|__builtin__).eval"),
        "exec": (Runs(exec, f"open({str(marker)!r}, 'w')"), "(builtins|__builtin__).exec"),
        "open": (Runs(open, str(marker), "w"), r"_?io.open"),
        "getattr": (Runs(getattr, "", "join"), "(builtins|__builtin__).getattr"),
        "class": (torch.nn.Linear(1, 1), r"torch.nn.modules.linear.Linear"),
        "tensor": ({"a": torch.zeros(2)}, r"torch._utils._rebuild_tensor_v2"),
        "array": (np.zeros(3), r"numpy._core.(multiarray._reconstruct|numeric._frombuffer)"),
        "path": (marker, "pathlib.PosixPath"),
    }[name]


HOSTILE = ("os.system", "eval", "exec", "open", "getattr", "class", "tensor", "array", "path")


@pytest.mark.parametrize("form", [torch_legacy, torch_zip, bz2_pickle, pickle.dumps], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", HOSTILE)
def test_pickle_that_would_run_code_is_refused_by_name(tmp_path: Path, name: str, form: Callable[[Any], bytes]) -> None:
    marker = tmp_path / "ran"
    value, named = hostile(name, marker)
    path = tmp_path / "nb.pth"
    path.write_bytes(form({"arch2infos": {0: [value]}}))
    with pytest.raises(NotPlainData, match=rf"nb\.pth: refuses to load: it names {named}, which is not plain data"):
        restricted.load(path)
    assert not marker.exists()


def test_both_formats_of_torch_are_read(tmp_path: Path) -> None:
    import torch

    value = {"a": [1, 2.5, "x"], ("b", 1): np.float64(0.25)}
    for new in (False, True):
        torch.save(value, tmp_path / "t.pth", _use_new_zipfile_serialization=new)
        assert restricted.load(tmp_path / "t.pth") == value
    torch.save({"w": torch.ones(3)}, tmp_path / "t.pth")
    with pytest.raises(NotPlainData, match=r"torch\._utils\._rebuild_tensor_v2"):
        restricted.load(tmp_path / "t.pth")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_is_returned_unchanged(tmp_path: Path, protocol: int) -> None:
    value = {
        "ordered": collections.OrderedDict([(1, "a"), (2, "b")]),
        "set": {1, 2},
        "numbers": [np.float64(0.1), np.float32(0.5), np.int64(-3), np.uint8(7), np.bool_(True)],
        "bytes": b"\x00\xff",
        "nested": [(None, True, 2**70, "é")],
    }
    (tmp_path / "p").write_bytes(pickle.dumps(value, protocol))
    found = restricted.load(tmp_path / "p")
    assert found == value
    assert type(found["ordered"]) is dict
    assert [type(v) for v in found["numbers"]] == [float, float, int, int, bool]


def test_big_endian_number_is_read(tmp_path: Path) -> None:
    scalar = np.float64(0).__reduce__()[0]
    data = np.array([1.5], ">f8").tobytes()
    (tmp_path / "p").write_bytes(pickle.dumps(Runs(scalar, np.dtype(">f8"), data), 2))
    assert restricted.load(tmp_path / "p") == 1.5


STAND_IN = b"ccollections\nOrderedDict\n"
MALFORMED = {
    "empty": b"",
    "text": b"arch,value\n",
    "cut": pickle.dumps(list(range(1000)))[:-20],
    "persistent id": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "extension": b"\x80\x02\x82\x01.",
    "object dtype": b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8I00\nI01\ntR.",
    "scalar of nothing": b"cnumpy.core.multiarray\nscalar\n(NNtR.",
    "other encoding": b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x04\x00\x00\x00rot8tR.",
    # A pickle could set attributes of a function or class that it names.
    "sets attributes": STAND_IN + b"}X\x08\x00\x00\x00__call__K\x01sb.",
    "sets slots": STAND_IN + b"N}X\x09\x00\x00\x00__class__K\x01s\x86b.",
    "makes instances": b"\x80\x02c_codecs\nencode\n)\x81.",
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_malformed_pickle_is_reported_with_its_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.pth"
    path.write_bytes(MALFORMED[name])
    with pytest.raises(LissnasError, match=r"p\.pth: (the pickle in it: can't be read|refuses to load)"):
        restricted.load(path)
    (tmp_path / "good").write_bytes(pickle.dumps(collections.OrderedDict(a=np.float64(1))))
    assert restricted.load(tmp_path / "good") == {"a": 1.0}


@pytest.mark.parametrize("form", [torch_legacy, torch_zip, bz2_pickle], ids=lambda f: f.__name__)
def test_truncated_pickle_is_refused(tmp_path: Path, form: Callable[[Any], bytes]) -> None:
    data = form({"data": [0.5] * 50, "x": "y" * 100})
    path = tmp_path / "p.pth"
    # In torch's old format the data is complete before the list of storages.
    ends = len(data) - (len(pickle.dumps([], 2)) if form is torch_legacy else 0)
    for cut in range(0, ends, 7):
        path.write_bytes(data[:cut])
        with pytest.raises(LissnasError, match=r"p\.pth: "):
            restricted.load(path)


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_pickle_gives_plain_data_or_an_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(pickle.dumps({"a": collections.OrderedDict(b=np.float64(1)), "c": [1, {2}]}, 2))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    # LONG_BINPUT with a huge number would allocate memory for that many memos; this is not a safety issue.
    path = tmp_path_factory.mktemp("m") / "p"
    path.write_bytes(bytes(whole).replace(b"r", b"q"))
    with suppress(LissnasError):
        assert_plain(restricted.load(path))


def assert_plain(value: Any) -> None:
    assert type(value).__module__ in ("builtins", "lissnas.benchmarks.official.restricted")
    if isinstance(value, dict):
        for part in (*value, *value.values()):
            assert_plain(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            assert_plain(part)


def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted, "MAX_BYTES", 1 << 20)
    for form in (bz2_pickle, torch_legacy):
        (tmp_path / "p").write_bytes(form(["x" * (2 << 20)]))
        with pytest.raises(UnreadableFile, match="unpacks to more"):
            restricted.load(tmp_path / "p")


def test_zip_without_a_pickle_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("a/other", "x")
    with pytest.raises(UnreadableFile, match=r"expected one data\.pkl .* found 0"):
        restricted.load(tmp_path / "z")


# -- NAS-Bench-201 ---------------------------------------------------------------------------------
class TestNASBench201(SpaceSuite):
    @pytest.fixture
    def space(self) -> Space:
        return spaces.get("nasbench201")


def test_notation_of_nasbench201() -> None:
    space = spaces.get("nasbench201")
    assert space.size() == 15_625
    assert space.parse(ARCHS201).tolist() == [[3, 0, 1, 4, 2, 0], [0] * 6, [4, 2, 1, 0, 0, 3]]
    assert space.format(space.parse(ARCHS201)) == list(ARCHS201)
    for bad in (
        ARCHS201[0].replace("none", "nor"),
        ARCHS201[0][:-1],
        ARCHS201[0] + "\n",
        ARCHS201[0].replace("~2", "~1"),
    ):
        with pytest.raises(UserError, match="row 1"):
            space.parse([ARCHS201[0], bad])


@pytest.mark.parametrize("form", FORMS)
def test_all_formats_of_nasbench201_give_the_same_tables(tmp_path: Path, form: str) -> None:
    tables = {t.benchmark: t for t in nasbench201.read(write201(tmp_path / "f", form))}
    assert set(tables) == {"nasbench201/cifar10", "nasbench201/cifar100", "nasbench201/imagenet16_120"}
    for table in tables.values():
        order = [list(table.archs).index(a) for a in ARCHS201]
        runs = {f"{s}/run{k}/{e}" for s in ("val", "test") for k, e in [(1, 12), (2, 12), (1, 200), (2, 200), (3, 200)]}
        assert set(table.columns) == runs
        assert np.isnan(table.columns["val/run2/200"][order]).tolist() == [False, True, False]
    c10, c100 = tables["nasbench201/cifar10"], tables["nasbench201/cifar100"]
    assert c10.columns["val/run1/200"][order] == pytest.approx([80.777, 81.777, 82.777])
    assert c10.columns["test/run3/200"][order][[0, 2]] == pytest.approx([81.999, 83.999])
    assert c10.columns["val/run1/12"][order] == pytest.approx([60.111, 61.111, 62.111])
    assert c100.columns["test/run1/12"][order] == pytest.approx([39.111, 40.111, 41.111])
    assert tables["nasbench201/imagenet16_120"].columns["val/run1/200"][order][0] == pytest.approx(40.777)


def broken201(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    whole = whole201()
    change(whole)
    return whole


def first_result(whole: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = whole["arch2infos"][1]["200"]["all_results"]["cifar10", 777]
    return result


BROKEN201: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no infos": (lambda w: w.pop("arch2infos"), "has no arch2infos"),
    "no networks": (lambda w: w["arch2infos"].clear(), "holds no architectures"),
    "no states": (lambda w: w["arch2infos"].update({1: []}), "architecture 1: expected results"),
    "no name": (lambda w: w["arch2infos"][1]["200"].pop("arch_str"), "architecture 1: doesn't name"),
    "two names": (lambda w: w["arch2infos"][1]["200"].update(arch_str=ARCHS201[0]), "architecture 1: doesn't name"),
    "other notation": (
        lambda w: [s.update(arch_str="|x~0|") for s in w["arch2infos"][1].values()],
        r"architecture 1 '\|x~0\|': expected \|op~0\|",
    ),
    "no results": (lambda w: w["arch2infos"][1]["200"].pop("all_results"), "architecture 1: cifar10-valid is not"),
    "no epochs": (lambda w: first_result(w).pop("epochs"), "architecture 1: cifar10 is not"),
    "a text": (lambda w: first_result(w)["eval_acc1es"].update({"ori-test@199": "x"}), "architecture 1: cifar10 is"),
    "NaN": (lambda w: first_result(w)["eval_acc1es"].update({"ori-test@199": float("nan")}), "on cifar10 is nan"),
    "above 100": (lambda w: first_result(w)["eval_acc1es"].update({"ori-test@199": 101.0}), "is 101.0, expected 0"),
}


@pytest.mark.parametrize("name", list(BROKEN201))
def test_invalid_file_of_nasbench201_is_reported_with_its_entry(tmp_path: Path, name: str) -> None:
    change, reason = BROKEN201[name]
    path = tmp_path / "f.pbz2"
    path.write_bytes(bz2_pickle(broken201(change)))
    with pytest.raises(UnreadableFile, match=rf"f\.pbz2: .*{reason}"):
        nasbench201.read(path)


def test_duplicate_architecture_adds_runs(tmp_path: Path) -> None:
    twice = broken201(lambda w: w["arch2infos"].update({7: infos201(0)}))
    (tmp_path / "f").write_bytes(bz2_pickle(twice))
    table = nasbench201.read(tmp_path / "f")[0]
    assert len(table.archs) == 3
    assert "val/run6/200" in table.columns


def test_malicious_member_of_an_archive_is_refused(tmp_path: Path) -> None:
    write201(tmp_path / "f", "folder")
    marker = tmp_path / "ran"
    (tmp_path / "f" / "000001.pickle.pbz2").write_bytes(bz2_pickle(Runs(os.system, f"touch {marker}")))
    with pytest.raises(NotPlainData, match=r"000001\.pickle\.pbz2: refuses to load: it names posix\.system"):
        nasbench201.read(tmp_path / "f")
    assert not marker.exists()


def test_truncated_tar_is_refused(tmp_path: Path) -> None:
    write201(tmp_path / "f.tar", "tar")
    data = (tmp_path / "f.tar").read_bytes()
    for cut in (700, 1500, len(data) // 3):
        (tmp_path / "f.tar").write_bytes(data[:cut])
        with pytest.raises(LissnasError, match=r"f\.tar"):
            nasbench201.read(tmp_path / "f.tar")


# -- TransNAS-Bench-101 ----------------------------------------------------------------------------
@pytest.mark.parametrize("form", [torch_legacy, torch_zip], ids=lambda f: f.__name__)
def test_metrics_of_transnas_are_read(tmp_path: Path, form: Callable[[Any], bytes]) -> None:
    (tmp_path / "t.pth").write_bytes(form(whole_transnas()))
    tables = {t.benchmark: t for t in transnas.read(tmp_path / "t.pth")}
    tasks = ("class_scene", "room_layout", "segmentsemantic", "autoencoder")
    assert set(tables) == {f"transnas_{part}/{task}" for part in ("micro", "macro") for task in tasks}
    heads = {name: set(layout.metrics_of(t.columns)) for name, t in tables.items()}
    assert heads["transnas_micro/class_scene"] == {"val", "val.top5", "test", "test.top5"}
    assert heads["transnas_macro/segmentsemantic"] == {"val", "val.mIoU", "test", "test.mIoU"}
    assert heads["transnas_micro/room_layout"] == heads["transnas_macro/autoencoder"] == {"val", "test"}
    table = tables["transnas_micro/class_scene"]
    order = [list(table.archs).index(a) for a in MICRO]
    assert table.columns["val/run1/5"][order].tolist() == [104.25, 105.25, 106.25]
    assert table.columns["test.top5/run1/1"][order].tolist() == [0.5, 1.5, 2.5]


def test_diverged_training_has_no_value(tmp_path: Path) -> None:
    whole = whole_transnas()
    whole["data"]["micro"][MICRO[0]]["class_scene"]["metrics"]["valid_top1"][-1] = float("nan")
    whole["data"]["micro"][MICRO[1]]["class_scene"]["metrics"]["valid_top1"][-1] = float("inf")
    (tmp_path / "t.pth").write_bytes(torch_zip(whole))
    lissnas("import", "transnas", tmp_path / "t.pth")
    with pytest.raises(UserError, match="2 of 3 architectures have no such value"):
        benchmarks.get("transnas_micro/class_scene@val/mean/5")
    assert len(benchmarks.get("transnas_micro/class_scene@val/mean/4").values) == 3


BROKEN_TRANSNAS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no data": (lambda w: w.pop("data"), "has no data by space"),
    "no networks": (lambda w: w["data"].clear(), "holds no networks"),
    "a list": (lambda w: w["data"].update(micro=[]), "micro: expected results by network"),
    "a stranger": (lambda w: w["data"]["micro"].update({"64-41414-9_99_999": {}}), "64-41414-9_99_999"),
    "wrong space": (lambda w: w["data"]["micro"].update({MACRO[0]: {}}), MACRO[0]),
    "no metrics": (lambda w: w["data"]["macro"][MACRO[1]]["room_layout"].pop("metrics"), f"{MACRO[1]} room_layout"),
    "a text": (
        lambda w: w["data"]["macro"][MACRO[1]]["room_layout"]["metrics"].update(valid_neg_loss=["x"]),
        f"{MACRO[1]} room_layout",
    ),
    "endless": (
        lambda w: w["data"]["macro"][MACRO[1]]["room_layout"]["metrics"].update(valid_neg_loss=[0.0] * 5000),
        "5,000 epochs",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN_TRANSNAS))
def test_invalid_file_of_transnas_is_reported_with_its_entry(tmp_path: Path, name: str) -> None:
    change, reason = BROKEN_TRANSNAS[name]
    whole = whole_transnas()
    change(whole)
    (tmp_path / "t.pth").write_bytes(torch_zip(whole))
    with pytest.raises(UnreadableFile, match=rf"t\.pth: .*{reason}"):
        transnas.read(tmp_path / "t.pth")


# -- NAS-Bench-301 ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def boosters() -> list[xgboost.Booster]:
    rng = np.random.default_rng(0)
    data = xgboost.DMatrix(rng.random((60, 5)), rng.random(60))
    return [xgboost.train({"seed": i, "subsample": 0.5, "nthread": 1}, data, 3) for i in range(2)]


@pytest.fixture
def trusted_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load models in this process: those of the tests are valid, and a separate process takes seconds."""

    def load(data: bytes) -> xgboost.Booster:
        booster = xgboost.Booster()
        booster.load_model(bytearray(data))
        return booster

    monkeypatch.setattr(nasbench301, "load_model", load)


def ensemble(folder: Path, boosters: Sequence[xgboost.Booster], ending: str = "json") -> Path:
    for i, booster in enumerate(boosters):
        member = folder / "nb_models" / "xgb_v1.0" / f"ensemble_member_{i}"
        member.mkdir(parents=True)
        (member / f"surrogate_model.{ending}").write_bytes(
            bytes(booster.save_raw("ubj" if ending == "ubj" else "json"))
        )
        (member / "model_config.json").write_text('{"model": "xgb"}')
        (member / "data_config.json").write_text('{"seed": 1}')
    return folder


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


@pytest.mark.usefixtures("trusted_models")
@pytest.mark.parametrize("ending", ["json", "ubj", "model"])
@pytest.mark.parametrize("packed", [False, True])
def test_loadable_ensemble_is_copied(
    tmp_path: Path, boosters: list[xgboost.Booster], ending: str, packed: bool, root: Path
) -> None:
    source = ensemble(tmp_path / "models", boosters, ending)
    runtime = source / "nb_models" / "lgb_runtime_v1.0"
    runtime.mkdir()
    (runtime / "surrogate_model.model").write_bytes(b"\x80\x03something of LightGBM")
    (runtime / "model_config.json").write_text('{"model": "lgb_time"}')
    source = zipped(source, tmp_path / "m.zip") if packed else source
    assert "2 models of 5 features" in lissnas("import", "nasbench301", source)
    models = sorted((root / "nasbench301").glob("*/surrogate_model.ubj"))
    assert [m.parent.name for m in models] == ["member_0", "member_1"]
    data = xgboost.DMatrix(np.random.default_rng(1).random((9, 5)))
    for path, booster in zip(models, boosters, strict=True):
        loaded = xgboost.Booster(model_file=path)
        assert (loaded.predict(data) == booster.predict(data)).all()
    assert (root / "nasbench301" / "member_1" / "data_config.json").read_text() == '{"seed": 1}'


GENOTYPE = (
    "skip~0+dil3~1|skip~0+max3~2|dil3~0+dil5~3|skip~0+skip~4/avg3~0+skip~1|avg3~1+avg3~2|dil5~2+sep5~3|dil3~3+sep5~4"
)
OF_GENOTYPE = [2, 5, 1, 2, 1, 2, 3, 2, 5, 9, -1, -1, -1, 2, 2, -1, 0, 5, -1, -1, 6, 2, -1, -1, 5, 4, -1, 1, 1]
OF_GENOTYPE += [-1, -1, 6, 4, -1]
OF_TRAINING = {
    "CreateImageDataLoader:batch_size": 0.586345,
    "ImageAugmentation:cutout_holes": 0.166664,
    "ImageAugmentation:cutout_length": 0.31,
    "NetworkSelectorDatasetInfo:darts:init_channels": 0.00315,
    "NetworkSelectorDatasetInfo:darts:layers": 0.00075,
    "OptimizerSelector:sgd:learning_rate": -3.688879,
    "OptimizerSelector:sgd:momentum": 0.898876,
    "OptimizerSelector:sgd:weight_decay": -8.111728,
    "SimpleLearningrateSchedulerSelector:cosine_annealing:T_max": 0.00995,
    "SimpleTrainNode:mixup:alpha": 0.705128,
}


def test_features_of_a_genotype_match_the_benchmark() -> None:
    """The expected values are from ConfigSpace 0.6.1 with the benchmark's configuration of this genotype."""
    names = nasbench301_models.NAMES
    (found,) = nasbench301_models.features(spaces.get("nasbench301").parse([GENOTYPE]))
    assert [int(v) for n, v in zip(names, found, strict=True) if n not in nasbench301_models.FIXED] == OF_GENOTYPE
    fixed = {n: float(v) for n, v in zip(names, found, strict=True) if n in nasbench301_models.FIXED}
    assert {n: v for n, v in fixed.items() if abs(v) > 1e-5} == pytest.approx(OF_TRAINING, abs=2e-6)


def test_imported_models_are_the_oracle_of_a_shrink(tmp_path: Path, root: Path) -> None:
    space = spaces.get("nasbench301")
    archs = space.sample(400, np.random.default_rng(0))
    encoded = nasbench301_models.features(archs)
    values = (encoded == 3).sum(axis=1) + 0.1 * (encoded == 4).sum(axis=1)
    members = [
        xgboost.train({"max_depth": 3, "seed": s, "subsample": 0.5}, xgboost.DMatrix(encoded, values), 20)
        for s in (0, 1)
    ]
    assert "2 models of 56 features" in lissnas("import", "nasbench301", ensemble(tmp_path / "models", members))
    oracle = nasbench301_models.ensemble(root / "nasbench301")
    one_by_one = [model.predict(xgboost.DMatrix(encoded)) for model in members]
    assert oracle(archs) == pytest.approx(np.mean(one_by_one, axis=0))
    command = ["shrink", "--space", "nasbench301", "--oracle-model", str(root / "nasbench301"), "--target-size", "300"]
    done = CliRunner().invoke(app.app, [*command, "--out", str(tmp_path / "shrunk")])
    assert done.exit_code == 0, done.output
    metrics = json.loads((tmp_path / "shrunk" / "metrics.json").read_bytes())
    assert metrics["mean_predicted"] > metrics["full_best_predicted"] * 0.9
    assert metrics["labels"] == 0


@pytest.mark.usefixtures("trusted_models")
def test_models_with_other_features_are_refused(tmp_path: Path, boosters: list[xgboost.Booster], root: Path) -> None:
    lissnas("import", "nasbench301", ensemble(tmp_path / "models", boosters))
    with pytest.raises(UserError, match="reads 5 features, a genotype of NAS-Bench-301 has 56"):
        nasbench301_models.ensemble(root / "nasbench301")
    done = CliRunner().invoke(
        app.app,
        ["shrink", "--space", "fairnas", "--oracle-model", str(root / "nasbench301"), "--out", str(tmp_path / "o")],
    )
    assert done.exit_code != 0


def test_damaged_zip_is_refused(tmp_path: Path, boosters: list[xgboost.Booster], root: Path) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("surrogate_model.json", bytes(boosters[0].save_raw("json")))
    data = bytearray(path.read_bytes())
    data[80:120] = b"\xff" * 40
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableFile, match="the zip"):
        nasbench301.read(path)
    data = bytearray(torch_zip(whole_transnas(), zipfile.ZIP_DEFLATED))
    data[80:120] = b"\xff" * 40
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableFile):
        restricted.load(path)


def test_metric_of_transnas_without_a_name_is_refused(tmp_path: Path) -> None:
    whole = whole_transnas()
    arch = next(iter(whole["data"]["micro"]))
    task = next(iter(whole["data"]["micro"][arch]))
    whole["data"]["micro"][arch][task]["metrics"][7] = [1.0]
    (tmp_path / "t.pth").write_bytes(torch_zip(whole))
    with pytest.raises(UnreadableFile, match="a metric called 7"):
        transnas.read(tmp_path / "t.pth")


def test_damaged_import_does_not_hide_the_others(imported101: Path, root: Path) -> None:
    (root / "nasbench201").mkdir(parents=True)
    (root / "nasbench201" / "manifest.json").write_text("{")
    output = lissnas("list")
    assert "is not a manifest" in output
    assert str(imported101) in output


@pytest.mark.usefixtures("trusted_models")
def test_published_models_are_refused_with_conversion_instructions(
    tmp_path: Path, boosters: list[xgboost.Booster]
) -> None:
    source = ensemble(tmp_path / "models", boosters)
    (model,) = source.rglob("ensemble_member_1/surrogate_model.json")
    model.rename(model.with_suffix(".model"))
    model.with_suffix(".model").write_bytes(pickle.dumps([1.0]))
    with pytest.raises(UnreadableFile, match="a pickle of plain data, not a model"):
        nasbench301.read(source)
    for data, reason in (
        (pickle.dumps(boosters[0]), r"it names xgboost\.core\.Booster, which is not plain data"),
        (b"binf\x00\x00\x00\x3f", "read no binary models"),
        (b"", "not a model in JSON or UBJSON"),
    ):
        model.with_suffix(".model").write_bytes(data)
        with pytest.raises(UnreadableFile, match=rf"ensemble_member_1/surrogate_model\.model: .*{reason}.*save_model"):
            nasbench301.read(source)


@pytest.mark.parametrize(("ending", "cuts"), [("json", (-1,)), ("ubj", (20, -1))])
def test_truncated_model_is_refused(
    tmp_path: Path, boosters: list[xgboost.Booster], ending: str, cuts: Sequence[int]
) -> None:
    source = ensemble(tmp_path / "models", boosters[:1], ending)
    (model,) = source.rglob(f"surrogate_model.{ending}")
    data = model.read_bytes()
    for cut in cuts:
        model.write_bytes(data[:cut])
        with pytest.raises(UnreadableFile, match="XGBoost can't load it"):
            nasbench301.read(source)


def test_source_without_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnreadableFile, match="holds no XGBoost model"):
        nasbench301.read(tmp_path / "empty")
    (tmp_path / "f").write_bytes(b"x")
    with pytest.raises(UnreadableFile, match="neither a zip nor a folder"):
        nasbench301.read(tmp_path / "f")


@pytest.mark.usefixtures("trusted_models")
def test_models_with_different_numbers_of_features_are_refused(tmp_path: Path, boosters: list[xgboost.Booster]) -> None:
    wide = xgboost.train({"nthread": 1}, xgboost.DMatrix(np.random.default_rng(0).random((9, 6)), np.arange(9.0)), 1)
    with pytest.raises(UnreadableFile, match=r"different numbers of features: \[5, 6\]"):
        nasbench301.read(ensemble(tmp_path / "models", [boosters[0], wide]))


# -- checksums -------------------------------------------------------------------------------------
def test_file_with_a_published_name_needs_its_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, root: Path
) -> None:
    path = write101(tmp_path / "nasbench_only108.tfrecord", values101(epochs=(108,)))
    with pytest.raises(DamagedFile, match=r"only108\.tfrecord is damaged: expected sha256 4c39c3936e36.* found "):
        official.convert("nasbench101", path, official.digests(path))
    assert not root.exists()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    source = published.SOURCES[0]
    monkeypatch.setattr(
        published, "SOURCES", (published.Source(*(digest if v == source.sha256 else v for v in vars(source).values())),)
    )
    files = official.convert("nasbench101", path, official.digests(path))
    assert json.loads(files["metrics.json"])["checked"] == "has the published sha256"
    path.rename(tmp_path / "mine.tfrecord")
    files = official.convert("nasbench101", tmp_path / "mine.tfrecord", official.digests(tmp_path / "mine.tfrecord"))
    assert "published sha256 of nasbench_only108.tfrecord" in json.loads(files["metrics.json"])["checked"]


@pytest.mark.parametrize("name", ["NAS-Bench-201-v1_1-{}.pth", "NATS-tss-v1_0-{}.pickle.pbz2"])
def test_name_of_a_nats_file_needs_its_md5(tmp_path: Path, name: str) -> None:
    whole = bz2_pickle(whole201()) if name.endswith("pbz2") else torch_legacy(whole201(("less", "full")))
    md5 = hashlib.md5(whole).hexdigest()
    good, bad = tmp_path / name.format(md5[-5:]), tmp_path / name.format("00000" if md5[-5:] != "00000" else "11111")
    for path in (good, bad):
        path.write_bytes(whole)
    files = official.convert("nasbench201", good, official.digests(good))
    assert json.loads(files["metrics.json"])["checked"] == f"its MD5 ends in {md5[-5:]}, as its name says"
    with pytest.raises(LissnasError, match=rf"damaged: expected an MD5 that ends in .* \(from its name\), found {md5}"):
        official.convert("nasbench201", bad, official.digests(bad))


def test_published_sources_are_complete() -> None:
    assert {s.benchmark for s in official.SOURCES} == set(official.KINDS)
    for source in official.SOURCES:
        assert source.address.startswith("https://")
        assert source.checksum
        assert source.sha256 is None or len(source.sha256) == 64
    assert len({s.file for s in official.SOURCES}) == len(official.SOURCES)


# -- importing, selecting --------------------------------------------------------------------------
@pytest.fixture
def imported101(tmp_path: Path, root: Path) -> Path:
    lissnas("import", "nasbench101", write101(tmp_path / "nb.tfrecord", values101()))
    return root / "nasbench101"


def selected(name: str, archs: Sequence[str]) -> list[float]:
    source = benchmarks.get(name)
    return [float(v) for v in source(source.space.parse(archs))]


def test_import_writes_its_files(imported101: Path) -> None:
    assert set(artifacts.verify(imported101)) == {"metrics.json", "nasbench101.parquet", "parameters.json"}
    table = pq.read_table(imported101 / "nasbench101.parquet")
    assert table.column_names[0] == "arch"
    assert set(table.column_names[1:]) == {
        f"{s}/run{k}/{e}" for s in ("val", "test") for k in (1, 2, 3) for e in (36, 108)
    }
    about = json.loads((imported101 / "metrics.json").read_text())
    assert about["tables"]["nasbench101"]["networks"] == 3
    assert about["tables"]["nasbench101"]["metrics"]["val"] == {"epochs": [36, 108], "runs": [1, 2, 3]}


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("val/mean/108", 61.08),
        ("val/max/108", 71.08),
        ("val/run1/108", 51.08),
        ("val/run3/108", 71.08),
        ("val/mean/36", 60.36),
        ("test/mean/108", 40.0),
        ("test/max/36", 50.0),
        ("test/run2/36", 40.0),
    ],
)
def test_metric_of_nasbench101_is_selected(imported101: Path, metric: str, value: float) -> None:
    assert selected(f"nasbench101@{metric}", ["1-"]) == pytest.approx([value])
    source = benchmarks.get(f"nasbench101@{metric}")
    assert source.name == f"nasbench101@{metric}"
    assert source.space is spaces.get("nasbench101")
    assert (source.keys[1:] > source.keys[:-1]).all()
    assert source.licence == "Apache-2.0"
    assert benchmarks.space_of(source.name) == "nasbench101"
    assert source.sha256 == benchmarks.get(f"nasbench101@{metric}").sha256


def test_selected_metric_is_described(imported101: Path) -> None:
    words = {m: benchmarks.get(f"nasbench101@{m}").metric for m in ("val/mean/108", "test/max/36", "test/run2/36")}
    assert words == {
        "val/mean/108": "CIFAR-10 validation accuracy after 108 epochs, mean of up to 3 runs, %",
        "test/max/36": "CIFAR-10 test accuracy after 36 epochs, best of up to 3 runs, %",
        "test/run2/36": "CIFAR-10 test accuracy after 36 epochs, run 2, %",
    }


@pytest.mark.parametrize("metric", ["val/run4/108", "val/mean/12", "test.top5/mean/108"])
def test_missing_metric_is_refused_with_the_available_ones(imported101: Path, metric: str) -> None:
    with pytest.raises(UserError, match=r"val, test / mean, max, run1 to run3 / 36, 108 epochs") as caught:
        benchmarks.get(f"nasbench101@{metric}")
    assert metric in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "metric",
    ["", "val", "val/mean", "val/median/108", "train/mean/108", "val/run0/108", "val/mean/x", "val/mean/108/", "../x"],
)
def test_malformed_selection_is_refused_with_the_format(imported101: Path, metric: str) -> None:
    with pytest.raises(UserError, match="expected NAME@SPLIT/RUN/EPOCHS"):
        benchmarks.get(f"nasbench101@{metric}")


def test_selection_without_an_import_is_refused(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"no official file of nasbench201 was imported to .* lissnas data import nasbench201 FILE"
    ):
        benchmarks.get("nasbench201/cifar10@val/mean/200")
    with pytest.raises(UnknownName, match="Did you mean 'nasbench201/cifar10'"):
        benchmarks.get("nasbench201/cifar1@val/mean/200")
    assert not root.exists()


def test_metrics_of_nasbench201_are_selected(tmp_path: Path) -> None:
    lissnas("import", "nasbench201", write201(tmp_path / "f.tar", "tar"))
    base = "nasbench201/cifar10@"
    assert selected(base + "val/mean/200", ARCHS201) == pytest.approx([80.888, 81.777, 82.888])
    assert selected(base + "val/max/200", ARCHS201) == pytest.approx([80.999, 81.777, 82.999])
    assert selected(base + "test/run1/200", ARCHS201) == pytest.approx([81.777, 82.777, 83.777])
    assert selected("nasbench201/imagenet16_120@test/run2/12", ARCHS201)[0] == pytest.approx(19.777)
    with pytest.raises(UserError, match="1 of 3 architectures have no such value; select mean or max"):
        benchmarks.get(base + "test/run2/200")


def test_metrics_of_transnas_are_selected(tmp_path: Path) -> None:
    (tmp_path / "t.pth").write_bytes(torch_zip(whole_transnas()))
    lissnas("import", "transnas", tmp_path / "t.pth")
    assert selected("transnas_micro/class_scene@val/mean/5", MICRO) == [104.25, 105.25, 106.25]
    assert selected("transnas_macro/segmentsemantic@test.mIoU/run1/3", MACRO) == [12.5, 13.5, 14.5]
    union = selected("transnas/class_scene@val/max/5", [MICRO[1], MACRO[0], MICRO[0]])
    assert union == [105.25, 114.25, 104.25]
    source = benchmarks.get("transnas/room_layout@val/mean/4")
    assert (source.keys[1:] > source.keys[:-1]).all()
    assert (source.point, source.metric) == (0.01, "validation neg_loss after 4 epochs")
    with pytest.raises(UserError, match="has nothing of transnas_micro/jigsaw; it has transnas_macro/autoencoder"):
        benchmarks.get("transnas_micro/jigsaw@val/mean/10")
    with pytest.raises(UserError, match="1 to 5 epochs"):
        benchmarks.get("transnas_micro/class_scene@val/mean/6")


def test_damaged_import_is_refused(imported101: Path) -> None:
    file = imported101 / "nasbench101.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(
        DamagedFile, match=r"nasbench101\.parquet is damaged.*lissnas data import nasbench101 FILE --force"
    ):
        benchmarks.get("nasbench101@val/mean/108")


def test_import_depends_only_on_the_file(tmp_path: Path, imported101: Path) -> None:
    before = artifacts.verify(imported101)
    words: list[str | Path] = ["import", "nasbench101", tmp_path / "nb.tfrecord"]
    assert "Nothing was done" in lissnas(*words)
    lissnas(*words, "--to", tmp_path / "other")
    assert artifacts.verify(tmp_path / "other" / "nasbench101") == before
    more = write101(tmp_path / "more.tfrecord", values101(epochs=(108,)))
    with pytest.raises(UserError, match="holds the result of other parameters"):
        lissnas("import", "nasbench101", more)
    assert artifacts.verify(imported101) == before
    lissnas("import", "nasbench101", more, "--force")
    with pytest.raises(UserError, match="run1 to run3 / 108 epochs"):
        benchmarks.get("nasbench101@val/mean/36")


# -- the command -----------------------------------------------------------------------------------
def test_failed_import_leaves_no_files(tmp_path: Path, root: Path) -> None:
    (tmp_path / "nb.tfrecord").write_bytes(tfrecord(values101())[:-3])
    with pytest.raises(UnreadableFile):
        lissnas("import", "nasbench101", tmp_path / "nb.tfrecord")
    assert not (root / "nasbench101").exists()
    with pytest.raises(UserError, match="no such file"):
        lissnas("import", "nasbench101", tmp_path / "none")
    with pytest.raises(UserError, match="known: nasbench101, nasbench201, transnas, nasbench301"):
        lissnas("import", "cifar", tmp_path / "nb.tfrecord")


def test_import_prints_its_summary(tmp_path: Path) -> None:
    path = write101(tmp_path / "nb.tfrecord", values101())
    output = lissnas("import", "nasbench101", path, "--to", tmp_path / "elsewhere")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in output
    assert "no checksum is published under this name" in output
    assert "nasbench101: 3 networks; val, test / mean, max, run1 to run3 / 36, 108 epochs" in output
    assert f"export LISSNAS_DATA={tmp_path / 'elsewhere'}" in output


def test_list_as_json(imported101: Path, tmp_path: Path) -> None:
    output = json.loads(lissnas("list", "--json"))
    assert [row["name"] for row in output["packaged"]] == benchmarks.names()
    assert output["packaged"][0]["networks"] == 423_624
    (imported,) = output["imported"]
    assert imported["path"] == str(imported101)
    assert imported["source_sha256"] == hashlib.sha256((tmp_path / "nb.tfrecord").read_bytes()).hexdigest()
    assert imported["tables"]["nasbench101"]["metrics"]["test"]["runs"] == [1, 2, 3]
    only108 = output["obtainable"][0]
    assert only108["address"] == "https://storage.googleapis.com/nasbench/nasbench_only108.tfrecord"
    assert only108["command"] == "lissnas data import nasbench101 nasbench_only108.tfrecord"
    assert {row["benchmark"] for row in output["obtainable"]} == set(official.KINDS)


def test_list_as_text(imported101: Path) -> None:
    output = lissnas("list")
    for part in ("423,624", "run1 to run3", "nasbench_full.tfrecord", "3d64db8180fb", "1.95 GB", "MD5 ends in 3ffb9"):
        assert part in output
    (imported101 / "metrics.json").write_text("{}")
    damaged = lissnas("list")
    assert "metrics.json is damaged" in damaged
    assert "lissnas data import nasbench101 FILE --force" in damaged


def test_packaged_table_is_written(tmp_path: Path) -> None:
    from lissnas.cli.app import app as whole

    words = ["data", "--benchmark", "nas_bench_macro", "--out", str(tmp_path / "t")]
    done = CliRunner().invoke(whole, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert "3,969" in done.output
    files = {"benchmark.json", "metrics.json", "parameters.json", "table.parquet"}
    assert set(artifacts.verify(tmp_path / "t")) == files
    assert "nasbench301" in CliRunner().invoke(whole, ["data", "list"]).output


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--benchmark", "nas_bench_macro"], "Missing option '--out'"),
        (["--out", "x"], "Missing option '--benchmark'"),
        (["--force", "list"], "Options go after the subcommand list"),
        (["import", "nasbench101"], "Missing argument 'FILE'"),
    ],
)
def test_missing_argument_is_reported(words: list[str], reason: str) -> None:
    done = CliRunner().invoke(data_app, words)
    assert done.exit_code == 2
    assert reason in done.output


def test_complete_import_of_nasbench201_is_a_benchmark(tmp_path: Path) -> None:
    """Its table is written and read back like that of any other benchmark."""
    space = spaces.get("nasbench201")
    names = space.format(space.enumerate())
    values = np.random.default_rng(0).random(len(names)).round(4) * 100
    infos = {
        i: {"200": {"arch_str": a, "all_results": {("cifar100", 777): result201(200, {"x-test": v}, last_only=True)}}}
        for i, (a, v) in enumerate(zip(names, values, strict=True))
    }
    (tmp_path / "f.pth").write_bytes(torch_zip({"arch2infos": infos}))
    lissnas("import", "nasbench201", tmp_path / "f.pth")
    name = "nasbench201/cifar100@test/run1/200"
    lissnas("--benchmark", name, "--out", tmp_path / "t")
    prepared = benchmarks.read_prepared(name, tmp_path / "t")
    assert prepared.sha256 == benchmarks.get(name).sha256
    assert prepared.values == pytest.approx(values)
