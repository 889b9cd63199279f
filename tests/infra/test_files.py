"""Files of infra/: valid by their published schemas, and consistent with the commands of `make up`."""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from ruamel.yaml import YAML

from infra.deploy import ROOT, automations, declared, problems
from infra.settings import POOL_OF, POOLS

INFRA = ROOT / "infra"
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))
KUBERNETES = "1.31"
DOCKERFILES = sorted(INFRA.glob("Dockerfile*"))


def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in YAML(typ="safe").load_all(path.read_text()) if d]


def supervised() -> dict[str, list[str]]:
    """Return the programs of supervisord.conf and their commands, without hosts, ports and numbers of runs."""
    conf = configparser.RawConfigParser()
    conf.read(INFRA / "supervisord.conf")
    return {
        name.removeprefix("program:"): plain(shlex.split(conf[name]["command"]))
        for name in conf.sections()
        if name.startswith("program:")
    }


def plain(command: list[str]) -> list[str]:
    """Return a command without machine-specific parts: addresses, ports, limits, worker types."""
    text = [re.sub(r"^(%\(ENV_\w+\)s|\d+|0\.0\.0\.0|process|kubernetes)$", "_", part) for part in command]
    return text


# -- the same commands everywhere ------------------------------------------------------------------
@pytest.mark.parametrize("name", ["storage", "prefect", "mlflow", "worker-cpu", "worker-gpu"])
def test_containers_run_the_commands_of_make_up(name: str) -> None:
    compose = documents(INFRA / "compose.yaml")[0]["services"]
    assert plain(compose[name]["command"]) == supervised()[name]


@pytest.mark.parametrize("name", ["prefect", "mlflow", "worker-cpu", "worker-gpu"])
def test_kubernetes_runs_the_commands_of_make_up(name: str) -> None:
    found = {
        d["metadata"]["name"]: d["spec"]["template"]["spec"]["containers"][0]["command"]
        for path in MANIFESTS
        for d in documents(path)
        if d["kind"] == "Deployment"
    }
    assert plain(found[name]) == supervised()[name]


# -- published schemas -----------------------------------------------------------------------------
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.name)
def test_kubernetes_manifests_match_the_schema(path: Path) -> None:
    import kubernetes_validate

    for document in documents(path):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
def test_job_templates_are_valid_for_prefect_and_kubernetes(pool: str) -> None:
    import kubernetes_validate
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.utilities.templating import apply_values
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

    template = json.loads((INFRA / "kubernetes" / f"pool-{pool}.json").read_text())
    WorkPoolCreate(name=pool, type="kubernetes", base_job_template=template)
    variables = {
        name: about["default"] for name, about in template["variables"]["properties"].items() if "default" in about
    }
    filled = apply_values(template["job_configuration"], {**variables, "env": {"A": "b"}, "command": "true"})
    manifest = KubernetesWorkerJobConfiguration(**filled).job_manifest
    limits = manifest["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert ("nvidia.com/gpu" in limits) == (pool == "gpu")
    # The worker sets these when it creates the job.
    manifest["metadata"] = {"generateName": "flow-"}
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["args"], container["env"] = ["true"], [{"name": "A", "value": "b"}]
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_compose_file_matches_the_schema() -> None:
    from compose_spec import PyCompose

    compose = PyCompose.from_json(json.dumps(documents(INFRA / "compose.yaml")[0]))
    compose.validate()
    compose.to_spec()
    assert set(compose.service_names()) == {*supervised()}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda p: p.name)
