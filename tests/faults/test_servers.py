"""Every local server listens on the loopback interface only."""

from __future__ import annotations

import configparser
import ipaddress
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
HOST = "%(ENV_SERVICES_HOST)s"
HOST_OPTION = {"storage": "-H", "database": "-h", "prefect": "--host", "mlflow": "--host"}
WORKERS = {"worker-cpu", "worker-gpu"}
"""Programs that are clients only."""
IN_CONTAINERS = "0.0.0.0"
"""Address within a container's separate network; only published ports are visible outside."""


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def test_host_of_make_up_is_loopback() -> None:
    settings = pytest.importorskip("infra.settings", reason="the extra `pipeline` is not installed")
    assert is_loopback(settings.HOST)
    addresses = settings.Addresses(dict.fromkeys(settings.PORTS, 1))
    assert {url.split("/")[2] for url in addresses.urls.values()} == {f"{settings.HOST}:1"}


def test_programs_of_make_up_listen_on_the_host() -> None:
    conf = configparser.RawConfigParser()
    conf.read(INFRA / "supervisord.conf")
    assert not [name for name in conf.sections() if name.startswith("inet_http_server")]
    assert conf["unix_http_server"]["chmod"] == "0700"
    commands = {
        name.removeprefix("program:"): shlex.split(conf[name]["command"])
        for name in conf.sections()
        if name.startswith("program:")
    }
    assert set(commands) == {*HOST_OPTION, *WORKERS}
    for name, option in HOST_OPTION.items():
        words = commands[name]
        assert words[words.index(option) + 1] == HOST, name
    assert "unix_socket_directories=" in commands["database"]
    stack = (INFRA / "stack.py").read_text()
    assert '"SERVICES_HOST": HOST,' in stack


def test_servers_of_the_makefile_listen_on_loopback() -> None:
    text = (ROOT / "Makefile").read_text()
    servers = [
        line for line in text.splitlines() if re.search(r"^\t.*\b(mlflow ui|mlflow server|server start)\b", line)
    ]
    assert servers
    for line in servers:
        found = re.search(r"--host (\S+)", line)
        assert found is not None, line
        assert is_loopback(found[1])
    assert IN_CONTAINERS not in text


def test_containers_publish_to_loopback() -> None:
    services: dict[str, Any] = YAML(typ="safe").load((INFRA / "compose.yaml").read_text())["services"]
    published = [port for service in services.values() for port in service.get("ports", ())]
    assert len(published) == 3
    assert all(is_loopback(port.split(":")[0]) for port in published)
    listening = {name for name, service in services.items() if IN_CONTAINERS in service.get("command", ())}
    assert listening == {"storage", "prefect", "mlflow"}
    assert not [name for name, service in services.items() if service.get("network_mode")]


@pytest.mark.parametrize("path", sorted((INFRA / "kubernetes").glob("*.yaml")), ids=lambda p: p.name)
def test_kubernetes_services_are_internal(path: Path) -> None:
    for document in YAML(typ="safe").load_all(path.read_text()):
        assert document["kind"] not in ("Ingress", "Gateway")
        if document["kind"] == "Service":
            assert document["spec"].get("type", "ClusterIP") == "ClusterIP"
        assert "hostNetwork" not in str(document)
        assert "hostPort" not in str(document)


def test_local_dask_cluster_listens_on_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("prefect_dask", reason="prefect-dask is not installed (the extra `pipeline`)")
    psutil = pytest.importorskip("psutil", reason="psutil is not installed (the extra `pipeline`)")
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    import distributed

    from flows.label import cluster

    start: Any = distributed.LocalCluster
    before = set(psutil.Process().net_connections())
    with start(**cluster(1, None).cluster_kwargs) as made:
        assert made.scheduler_address.startswith("tcp://127.0.0.1:")
        workers = psutil.Process().children(recursive=True)
        found = {c for p in (psutil.Process(), *workers) for c in p.net_connections()} - before
    listening = {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}
    assert listening
    assert all(map(is_loopback, listening)), listening
