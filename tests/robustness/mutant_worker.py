"""Tries mutants in a process of its own, which study_mutants.py tells of them, and asks what came of each."""

from __future__ import annotations

import difflib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path

MEMORY = 8 << 30
"""Bytes that tests of a mutant may map: a changed size may be any."""


def main() -> None:
    """Try the mutants that the input tells of, a line of JSON each, in the project of the working folder.

    What the tests import takes longer than most tests: it is imported once, and each mutant gets a fork of its own.
    """
    # What the tests import besides the core, so that forks have it.
    import hypothesis  # noqa: F401
    import matplotlib  # noqa: F401
    import networkx  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import pytest
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    import typer  # noqa: F401
    from cosmic_ray.mutating import use_mutation
    from cosmic_ray.plugins import get_operator

    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing):
        pytest.main(["--version", "--noconftest"])  # imports its plugins
    for line in sys.stdin:
        asked = json.loads(line)
        path = Path(asked["file"])
        assert str(path.resolve()) not in {getattr(m, "__file__", None) for m in sys.modules.values()}
        with use_mutation(path, get_operator(asked["operator"])(), asked["occurrence"]) as (old, new):
            process = multiprocessing.get_context("fork").Process(target=_test, args=(asked["tests"],))
            process.start()
            process.join(asked["seconds"])
            code = process.exitcode
            with suppress(ProcessLookupError):  # what hangs, and what it left
                os.killpg(process.pid or 0, signal.SIGKILL)
            process.join()
        diff = "\n".join(difflib.unified_diff(old.splitlines(), new.splitlines(), asked["file"], lineterm="", n=0))
        outcome = "survived" if code == 0 else "killed"
        try:
            print(json.dumps({"outcome": outcome, "code": code, "diff": diff}), flush=True)
        except BrokenPipeError:
            os._exit(1)  # whoever asked was interrupted


def _test(names: Sequence[str]) -> None:
    """Run tests in this process, a fork, quietly and in a bounded memory; it ends with pytest's code."""
    import resource

    import pytest

    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream_of in range(3):
        os.dup2(quiet, stream_of)
    sys.exit(pytest.main(["-x", "-p", "no:xdist", "-p", "no:cacheprovider", *names]))


if __name__ == "__main__":
    main()
