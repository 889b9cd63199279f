"""Secrets kept out of texts: passwords in addresses, and values of variables whose names say that they are secret."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit, urlunsplit

HIDDEN = "***"
SHORTEST = 8
"""Characters of a variable's value that is looked for: a shorter one may be a part of any word."""
# A password that is not encoded may have slashes, as databases take it; digits before a slash are a port.
_SIGNED = re.compile(r"(?<=://)(?:[^\s/?#'\"<>]*|[^\s/?#'\"<>:@]*:(?!\d+[/?#])[^\s'\"<>@]*)@")
_QUERY = re.compile(r"(?i)([?&][\w.-]*(?:password|passwd|pwd|secret|token|signature|api_?key|key_?id)=)[^\s&#'\"<>]+")
_NAME = re.compile(r"(?i)(?!.*(FILE|DIR|PATH)$).*(SECRET|PASSWORD|PASSWD|(TOKEN|KEY|KEY_ID|AUTH_STRING)$)")
_PASSWORD = re.compile(r"://[^\s/?#:@]*:(?!\d+[/?#])(\S+)@")


def without_passwords(text: str) -> str:
    """Return a text whose addresses carry no name and password."""
    return _QUERY.sub(rf"\1{HIDDEN}", _SIGNED.sub("", text))


def redacted(text: str) -> str:
    """Return a text without passwords in addresses, and without what secret variables of the environment hold."""
    for value in sorted(set(_secrets()), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return without_passwords(text)


def signed_apart(address: str) -> tuple[str, str, str]:
    """Return an address without the name and password that it carries, and these; empty where it has none."""
    try:
        parts = urlsplit(address)
    except ValueError:  # no address; whoever uses it says so
        return address, "", ""
    sign, found, place = parts.netloc.rpartition("@")
    if not found:
        return address, "", ""
    name, _, password = sign.partition(":")
    return urlunsplit(parts._replace(netloc=place)), unquote(name), unquote(password)


def sign_prefect_apart() -> None:
    """Give Prefect the name and password of its server's address by a variable: it prints the address."""
    address, name, password = signed_apart(os.environ.get("PREFECT_API_URL", ""))
    if name:
        os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"] = address, f"{name}:{password}"


def prefect_sign() -> tuple[str, str] | None:
    """Return the name and password for the Prefect server, None where there are none."""
    name, found, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
    return (name, password) if found else None


def sign_mlflow_apart() -> None:
    """Give MLflow the name and password of its server's address by variables: it prints the address."""
    address, name, password = signed_apart(os.environ.get("MLFLOW_TRACKING_URI", ""))
    if address.startswith("http") and name and password:
        os.environ["MLFLOW_TRACKING_URI"] = address
        os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"] = name, password


def _secrets() -> Iterator[str]:
    """Yield what the environment keeps secret: as it is, and as an address writes it."""
    for name, value in os.environ.items():
        found = [value, value.partition(":")[2]] if _NAME.match(name) else []
        found += [match[1] for match in _PASSWORD.finditer(value)]
        for secret in found:
            plain = unquote(secret)
            yield from (form for form in (secret, plain, quote(plain, safe="")) if len(form) >= SHORTEST)
