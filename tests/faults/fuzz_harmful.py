"""A reader with a bug that the fuzzer must find: python -m tests.faults.fuzz_harmful harmful FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.faults import fuzz


def read(path: Path) -> None:
    """Raise RuntimeError if the file contains a dollar sign."""
    if b"$" in path.read_bytes():
        raise RuntimeError("a dollar")


if __name__ == "__main__":
    fuzz.READERS["harmful"] = fuzz.Reader("file", read, [b"%"])
    fuzz.main(sys.argv[1], Path(sys.argv[2]).absolute(), *sys.argv[3:])
