"""NAS-Bench-201's `.pth` file and NATS-Bench's topology files: `.pickle.pbz2`, or its `-simple` archive.

All hold for each architecture the state of an `ArchResults` for each length of training, 12 and 200
epochs (`less` and `full` in the older file), and in it for each data set and seed the accuracy on each
evaluation set after each epoch (github.com/D-X-Y/NATS-Bench, nats_bench/api_utils.py). Of those the
accuracy after the last epoch is taken.
"""

from __future__ import annotations

import lzma
import math
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lissnas.benchmarks.official.files import UnreadableFile, inside
from lissnas.benchmarks.official.layout import MetricTable, Results, tables_of
from lissnas.benchmarks.official.restricted import MOST_MEMBER_BYTES, load, load_member
from lissnas.core.errors import first_line, short
from lissnas.core.memory_limit import limit_memory

# The splits that the paper proposes: what was trained on, and what it was evaluated on.
SPLITS = {
    "cifar10": {"val": ("cifar10-valid", "x-valid"), "test": ("cifar10", "ori-test")},
    "cifar100": {"val": ("cifar100", "x-valid"), "test": ("cifar100", "x-test")},
    "imagenet16_120": {"val": ("ImageNet16-120", "x-valid"), "test": ("ImageNet16-120", "x-test")},
}
MEMBER = ".pickle.pbz2"
BROKEN_TAR = (
    *(tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, struct.error),
    *(ValueError, OverflowError, RecursionError, MemoryError),
)
"""What opening or unpacking a damaged tar raises."""
MOST_EPOCHS, MOST_NETWORKS = 10_000, 1_000_000


def read(path: Path) -> list[MetricTable]:
    """Return a table a data set; raises UnreadableFile, or NotPlainData for a pickle that runs code.

    The runs of an architecture are in the order of their seeds.
    """
    names: list[str] = []
    places: list[str] = []
    results = {(f"nasbench201/{dataset}", split): Results() for dataset, own in SPLITS.items() for split in own}
    for where, states in _networks(path):
        # The architecture's name stands in the state of each length of training; they agree.
        texts = [text for state in states if isinstance(text := state.get("arch_str"), str)]
        if len(texts) < len(states) or len(set(texts)) > 1:
            raise UnreadableFile(path, where, "doesn't name its architecture")
        for state in states:
            for (benchmark, split), own in results.items():
                for epochs, value in _results(path, where, state, *SPLITS[benchmark.partition("/")[2]][split]):
                    own.add(len(names), epochs, value)
        names.append(texts[0])
        places.append(where)
    if not names:
        raise UnreadableFile(path, "the file", "holds no architectures")
    tables = tables_of(path, "nasbench201", names, lambda i: f"{places[i]} {short(repr(names[i]))}", results)
    if not tables:
        raise UnreadableFile(path, "the file", "holds no accuracies")
    return tables


def _results(path: Path, where: str, state: dict[str, Any], dataset: str, evaluated: str) -> list[tuple[int, float]]:
    """Return epochs and accuracy of each run on a data set, in the order of seeds."""
    try:
        runs = sorted((seed, result) for (name, seed), result in state["all_results"].items() if name == dataset)
        entries = []
        for _, result in runs:
            epochs = int(result["epochs"])
            if not 0 < epochs < MOST_EPOCHS:
                raise ValueError("a training of no length, or of too many epochs")
            value = result["eval_acc1es"].get(f"{evaluated}@{epochs - 1}")
            if value is not None:
                entries.append((epochs, float(value)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{dataset} is not as NATS-Bench writes it ({type(error).__name__}: {first_line(error)})"
        raise UnreadableFile(path, where, reason) from None
    for _, value in entries:
        if not (math.isfinite(value) and 0 <= value <= 100):
            raise UnreadableFile(path, where, f"an accuracy on {dataset} is {value}, expected 0 to 100")
    return entries


def _networks(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield of each architecture where it stands, and its states, one a length of training."""
    if path.is_dir():
        for member in inside(path):
            if member.parent == path and member.name.endswith(MEMBER) and not member.name.startswith("meta."):
                yield member.name, _states(path, member.name, load_member(str(member), member.read_bytes()))
    elif _is_tar(path):
        yield from _tar(path)
    else:
        whole = load(path)
        infos = whole.get("arch2infos") if isinstance(whole, dict) else None
        if not isinstance(infos, dict):
            raise UnreadableFile(path, "the pickle in it", "has no arch2infos: no file of NAS-Bench-201 or NATS-Bench")
        for index in list(infos):
            if not isinstance(index, int) or not 0 <= index < MOST_NETWORKS:
                raise UnreadableFile(path, "the pickle in it", "has results of an architecture without a number")
            where = f"architecture {index}"
            # Taken out as it goes: the whole takes tens of gigabytes.
            yield where, _states(path, where, infos.pop(index))


def _is_tar(path: Path) -> bool:
    try:
        with limit_memory(path.stat().st_size):
            return tarfile.is_tarfile(path)
    except BROKEN_TAR as error:
        raise UnreadableFile(path, "the archive", first_line(error)) from None


def _tar(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r|*") as archive:
            while (member := _next(archive, size)) is not None:
                name = Path(member.name).name
                if not member.isfile() or not name.endswith(MEMBER) or name.startswith("meta."):
                    continue
                if member.size > MOST_MEMBER_BYTES:
                    raise UnreadableFile(path, member.name, "is larger than such a member is")
                file = archive.extractfile(member)
                data = file.read() if file else b""
                yield member.name, _states(path, member.name, load_member(f"{path}: {member.name}", data))
    except BROKEN_TAR as error:
        raise UnreadableFile(path, "the archive", first_line(error)) from None


def _next(archive: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    """Return the next member; the name of one can be of any length."""
    with limit_memory(size):
        return archive.next()


def _states(path: Path, where: str, infos: Any) -> list[dict[str, Any]]:
    states = list(infos.values()) if isinstance(infos, dict) else []
    if not states or not all(isinstance(state, dict) for state in states):
        raise UnreadableFile(path, where, "expected results for 12 and 200 epochs")
    return states
