"""Redaction removes secrets from texts and nothing else."""

from __future__ import annotations

import os
import pickle

import pytest

from lissnas.core.errors import LissnasError, UnknownName, UserError
from lissnas.core.redaction import (
    move_mlflow_credentials,
    move_prefect_credentials,
    prefect_credentials,
    redacted,
    split_credentials,
    without_passwords,
)
from lissnas.oracles.label_collection import describe_failure


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MLFLOW_TRACKING", "PREFECT_API", "TESTED")):
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no answer from http://a:b@host:80/x", "no answer from http://host:80/x"),
        ("postgresql+psycopg://a:p@ss@host/db?sslmode=x", "postgresql+psycopg://host/db?sslmode=x"),
        ("postgresql://a:sl/ash@host/db", "postgresql://host/db"),
        ("'https://token@host/x.git' and s3://k:s@b", "'https://host/x.git' and s3://b"),
        ("http://host/x?user=a&password=b&c=d", "http://host/x?user=a&password=***&c=d"),
        ("https://b/k?X-Amz-Signature=abc&X-Amz-Date=1", "https://b/k?X-Amz-Signature=***&X-Amz-Date=1"),
        ("http://host:8080/a@b", "http://host:8080/a@b"),
        ("write to me@host, see http://host/x", "write to me@host, see http://host/x"),
        ("sqlite:////home/a/mlflow.db", "sqlite:////home/a/mlflow.db"),
        ("", ""),
    ],
)
def test_credentials_in_urls_are_removed(text: str, expected: str) -> None:
    assert without_passwords(text) == redacted(text) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("TESTED_PASSWORD", "TESTED_TOKEN", "TESTED_API_KEY", "TESTED_SECRET_ACCESS_KEY", "TESTED_ACCESS_KEY_ID"),
        *("tested_passwd", "TESTED_AUTH_STRING", "TESTED_CLIENT_SECRET_2"),
    ],
)
def test_values_of_variables_with_secret_names_are_redacted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "se+cret/value")
    assert redacted("got se+cret/value, se%2Bcret%2Fvalue") == "got ***, ***"
    monkeypatch.setenv(name, "a:se+cret/value")
    assert redacted("got a:se+cret/value and se+cret/value") == "got *** and ***"


@pytest.mark.parametrize("name", ["TESTED", "TESTED_PASSWORD_FILE", "TESTED_TOKENIZER", "TESTED_SECRETS_DIR"])
def test_values_of_other_variables_are_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "/run/secrets/it")
    assert redacted("no such file: /run/secrets/it") == "no such file: /run/secrets/it"


def test_passwords_in_variables_that_hold_urls_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTED_DATABASE_URL", "postgresql://a:pass%2Fword@host/db")
    monkeypatch.setenv("TESTED_URL", "http://host:8080/some/a@b")
    assert redacted("FATAL: pass/word is wrong, pass%2Fword too: 8080/some/a") == (
        "FATAL: *** is wrong, *** too: 8080/some/a"
    )


def test_short_values_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTED_ACCESS_KEY_ID", "lissnas")
    assert redacted("lissnas shrink") == "lissnas shrink"


def test_error_messages_are_redacted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTED_TOKEN", "abcdefgh")
    for kind in (LissnasError, UserError):
        error = kind("http://a:b@host refuses abcdefgh")
        assert str(error) == "http://host refuses ***"
        assert str(pickle.loads(pickle.dumps(error))) == str(error)  # as Dask sends it
    assert "abcdefgh" not in repr(UnknownName("method", "abcdefgh", ["abs"]))
    assert describe_failure(ValueError("http://a:b@host refuses abcdefgh")) == "ValueError: http://host refuses ***"
    assert str(LissnasError()) == ""


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://a:p%2Bw@host:80/api", ("http://host:80/api", "a", "p+w")),
        ("https://token@host", ("https://host", "token", "")),
        ("http://host/a@b", ("http://host/a@b", "", "")),
        ("http://[bad", ("http://[bad", "", "")),
        ("", ("", "", "")),
    ],
)
def test_split_credentials(address: str, expected: tuple[str, str, str]) -> None:
    assert split_credentials(address) == expected


def test_credentials_move_to_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for move in (move_prefect_credentials, move_mlflow_credentials):
        before = dict(os.environ)
        move()
        assert dict(os.environ) == before
    assert prefect_credentials() is None
    for name in ("PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("PREFECT_API_URL", "https://a:p%3Aw@host/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://a:p%3Aw@host")
    move_prefect_credentials()
    move_mlflow_credentials()
    assert os.environ["PREFECT_API_URL"] == "https://host/api"
    assert prefect_credentials() == ("a", "p:w")
    found = [os.environ[f"MLFLOW_TRACKING_{name}"] for name in ("URI", "USERNAME", "PASSWORD")]
    assert found == ["https://host", "a", "p:w"]


def test_database_url_keeps_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://a:b@host/mlflow")
    move_mlflow_credentials()
    assert os.environ["MLFLOW_TRACKING_URI"] == "postgresql+psycopg://a:b@host/mlflow"
