"""Check an installation: packages, tables, parameters, servers and disk space."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement

from lissnas import __version__, benchmarks, config
from lissnas.benchmarks import tables
from lissnas.core.errors import LissnasError

SERVERS = {"PREFECT_API_URL": "Prefect server", "MLFLOW_TRACKING_URI": "MLflow server"}
MIN_DISK_GB = 2


@dataclass(frozen=True)
class Check:
    """The result of one check; `sound` is None if an optional item is missing."""

    what: str
    sound: bool | None
    found: str
    fix: str = ""


def check_all() -> list[Check]:
    """Return the results of all checks; they change nothing."""
    return [*_packages(), *_tables(), _params(), *_servers(), _folder()]


def _packages() -> Iterator[Check]:
    yield Check("Python", True, f"{platform.python_version()} ({sys.executable})")
    yield Check("lissnas", True, __version__)
    for line in requires("lissnas") or []:
        need = Requirement(line)
        extra = next((e for e in ("pipeline", "torch") if need.marker and need.marker.evaluate({"extra": e})), "")
        core = need.marker is None or need.marker.evaluate({"extra": ""})
        if not core and not extra:
            continue
        install = f'pip install "{need.name}{need.specifier}"'
        try:
            found = version(need.name)
        except PackageNotFoundError:
            install = install if core else f'pip install "lissnas[{extra}]"'
            yield Check(need.name, False if core else None, f"not installed ({extra or 'core'})", install)
            continue
        fits = need.specifier.contains(found, prereleases=True)
        yield Check(need.name, fits, found, "" if fits else install)


def _tables() -> Iterator[Check]:
    for name in tables.CHECKSUMS:
        try:
            size = f"{len(tables.read_bytes(name)) / 2**10:,.0f} KiB"
            yield Check(f"table {name}", True, f"{size}, checksum matches")
        except (LissnasError, OSError) as error:
            yield Check(f"table {name}", False, str(error), "pip install --force-reinstall --no-deps lissnas")


def _params() -> Check:
    source = "params.yaml" if Path("params.yaml").exists() else "built-in parameters"
    try:
        config.load(None, {}, benchmarks.names())
    except LissnasError as error:
        return Check(source, False, str(error), "correct these lines")
    return Check(source, True, "valid")


def _servers() -> Iterator[Check]:
    for variable, what in SERVERS.items():
        address = urlsplit(os.environ.get(variable, ""))
        if address.scheme not in ("http", "https") or not address.hostname:
            yield Check(what, None, f"{variable} is not the URL of a server; a local one is used")
            continue
        port = address.port or (443 if address.scheme == "https" else 80)
        try:
            with socket.create_connection((address.hostname, port), timeout=3):
                yield Check(what, True, f"{address.hostname}:{port} answers")
        except OSError as error:
            fix = f"start it, or unset {variable}"
            yield Check(what, False, f"{address.hostname}:{port}: {error.strerror or error}", fix)


def _folder() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    found = f"{Path.cwd()}, {free:.1f} GB free"
    if not os.access(Path.cwd(), os.W_OK):
        return Check("folder", False, found, "change to a writable folder")
    enough = free >= MIN_DISK_GB
    return Check("folder", enough, found, "" if enough else f"free at least {MIN_DISK_GB} GB")
