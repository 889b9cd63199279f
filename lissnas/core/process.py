"""A command as a process: its consoles, its exit codes, its signals."""

from __future__ import annotations

import errno
import io
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.text import Text

from lissnas.core.errors import LissnasError
from lissnas.core.redaction import redacted

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Errors of a path that was given, and of nothing else."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised as SIGINT is, so that what was started is ended and what was begun put away."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def run(app: Callable[[], None]) -> None:
    """Run a command; end with its exit code and a message instead of a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files can be what no text is
    try:
        app()
    except LissnasError as error:
        _failed(str(error), error.exit_code)
    except KeyboardInterrupt as how:
        _interrupted(how)
    except SystemExit as ended:
        # typer makes an exit of an interruption, and says nothing.
        if isinstance(by := getattr(ended.__context__, "__cause__", None), KeyboardInterrupt):
            _interrupted(by)
        raise
    except MemoryError:
        _failed("out of memory; --memory bounds what a shrink keeps", 1)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        _failed(redacted(f"{error.strerror or error}{where}"), 2 if error.errno in NO_PATH else 1)
    except Exception:
        err.print(Text(redacted(traceback.format_exc())), soft_wrap=True)
        sys.exit(1)


def _failed(text: str, code: int) -> NoReturn:
    err.print(Text.assemble(("error: ", "bold red"), printable(text)), soft_wrap=True)
    sys.exit(code)


def _interrupted(how: KeyboardInterrupt) -> NoReturn:
    err.print("interrupted; the same command again goes on where it was")
    sys.exit(128 + (signal.SIGTERM if isinstance(how, Terminated) else signal.SIGINT))


def printable(text: str) -> str:
    """Return a text whose control characters, which could come from any file, stand as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def say(line: str) -> None:
    """Print a line as it stands."""
    out.print(line, soft_wrap=True, markup=False)
