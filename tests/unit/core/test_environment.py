"""Proxies, empty variables and home folders of the environment."""

from __future__ import annotations

import os
import urllib.request
from pathlib import Path

import pytest

from lissnas.benchmarks.official import layout
from lissnas.core import environment
from lissnas.core.errors import UserError


@pytest.fixture(autouse=True)
def separate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what `set_defaults` does to the environment, which monkeypatch does not see."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize(("before", "kept"), [("", []), ("corp, .intern", ["corp", ".intern"]), ("localhost", [])])
def test_loopback_addresses_bypass_proxies(
    name: str, before: str, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("no_proxy", "NO_PROXY"):
        os.environ.pop(other, None)
    os.environ[name] = "http://127.0.0.1:9"
    os.environ["no_proxy"] = before
    environment.set_defaults()
    environment.set_defaults()
    found = os.environ["NO_PROXY"].split(",")
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    assert sorted(found) == sorted({*kept, "127.0.0.1", "localhost", "::1"})
    assert urllib.request.proxy_bypass_environment("127.0.0.1:4200")  # type: ignore[attr-defined]
    assert not urllib.request.proxy_bypass_environment("example.org")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["ALL_PROXY", "all_proxy", "https_proxy"])
def test_a_socks_proxy_is_dropped_if_no_client_supports_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for supported in (True, False):
        monkeypatch.setattr(environment, "find_spec", lambda module, found=supported: object() if found else None)
        os.environ[name] = "socks5://127.0.0.1:9"
        environment.bypass_proxies()
        assert (name in os.environ) == supported


@pytest.mark.parametrize("value", ["", " "])
def test_empty_addresses_are_unset(value: str) -> None:
    for name in environment.ADDRESSES:
        os.environ[name] = value
    environment.set_defaults()
    assert not {*environment.ADDRESSES} & os.environ.keys()


@pytest.mark.parametrize("home", ["/nonexistent", "~", "/dev/null"])
def test_matplotlib_gets_a_folder_without_a_home(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.pop("MPLCONFIGDIR", None)
    monkeypatch.setattr(environment.os.path, "expanduser", lambda path: home)
    environment.give_matplotlib_a_folder()
    assert os.access(os.environ["MPLCONFIGDIR"], os.W_OK)
    os.environ["MPLCONFIGDIR"] = "/chosen"
    environment.give_matplotlib_a_folder()
    assert os.environ["MPLCONFIGDIR"] == "/chosen"


def test_matplotlib_keeps_its_folder_with_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ.pop("MPLCONFIGDIR", None)
    monkeypatch.setattr(environment.os.path, "expanduser", lambda path: str(tmp_path))
    environment.give_matplotlib_a_folder()
    assert "MPLCONFIGDIR" not in os.environ


@pytest.mark.parametrize("given", ["", "~no-such-user/x"])
def test_no_home_folder_is_a_message(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    os.environ["LISSNAS_DATA"] = given
    os.environ.pop("XDG_DATA_HOME", None)
    with pytest.raises(UserError, match="no home folder: set LISSNAS_DATA or give --to"):
        layout.data_root()
