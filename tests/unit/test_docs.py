"""The documentation, without MkDocs: links, navigation, commands in the text, generated pages, the Python tutorial."""

from __future__ import annotations

import doctest
import io
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from ruamel.yaml import YAML
from typer.main import get_command
from typer.testing import CliRunner

import lissnas
from docs import messages_page, reference_pages, study_pages
from lissnas.cli.app import app
from lissnas.config import Params
from tests.pipeline.harness import lissnas_here
from tests.unit.test_layout import LAYERS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {
    messages_page.MESSAGES: messages_page.messages,
    reference_pages.COMMAND_LINE: reference_pages.command_line,
    reference_pages.PARAMETERS: reference_pages.parameters,
}
PYTHON_PAGES = ("index.md", "tutorial/python.md", "how_to/compare.md", "how_to/extend.md", "how_to/huge_spaces.md")
TOP = ("README.md", "CONTRIBUTING.md")
"""Pages at the root of the tree, whose links lead to files."""
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)
LINK = re.compile(r"(?<!`)!?\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
MAKE = re.compile(r"^make ([a-z-]+)", re.M)


@cache
def site() -> dict[str, str]:
    """Return the text of each page by path, including generated pages."""
    written = {str(path.relative_to(DOCS)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
    written |= {f"../{name}": (ROOT / name).read_text() for name in TOP}
    return {**written, **{path: make() for path, make in GENERATED.items()}, **study_pages.pages()}


PAGES = sorted([*(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")), *GENERATED, *study_pages.pages()])


def prose(text: str) -> str:
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Return the anchors that Python-Markdown creates for headings, duplicates with a number."""
    found: Counter[str] = Counter()
    names = set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.M):
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower())
        names.add(f"{slug}_{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


# -- links and navigation ----------------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_and_anchor_resolves(page: str) -> None:
    for target in LINK.findall(prose(site()[page])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        found = os.path.normpath(Path(page).parent / path) if path else page
        if found in site():
            assert not anchor or anchor in anchors(site()[found]), target
        else:
            table = study_pages.RESULTS / Path(found).name if found.startswith("results/") else DOCS / found
            assert table.is_file(), target


def navigation(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for one in entry.values() if isinstance(entry, dict) else entry:
            yield from navigation(one)


def test_every_page_is_in_the_navigation_once() -> None:
    config = YAML(typ="safe").load(ROOT / "mkdocs.yml")
    assert sorted(navigation(config["nav"])) == PAGES


@pytest.mark.parametrize("page", PAGES)
def test_page_starts_with_one_title_and_a_sentence(page: str) -> None:
    text = prose(site()[page])
    assert text.startswith("# ")
    assert len(re.findall(r"^# ", text, re.M)) == 1
    assert re.match(r"# .+\n\n[\w`].+?[.:](\s|$)", text, re.S)


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "params.imagenet.yaml"])
def test_other_files_name_pages_that_exist(path: str) -> None:
    for name in re.findall(r"docs/[\w/]+\.(?:md|png|svg)", (ROOT / path).read_text()):
        assert (ROOT / name).is_file() or name.removeprefix("docs/") in site(), name


def test_the_code_names_pages_that_exist() -> None:
    for path in [*ROOT.glob("lissnas/**/*.py"), *ROOT.glob("lissnas/**/*.yaml"), *ROOT.glob("studies/*.py")]:
        for name in re.findall(r"docs/[\w/]+\.(?:md|png)", path.read_text()):
            assert (ROOT / name).is_file(), f"{path}: {name}"


# -- commands in the text ------------------------------------------------------------------------------
COMMAND = re.compile(r"^(lissnas\b|(?:torchrun .*-m|python -m) flows\.)")


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of each `lissnas` and flow command in the code blocks of a page."""
    for _, kind, body in FENCE.findall(text):
        if kind == "sh":
            for line in body.replace("\\\n", " ").splitlines():
                if COMMAND.match(line):
                    yield shlex.split(line, comments=True)


@cache
def parsers() -> dict[str, Any]:
    return dict(reference_pages.commands())


@cache
def flow_parser(module: str) -> Any:
    """Return the parser of `python -m flows.X`."""
    given: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.common.main", given.append)
        runpy.run_module(module, run_name="__main__")
    flow = typer.Typer()
    flow.command()(given[0])
    return get_command(flow)


def parser_of(words: list[str]) -> Any:
    flow = next((word for word in words if word.startswith("flows.")), None)
    if flow is not None:
        del words[: words.index(flow)]
        return flow_parser(flow)
    return next((parsers()[name] for n in (3, 2) if (name := " ".join(words[:n])) in parsers()), None)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("page", [*PAGES, *(f"../{name}" for name in TOP)])
def test_commands_and_options_in_the_text_exist(page: str) -> None:
    for words in commands_in(site()[page]):
        parser = parser_of(words)
        assert parser is not None, words
        known = {option for parameter in parser.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, words


@pytest.mark.parametrize("page", [*PAGES, *(f"../{name}" for name in TOP)])
def test_make_targets_in_the_text_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for _, kind, body in FENCE.findall(site()[page]):
        if kind == "sh":
            assert set(MAKE.findall(body)) <= targets


# -- generated pages -------------------------------------------------------------------------------------
def test_command_line_page_lists_the_options_of_help() -> None:
    text = GENERATED[reference_pages.COMMAND_LINE]()
    sections = dict(re.findall(r"^#+ (lissnas[ \w-]*)\n(.*?)(?=^#+ lissnas|\Z)", text, re.M | re.S))
    assert set(sections) == {name for name, _ in reference_pages.commands()}
    for name, section in sections.items():
        shown = CliRunner().invoke(app, [*name.split()[1:], "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).stdout
        listed = set(re.findall(r"^│ [* ] +(--[a-z-]+)", shown, re.M)) | set(re.findall(r"^│ (--[a-z-]+)", shown, re.M))
        assert "--help" in listed
        assert set(re.findall(r"^\| `(--[a-z-]+)", section, re.M)) == listed - {"--help"}
        inner = shown.partition("─ Commands")[2]
        for word in re.findall(r"^│ ([a-z-]+)", inner, re.M):
            assert f"{name} {word}" in sections


def fields(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, about in model.model_fields.items():
        kind: Any = about.annotation
        inner = [kind, *getattr(kind, "__args__", ())]
        nested = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
        at = f"{path}{name}"
        if nested is None:
            yield at
        else:
            yield from fields(nested, f"{at}.{'NAME.' if at in reference_pages.MAPPINGS else ''}")


def test_parameters_page_has_every_parameter() -> None:
    text = GENERATED[reference_pages.PARAMETERS]()
    listed = re.findall(r"^\| `([\w.]+)` \|", text, re.M)
    assert sorted(name for name in listed if "." in name) == sorted(fields(Params))
    shown = dict(re.findall(r"^\| `([\w.]+)` \| (.+?) \|", text, re.M))
    assert shown["shrink.elite.max_edits"] == "integer ≥ 1, ≤ 4"
    assert shown["shrink.variant"] == "`elite`, `paper`"
    assert shown["shrink.labels"] == "integer ≥ 20 or `null`"


def test_every_study_has_a_page_with_its_finding() -> None:
    studies = {path.stem for path in study_pages.RESULTS.glob("*.md")}
    assert studies == set(study_pages.STUDIES)
    assert {path.stem for path in study_pages.RESULTS.glob("*.csv")} - set(study_pages.TABLES_ONLY) == studies
    for study in study_pages.STUDIES.values():
        assert study.picture is None or (DOCS / "pictures" / study.picture[0]).is_file()
    page = study_pages.page("races")
    assert "make study NAME=races" in page
    assert re.search(r"\| \d{4}-\d\d-\d\d \|", page)


def test_architecture_picture_shows_all_packages() -> None:
    text = re.findall(r"<text[^>]*>([a-z_.]+)</text>", (DOCS / "pictures" / "architecture.svg").read_text())
    drawn = re.sub(r"\. ", ".", " ".join(text)).split()
    assert set(drawn) == {package for layer in LAYERS for package in layer}
    page = site()["explanation/architecture.md"]
    assert all(f"`{package}`" in page for package in drawn)


# -- the snippets in Python --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "page", ["index.md", "tutorial/python.md", "how_to/compare.md", "how_to/extend.md", "how_to/huge_spaces.md"]
)
def test_python_blocks_of_a_page_print_the_shown_output(page: str, tmp_path: Path) -> None:
    """Run the blocks in one process and compare their output with the page; a block with a file name is a file."""
    mark, script = "----- next block -----", ""
    blocks = [(kind, body) for _, kind, body in FENCE.findall(site()[page])]
    for kind, body in blocks:
        if kind == "python" and (named := re.match(r"# (\w+\.py)\n", body)):
            (tmp_path / named[1]).write_text(body)
        elif kind == "python":
            script += f"{body}\nprint({mark!r})\n"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=env, timeout=300
    )
    assert done.returncode == 0, done.stderr
    shown = [body for kind, body in blocks if kind == "text"]
    for expected, actual in zip(shown, done.stdout.split(mark), strict=False):
        assert expected.split() == actual.split()


@pytest.mark.parametrize(
    ("page", "options", "passed"),
    [
        ("how_to/compare.md", ("-k", "free", "test_mine.py"), 12),
        ("how_to/extend.md", ("test_climb.py", "test_kernel_table.py"), 18),
    ],
)
def test_examples_of_the_guides_pass_their_conformance_suites(
    page: str, options: tuple[str, ...], passed: int, tmp_path: Path
) -> None:
    """Run the suite of a shrinker on one small space (the guide runs it on three), and those of the extensions."""
    for _, _, body in FENCE.findall(site()[page]):
        if named := re.match(r"# (\w+\.py)\n", body):
            (tmp_path / named[1]).write_text(body)
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=env, timeout=300)
    assert done.returncode == 0, done.stdout
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= passed


# -- the README and the docstrings ---------------------------------------------------------------------------
def test_results_of_the_readme_are_those_of_the_study() -> None:
    """Table and sentences are generated, so the README claims no more than the study found."""
    assert study_pages.readme_results() in (ROOT / "README.md").read_text()


def test_readme_is_short_and_its_quick_start_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README has at most 120 lines and 900 words; its commands and its Python run as they are."""
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 120
    assert len(text.split()) <= 900
    blocks = {kind: body for _, kind, body in FENCE.findall(text)}
    for words in commands_in(f"```sh\n{blocks['sh']}```"):
        done = lissnas_here(tmp_path, *words[1:])
        assert done.code == 0, done.err
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks["python"], "README.md", "exec"), {})
    assert (tmp_path / "shrunk_200" / "subspace.parquet").is_file()
    for target in LINK.findall(prose(text)):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", [name for name in lissnas.__all__ if name not in ("__version__", "space")])
def test_examples_in_the_docstrings_of_the_public_names(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every name of `import lissnas` has an example, and doctest gets what the example shows."""
    lissnas_here(tmp_path, "init", "my_space")
    monkeypatch.chdir(tmp_path)
    found = doctest.DocTestFinder(recurse=False).find(getattr(lissnas, name), name)
    assert [len(one.examples) > 1 for one in found] == [True]
    printed = io.StringIO()
    assert doctest.DocTestRunner().run(found[0], out=printed.write).failed == 0, printed.getvalue()
