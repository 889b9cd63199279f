"""What is installed: named for those who have to know, and looked up among known vulnerabilities."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]


def recipe(target: str, program: str) -> list[str]:
    """The words of a target's command that begin with a program."""
    text = (ROOT / "Makefile").read_text()
    assert re.search(rf"^\.PHONY:.* {target}( |$)", text, re.MULTILINE)
    found = re.search(rf"^{target}: \$\(READY\) ## .+\n(?:\t.*\n)*?\t@?({program} [^;\n]*)", text, re.MULTILINE)
    assert found is not None
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (the extra `dev`)")
    return shlex.split(found[1])


def test_sbom(tmp_path: Path) -> None:
    command = recipe("sbom", "cyclonedx-py")
    assert command[-2:] == ["--output-file", "sbom.json"]
    file = tmp_path / "sbom.json"
    done = subprocess.run([*command[:-1], str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(file.read_bytes())
    assert said["bomFormat"] == "CycloneDX"
    assert said["metadata"]["component"]["name"] == "lissnas"
    named = {one["name"].lower(): one["version"] for one in said["components"]}
    for package in ("torch", "prefect", "mlflow", "dvc", "numpy", "xgboost-cpu"):
        assert named[package] == version(package)


def test_audit_asks_for_what_there_is() -> None:
    command = recipe("audit", "pip-audit")
    said = subprocess.run([command[0], "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    known = set(re.findall(r"(?<![\w-])--[a-z-]+", said))
    assert {word for word in command if word.startswith("--")} <= known
    assert "--fix" not in command


@pytest.mark.parametrize("name", ["sbom.json", ".audit"])
def test_what_they_write_is_not_in_git(name: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    subprocess.run(["git", "check-ignore", "--quiet", name], cwd=ROOT, check=True)


def test_every_package_that_is_asked_for_is_pinned_within_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines)}
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for need in map(Requirement, [*project["dependencies"], *extras]):
        if need.name != "lissnas" and (need.marker is None or need.marker.evaluate()):
            assert need.specifier.contains(pins[canonicalize_name(need.name)], prereleases=True), need
