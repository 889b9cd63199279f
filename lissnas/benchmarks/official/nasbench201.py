"""Reader of NAS-Bench-201's `.pth` file and NATS-Bench's topology files: `.pickle.pbz2` or a `-simple` archive.

They contain, for each architecture, the state of an `ArchResults` per training length, 12 and 200 epochs
(`less` and `full` in the older file), and in it, per data set and seed, the accuracy on each evaluation
set after each epoch (github.com/D-X-Y/NATS-Bench, nats_bench/api_utils.py). The accuracy after the last
epoch is used.
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
from lissnas.benchmarks.official.restricted import MAX_MEMBER_BYTES, load, load_member
from lissnas.core.errors import first_line, short
from lissnas.core.memory_limit import limit_memory

# The splits proposed by the paper: training set and evaluation set.
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
"""The exceptions raised by opening or unpacking a damaged tar."""
MAX_EPOCHS = 10_000
MAX_NETWORKS = 1_000_000


def read(path: Path) -> list[MetricTable]:
    """Return one table per data set; raises UnreadableFile, or NotPlainData for a pickle that runs code.

    The runs of an architecture are sorted by seed.
    """
    names: list[str] = []
    locations: list[str] = []
    results = {(f"nasbench201/{dataset}", split): Results() for dataset, splits in SPLITS.items() for split in splits}
    for location, states in _networks(path):
        # The state of each training length contains the architecture's name; the names must be equal.
        texts = [text for state in states if isinstance(text := state.get("arch_str"), str)]
        if len(texts) < len(states) or len(set(texts)) > 1:
            raise UnreadableFile(path, location, "doesn't name its architecture")
        for state in states:
            for (benchmark, split), found in results.items():
                for epochs, value in _results(path, location, state, *SPLITS[benchmark.partition("/")[2]][split]):
                    found.add(len(names), epochs, value)
        names.append(texts[0])
        locations.append(location)
    if not names:
        raise UnreadableFile(path, "the file", "holds no architectures")
    tables = tables_of(path, "nasbench201", names, lambda i: f"{locations[i]} {short(repr(names[i]))}", results)
    if not tables:
        raise UnreadableFile(path, "the file", "holds no accuracies")
    return tables


def _results(path: Path, location: str, state: dict[str, Any], dataset: str, evaluated: str) -> list[tuple[int, float]]:
    """Return epochs and accuracy of each run on a data set, sorted by seed."""
    try:
        runs = sorted((seed, result) for (name, seed), result in state["all_results"].items() if name == dataset)
        entries = []
        for _, result in runs:
            epochs = int(result["epochs"])
            if not 0 < epochs < MAX_EPOCHS:
                raise ValueError(f"a training of {epochs:,} epochs, expected 1 to {MAX_EPOCHS - 1:,}")
            value = result["eval_acc1es"].get(f"{evaluated}@{epochs - 1}")
            if value is not None:
                entries.append((epochs, float(value)))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{dataset} is not as NATS-Bench writes it ({type(error).__name__}: {first_line(error)})"
        raise UnreadableFile(path, location, reason) from None
    for _, value in entries:
        if not (math.isfinite(value) and 0 <= value <= 100):
            raise UnreadableFile(path, location, f"an accuracy on {dataset} is {value}, expected 0 to 100")
    return entries


def _networks(path: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the location of each architecture and its states, one per training length."""
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
            raise UnreadableFile(path, "the pickle in it", "has no arch2infos: not from NAS-Bench-201 or NATS-Bench")
        for index in list(infos):
            if not isinstance(index, int) or not 0 <= index < MAX_NETWORKS:
                raise UnreadableFile(path, "the pickle in it", "has results of an architecture without a number")
            location = f"architecture {index}"
            # Popped to free memory: the whole file takes tens of gigabytes.
            yield location, _states(path, location, infos.pop(index))


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
                if member.size > MAX_MEMBER_BYTES:
                    raise UnreadableFile(path, member.name, f"has more than {MAX_MEMBER_BYTES:,} bytes")
                file = archive.extractfile(member)
                data = file.read() if file else b""
                yield member.name, _states(path, member.name, load_member(f"{path}: {member.name}", data))
    except BROKEN_TAR as error:
        raise UnreadableFile(path, "the archive", first_line(error)) from None


def _next(archive: tarfile.TarFile, size: int) -> tarfile.TarInfo | None:
    """Return the next member under a memory limit, since its name can be of any length."""
    with limit_memory(size):
        return archive.next()


def _states(path: Path, location: str, infos: Any) -> list[dict[str, Any]]:
    states = list(infos.values()) if isinstance(infos, dict) else []
    if not states or not all(isinstance(state, dict) for state in states):
        raise UnreadableFile(path, location, "expected results for 12 and 200 epochs")
    return states
