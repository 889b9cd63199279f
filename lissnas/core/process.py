"""Consoles, exit codes and signal handling of commands."""

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

from lissnas.core.environment import set_defaults
from lissnas.core.errors import LissnasError
from lissnas.core.redaction import redacted

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


PATH_ERRORS = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
"""Error numbers that only an invalid path from the user causes."""


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM, like KeyboardInterrupt on SIGINT, so that child processes stop and cleanup runs."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def run(app: Callable[[], None]) -> None:
    """Run a command and exit with its exit code; expected errors print a message instead of a traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    set_defaults()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid UTF-8
    try:
        app()
    except LissnasError as error:
        _failed(str(error), error.exit_code)
    except KeyboardInterrupt as interruption:
        _interrupted(interruption)
    except SystemExit as exit_:
        # typer converts an interruption to an exit without a message.
        if isinstance(cause := getattr(exit_.__context__, "__cause__", None), KeyboardInterrupt):
            _interrupted(cause)
        raise
    except MemoryError:
        _failed("out of memory; --memory limits the memory of a shrink", 1)
    except OSError as error:
        path = f" ({error.filename})" if error.filename else ""
        _failed(redacted(f"{error.strerror or error}{path}"), 2 if error.errno in PATH_ERRORS else 1)
    except Exception:
        err.print(Text(redacted(traceback.format_exc())), soft_wrap=True)
        sys.exit(1)


def _failed(text: str, code: int) -> NoReturn:
    err.print(Text.assemble(("error: ", "bold red"), printable(text)), soft_wrap=True)
    sys.exit(code)


def _interrupted(interruption: KeyboardInterrupt) -> NoReturn:
    err.print("interrupted; the same command again goes on where it was")
    sys.exit(128 + (signal.SIGTERM if isinstance(interruption, Terminated) else signal.SIGINT))


def printable(text: str) -> str:
    """Return a text with its control characters, which may come from any file, escaped."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def say(line: str) -> None:
    """Print a line verbatim, without markup or wrapping."""
    out.print(line, soft_wrap=True, markup=False)
