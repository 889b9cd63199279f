"""Coverage-guided fuzzing of readers: any bytes must be accepted, or refused with an error of lissnas.

python -m tests.faults.fuzz READER FOLDER [options of libFuzzer]     (`make study NAME=fuzz` runs all of them)

FOLDER is the corpus: inputs that reach new code, from which the next run resumes. A harmful input ends the process with
a nonzero exit code: another error, 4 GiB of memory, a minute without a result.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import atheris

# These imports are instrumented, so that the fuzzer records the lines that an input reaches.
with atheris.instrument_imports(include=["lissnas", "ruamel"]):
    from lissnas import artifacts, config
    from lissnas.artifacts.verification import verified
    from lissnas.core.errors import LissnasError
    from lissnas.core.rng import stream
    from lissnas.oracles.label_table import read_labels
    from lissnas.spaces import Space
    from lissnas.spaces.declared import read_space
    from lissnas.spaces.members import read_members
    from tests.faults.test_bad_input import LABELS, PRODUCT, known_spaces, small, yaml
    from tests.faults.test_foreign_files import convert, parquet, table, valid_files
    from tests.robustness import fuzz
    from tests.unit.benchmarks.test_official import tfrecord, values101

TIMEOUT_SECONDS = 60
"""Time limit of an input."""
MAX_MEMORY = 4_096
"""Memory limit of an input, in MiB."""
SPACES = sorted(known_spaces())


@dataclass(frozen=True)
class Reader:
    """File name, function that reads the file, and contents of valid files."""

    file: str
    read: Callable[[Path], object]
    valid: Sequence[bytes]


def _notation(path: Path) -> None:
    """Read an architecture: one byte for the space, then the architecture's name."""
    data = path.read_bytes()
    space = known_spaces()[SPACES[data[0] % len(SPACES) if data else 0]]
    archs = space.parse([data[1:].decode("utf-8", "replace")])
    assert (space.key(archs) == space.key(space.parse(space.format(archs)))).all()


def _architecture(space: Space) -> bytes:
    return space.format(space.sample(1, stream(0, "fuzz")))[0].encode()


def _manifest(path: Path) -> None:
    for one in verified(path.parent):
        for damage in one.damages:
            raise damage


def _record(path: Path) -> None:
    """Read the record of a run, with a correct digest and a manifest next to it."""
    with suppress(ValueError):
        content = artifacts.read_json(path)
        if isinstance(content, dict):
            path.write_bytes(artifacts.to_record({k: v for k, v in content.items() if k != "digest"}))
    artifacts.write(path.with_name(artifacts.MANIFEST), artifacts.to_json({"files": {}}))
    try:
        _manifest(path)
    finally:
        path.with_name(artifacts.MANIFEST).unlink()


def _row(path: Path) -> None:
    """Read a row of NASBench-101 in an otherwise valid file."""
    path.write_bytes(tfrecord([path.read_bytes()]))
    convert("nasbench101", path.name, path.parent)


def _official(title: str) -> Reader:
    kind, name, data = valid_files()[title]
    return Reader(name, lambda path: convert(kind, path.name, path.parent), [data])


OFFICIAL = ("tfrecord", "201 torch", "201 torch zip", "201 tar", "transnas torch")
"""One title for each format without checksum or compression, so that mutated bytes reach the parser."""
READERS = {
    "params": Reader("params.yaml", lambda path: config.load(path, {}, ["nas_bench_macro"]), [yaml(small()).encode()]),
    "space": Reader("space.yaml", read_space, [PRODUCT.encode()]),
    "labels": Reader(
        "labels.csv", lambda path: read_labels(path, known_spaces()["product"]), ["\n".join(LABELS).encode()]
    ),
    "notations": Reader(
        "arch", _notation, [bytes([i]) + _architecture(known_spaces()[name]) for i, name in enumerate(SPACES)]
    ),
    "manifest": Reader(artifacts.MANIFEST, _manifest, [artifacts.to_json({"files": {"a": "00", "../b": "00"}})]),
    "run": Reader(
        artifacts.RUN, _record, [artifacts.to_record({"command": ["lissnas", "shrink"], "files": {"a": "00"}})]
    ),
    "parquet": Reader("labels.parquet", lambda path: read_labels(path, known_spaces()["product"]), [parquet(table())]),
    "members": Reader(
        "subspace.parquet",
        lambda path: read_members(path, known_spaces()["nas_bench_macro"]),
        [parquet({"arch": ["10210210"] * 9})],
    ),
    "row-of-101": Reader("nb.tfrecord", _row, values101()[:3]),
    **{title.replace(" ", "-"): _official(title) for title in OFFICIAL},
}
assert set(READERS) == set(fuzz.READERS), READERS.keys() ^ set(fuzz.READERS)


def main(name: str, corpus: Path, *options: str) -> None:
    """Fuzz a reader."""
    reader = READERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for i, data in enumerate(reader.valid):
        (corpus / f"valid-{i}").write_bytes(data)
    with tempfile.TemporaryDirectory() as work:
        os.chdir(work)
        path = Path(work) / reader.file

        def one(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(LissnasError):
                reader.read(path)
            left = {p.name for p in Path(work).iterdir()} - {path.name}
            assert not left, left

        limits = [f"-timeout={TIMEOUT_SECONDS}", f"-rss_limit_mb={MAX_MEMORY}", "-print_final_stats=1"]
        atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).absolute(), *sys.argv[3:])
