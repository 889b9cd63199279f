"""Defaults of the environment: loopback addresses without a proxy, empty variables unset, a place for Matplotlib."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost", "::1")
ADDRESSES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
PROXIES = ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY")


def set_defaults() -> None:
    """Prepare the environment of this process and of those that it starts; calling it again changes nothing."""
    for name in ADDRESSES:  # an empty address counts as none
        if not os.environ.get(name, "x").strip():
            del os.environ[name]
    bypass_proxies()
    give_matplotlib_a_folder()


def bypass_proxies() -> None:
    """Exclude loopback addresses from all proxies; remove SOCKS proxies, which stop any client if not supported."""
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",") if name.strip()]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([*names, *(n for n in LOOPBACK if n not in names)])
    for name in (*PROXIES, *map(str.lower, PROXIES)):
        if os.environ.get(name, "").startswith("socks") and find_spec("socksio") is None:
            del os.environ[name]


def give_matplotlib_a_folder() -> None:
    """Set MPLCONFIGDIR to a temporary folder if the user has no home folder, or can't write to it."""
    if "MPLCONFIGDIR" in os.environ or _is_writable(Path(os.path.expanduser("~"))):
        return
    os.environ["MPLCONFIGDIR"] = folder = tempfile.mkdtemp(prefix="lissnas-matplotlib-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _is_writable(home: Path) -> bool:
    return home.is_absolute() and home.is_dir() and os.access(home, os.W_OK)
