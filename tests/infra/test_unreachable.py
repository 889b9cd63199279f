"""What answers at PREFECT_API_URL: other versions, login pages, errors, nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infra import settings

pytest.importorskip("prefect", reason="Prefect is not installed (the extra `pipeline`)")


@contextmanager
def server(health: tuple[int, bytes], version: bytes = b"null") -> Iterator[str]:
    """Serve a health check and a version on a port of the loopback interface; yield the API's URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = (200, version) if self.path == "/api/admin/version" else health
            self.send_response(code)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    one = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=one.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{one.server_port}/api"
    finally:
        one.shutdown()
        thread.join()
        one.server_close()


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("3.8.8", ""),
        ("3.8.0", ""),
        ("3.9.1", ""),
        ("3.8.9.dev1+g12", ""),
        ("3.0.0", ": its Prefect is 3.0.0, 3.8.8 is needed"),
        ("2.20.3", ": its Prefect is 2.20.3, 3.8.8 is needed"),
        ("4.0.0", ": its Prefect is 4.0.0, 3.8.8 is needed"),
        ("nonsense", " is not a Prefect server (its version is 'nonsense')"),
        ("", " is not a Prefect server (its version is '')"),
        (None, " is not a Prefect server (its version is 'None')"),
        ({"a": 1}, " is not a Prefect server (its version is \"{'a': 1}\")"),
    ],
)
def test_the_version_of_the_server_decides(found: object, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "version", lambda package: "3.8.8")
    with server((200, b"true"), json.dumps(found).encode()) as url:
        assert settings.unreachable(url) == reason
        assert settings.unreachable(f"{url}/") == reason


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        ((200, b"<html>Sign in to corporate SSO</html>"), "perhaps a login page"),
        ((200, b""), "perhaps a login page"),
        ((200, b"\xff\xfe"), "perhaps a login page"),
        ((401, b"You are not authenticated"), "refuses the login (HTTP 401; check PREFECT_API_AUTH_STRING)"),
        ((403, b""), "refuses the login (HTTP 403"),
        ((404, b""), "answers with HTTP 404"),
        ((503, b"unavailable"), "answers with HTTP 503"),
    ],
)
def test_other_answers_are_named(health: tuple[int, bytes], reason: str) -> None:
    with server(health) as url:
        assert reason in settings.unreachable(url)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/api", "https://127.0.0.1:9/api", "foo://x", "nonsense", "http://["]
)
def test_no_answer_is_named(url: str) -> None:
    assert settings.unreachable(url).startswith(" does not answer (")