def test_dockerfiles_pass_the_linter(path: Path) -> None:
    done = subprocess.run(["hadolint", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# -- deployments -----------------------------------------------------------------------------------
def test_every_flow_is_deployed() -> None:
    entrypoints = {d["entrypoint"] for d in declared()["deployments"]}
    flows = {
        f"flows/{path.name}:{name}"
        for path in (ROOT / "flows").glob("*.py")
        for name in re.findall(r"^@flow\((?:.|\n)*?^def (\w+)\(", path.read_text(), re.MULTILINE)
    }
    assert entrypoints == flows
    assert {entrypoint.partition(":")[2] for entrypoint in entrypoints} == set(POOL_OF)
    assert set(POOL_OF.values()) == set(POOLS)
    assert {f"worker-{pool}" for pool in POOLS} <= set(supervised())


def test_parameters_of_schedules_are_valid_for_their_flows() -> None:
    for one in declared()["deployments"]:
        file, _, name = one["entrypoint"].partition(":")
        flow = getattr(import_module(f"flows.{Path(file).stem}"), name)
        for schedule in one.get("schedules", ()):
            flow.validate_parameters(schedule.get("parameters", {}))


def test_deployments_match_prefects_schema() -> None:
    from prefect.cli.deploy._models import PrefectYamlModel

    model = PrefectYamlModel.model_validate(declared())
    for one in model.deployments:
        assert one.description
        assert one.tags
        assert one.work_pool is not None
        assert one.work_pool.name == POOL_OF[str(one.entrypoint).partition(":")[2]] == one.name
    names = [(d.entrypoint, d.name) for d in model.deployments]
    assert len(names) == len(set(names))


def test_automations_match_prefects_schema() -> None:
    from prefect.events.schemas.automations import AutomationCore

    every, quiet = automations(str(uuid4())), automations(None)
    for automation in every:
        AutomationCore.model_validate(automation)
    assert {a["name"] for a in every} - {a["name"] for a in quiet} == {"tell of failed runs", "tell of late runs"}


def test_every_deployment_has_a_time_limit() -> None:
    limits = {}
    for one in automations(None):
        related = one["trigger"].get("match_related", {})
        if related.get("prefect.resource.role") == "tag":
            limits[related["prefect.resource.id"].removeprefix("prefect.tag.")] = one["trigger"]["within"] / 3600
    assert limits == {"limit:1h": 1, "limit:6h": 6, "limit:24h": 24}
    for one in declared()["deployments"]:
        assert sum(tag in limits for tag in one["tags"]) == 1, one["entrypoint"]


def test_invalid_deployments_are_reported_together() -> None:
    config = declared()
    assert not problems(config)
    wrong = config["deployments"][3]
    wrong["entrypoint"], wrong["tags"] = "flows/shrink.py:shrunk", ["stage", "limit:soon"]
    wrong["schedules"] = [{"cron": "every night"}, {"cron": "0 2 * * *", "timezone": "Mars/Olympus"}]
    found = problems(config)
    assert len(found) == 4
    for line, part in zip(found, ("does not exist", "'every night'", "Mars/Olympus", "limit:soon"), strict=True):
        assert line.startswith("deployments[3] (flows/shrink.py:shrunk): ")
        assert part in line


# -- make ------------------------------------------------------------------------------------------
def test_targets_run_in_a_folder_with_a_space(tmp_path: Path) -> None:
    home = tmp_path / "a b"
    programs = home / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, home)
    (home / ".venv" / ".ready").touch()
    subprocess.run(["git", "init", "-q"], cwd=home, check=True)
    for name in ("python", "lissnas", "pip-audit"):
        (programs / name).write_text('#!/bin/sh\necho "ran $0 $*"\n')
        (programs / name).chmod(0o755)
    for target in ("run", "shrink", "report", "ui", "up", "audit", "lint", "bench"):
        done = subprocess.run(["make", target], cwd=home, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"ran {programs}/" in done.stdout


def test_make_help_lists_every_target_by_audience() -> None:
    output = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    groups = [line for line in output.splitlines() if line and not line.startswith(" ")]
    assert groups == ["Everybody", "Researchers", "Platform engineers", "Developers"]
    declared = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    listed = re.findall(r"^  make ([a-z-]+) ", output, re.MULTILINE)
    assert sorted(listed) == sorted(declared[1].replace("\\", "").split())


def test_stale_stages_are_named(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".ready").touch()
    run = partial(subprocess.run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    run(["git", "init", "-q"])
    run([sys.executable, "-m", "dvc", "init", "-q"])
    (tmp_path / "dvc.yaml").write_text("stages:\n  made: {cmd: cp given made, deps: [given], outs: [made]}\n")
    (tmp_path / "given").write_text("1")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    run([sys.executable, "-m", "dvc", "repro", "-q"])
    assert run(["make", "stale"], env={**os.environ, "PATH": path}).returncode == 0
    (tmp_path / "given").write_text("2")
    done = run(["make", "stale"], env={**os.environ, "PATH": path})
    assert done.returncode == 2
    assert "dvc.lock is stale:\n  made\n" in done.stderr
