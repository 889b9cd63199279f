"""Write the reference page of error messages when the site is built, from the table that the tests run.

MkDocs loads this file as a hook (mkdocs.yml). The page is not committed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

MESSAGES = "reference/messages.md"
TABLE = Path(__file__).parents[1] / "tests" / "unit" / "cli" / "messages.yaml"


def on_files(files: Any, config: Any) -> Any:
    """Add the generated page to the site; a hook of MkDocs."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, MESSAGES, content=messages()))
    return files


def messages() -> str:
    """Return the page of error messages: for each case the input, the command and what it prints."""
    topics = YAML(typ="safe").load(TABLE)
    text = [
        "# Messages\n",
        "This page shows what lissnas prints when input is wrong. A test runs every case and compares the message.\n",
        "Each case starts from the two files of `lissnas init`, with the change shown. Exit code 2 means invalid "
        "input, and nothing was written. Exit code 1 means that something failed during the run; the same command "
        "resumes.\n",
    ]
    for topic in topics:
        text.append(f"## {topic['topic']}\n")
        for case in topic["cases"]:
            text.append(f"### {case['about']}\n")
            for name, (old, new) in case.get("change", {}).items():
                text.append(f"In `{name}`, `{old.strip()}` was changed to `{new.strip()}`.\n")
            for name, content in case.get("write", {}).items():
                body = "(an empty file)" if not content else content.rstrip()
                text.append(f"`{name}`:\n\n```text\n{body}\n```\n")
            text.append(f"```console\n$ lissnas {case['run']}\n{case['message'].rstrip()}\n```\n")
    return "\n".join(text)
