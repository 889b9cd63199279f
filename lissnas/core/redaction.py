"""Redact secrets from texts: passwords in URLs, and values of environment variables with secret-like names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit, urlunsplit

HIDDEN = "***"
MIN_SECRET_LENGTH = 8
"""Characters of a value that is redacted: a shorter one may be part of an ordinary word."""
# An unencoded password may contain slashes, which databases accept; digits before a slash are a port.
_SIGNED = re.compile(r"(?<=://)(?:[^\s/?#'\"<>]*|[^\s/?#'\"<>:@]*:(?!\d+[/?#])[^\s'\"<>@]*)@")
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|api_?key|key_?id)=)[^\s&#'\"<>]+")
_NAME = re.compile(r"(?i)(?!.*(FILE|DIR|PATH)$).*(SECRET|PASSWORD|PASSWD|(TOKEN|KEY|KEY_ID|AUTH_STRING)$)")
_PASSWORD = re.compile(r"://[^\s/?#:@]*:(?!\d+[/?#])(\S+)@")


def without_passwords(text: str) -> str:
    """Return a text without user names and passwords in its URLs."""
    return _QUERY.sub(rf"\1{HIDDEN}", _SIGNED.sub("", text))


def redacted(text: str) -> str:
    """Return a text without passwords in URLs and without values of secret environment variables."""
    for value in sorted(set(_secrets()), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return without_passwords(text)


def split_credentials(address: str) -> tuple[str, str, str]:
    """Return a URL without its user name and password, the user name, and the password; empty if absent."""
    try:
        parts = urlsplit(address)
    except ValueError:  # not a URL; the code that opens it reports that
        return address, "", ""
    credentials, found, host = parts.netloc.rpartition("@")
    if not found:
        return address, "", ""
    name, _, password = credentials.partition(":")
    return urlunsplit(parts._replace(netloc=host)), unquote(name), unquote(password)


def move_prefect_credentials() -> None:
    """Move user name and password from PREFECT_API_URL, which Prefect prints, to PREFECT_API_AUTH_STRING."""
    address, name, password = split_credentials(os.environ.get("PREFECT_API_URL", ""))
    if name:
        os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"] = address, f"{name}:{password}"


def prefect_credentials() -> tuple[str, str] | None:
    """Return the user name and password for the Prefect server; None if it needs none."""
    name, found, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return (name, password) if found else None


def move_mlflow_credentials() -> None:
    """Move user name and password from MLFLOW_TRACKING_URI, which MLflow prints, to their environment variables."""
    address, name, password = split_credentials(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if address.startswith("http") and name and password:
        os.environ["MLFLOW_TRACKING_URI"] = address
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = name, password


def _secrets() -> Iterator[str]:
    """Yield the secrets in the environment, plain and URL-encoded."""
    for name, value in os.environ.items():
        found = [value, value.partition(":")[2]] if _NAME.match(name) else []
        found += [match[1] for match in _PASSWORD.finditer(value)]
        for secret in found:
            plain = unquote(secret)
            yield from (form for form in (secret, plain, quote(plain, safe="")) if len(form) >= MIN_SECRET_LENGTH)
