"""Installed packages: the list of `make sbom`, the options of `make audit`, the pins of constraints.txt."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def test_sbom_lists_the_installed_packages(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / ".ready").exists():
        pytest.skip("the packages are not in .venv (`make setup`)")
    file = tmp_path / "sbom.json"
    done = subprocess.run(["make", "sbom", f"FILE={file}"], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    content = json.loads(file.read_bytes())
    assert content["bomFormat"] == "CycloneDX"
    assert content["metadata"]["component"]["name"] == "lissnas"
    listed = {one["name"].lower(): one["version"] for one in content["components"]}
    for package in ("torch", "prefect", "mlflow", "dvc", "numpy", "xgboost-cpu"):
        assert listed[package] == version(package)


def test_audit_uses_existing_options() -> None:
    text = (ROOT / "Makefile").read_text()
    found = re.search(r"^audit: \$\(READY\) ## .+\n(?:\t.*\n)*?\t@?(pip-audit [^;\n]*)", text, re.MULTILINE)
    assert found is not None
    if shutil.which("pip-audit") is None:
        pytest.skip("pip-audit is not installed (the extra `dev`)")
    command = shlex.split(found[1])
    output = subprocess.run([command[0], "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    known = set(re.findall(r"(?<![\w-])--[a-z-]+", output))
    assert {word for word in command if word.startswith("--")} <= known
    assert "--fix" not in command


def test_url_grammar_of_the_sbom_tool_is_not_installed() -> None:
    assert find_spec("rfc3987_syntax") is None, "it costs 3 s at startup; install its dependants in a separate venv"


@pytest.mark.parametrize("name", ["sbom.json", ".audit"])
def test_outputs_are_ignored_by_git(name: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=True)


def test_every_requirement_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for need in map(Requirement, [*project["dependencies"], *extras]):
        if need.name != "lissnas" and (need.marker is None or need.marker.evaluate()):
            assert need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True), need
