"""Security rules for the source: no code from files, no shell, no server on the network, no request without timeout."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(p for folder in ("lissnas", "flows", "infra") for p in (ROOT / folder).rglob("*.py"))
UNPICKLER = ("lissnas/benchmarks/official/restricted.py", "_Plain")
"""The only module that opens pickles, and its class, which allows only names of a table."""

PLUGINS = "lissnas/shrinkers/plugin.py"
"""The only file that imports a module whose name is computed."""
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "jsonpickle", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
NEVER = {
    **dict.fromkeys(
        ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"), "creates objects from YAML"
    ),
    **dict.fromkeys(("yaml.full_load", "yaml.full_load_all"), "creates objects from YAML"),
    **dict.fromkeys(("os.system", "os.popen", "asyncio.create_subprocess_shell"), "starts a shell"),
    **dict.fromkeys(("subprocess.getoutput", "subprocess.getstatusoutput"), "starts a shell"),
    "tempfile.mktemp": "names a file that another process can create first",
    "urllib.request.urlretrieve": "may wait forever",
    "requests.Session": "may wait forever",
    **dict.fromkeys(("torch.hub.load", "torch.package.PackageImporter"), "runs code from elsewhere"),
}
REQUIRED: dict[str, dict[str, object]] = {
    "torch.load": {"weights_only": True},
    "numpy.load": {"allow_pickle": False},
    "shutil.unpack_archive": {"filter": "data"},
}
"""Calls with a required option, and its only allowed value."""
TIMED = {
    "urllib.request.urlopen": 2,
    "socket.create_connection": 1,
    "http.client.HTTPConnection": 9,
    "http.client.HTTPSConnection": 9,
    **{f"requests.{verb}": 9 for verb in ("get", "post", "put", "patch", "delete", "head", "options", "request")},
    **{
        f"httpx.{verb}": 9 for verb in ("get", "post", "put", "patch", "delete", "head", "options", "request", "stream")
    },
    **{f"httpx.{client}": 9 for client in ("Client", "AsyncClient")},
}
"""Calls that require a timeout, and the index of its positional argument."""
LISTENS = {
    **{f"http.server.{name}": "" for name in ("HTTPServer", "ThreadingHTTPServer")},
    **{f"socketserver.{name}": "" for name in ("TCPServer", "ThreadingTCPServer", "UDPServer")},
    "xmlrpc.server.SimpleXMLRPCServer": "",
    "socket.create_server": "",
    "prometheus_client.start_http_server": "addr",
    "moto.server.ThreadedMotoServer": "ip_address",
    "wsgiref.simple_server.make_server": "host",
    "werkzeug.serving.make_server": "host",
    "werkzeug.serving.run_simple": "hostname",
    "aiohttp.web.run_app": "host",
    "uvicorn.run": "host",
}
"""Servers with the name of their host argument; empty if the first argument is a pair of host and port."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANYWHERE = re.compile(r"(?<![\d.])0\.0\.0\.0(?![\d.])")


@dataclass
class Checker:
    """Find violations of the rules in a module."""

    path: str
    tree: ast.Module
    names: dict[str, str] = field(default_factory=dict)
    """Full name of each imported name: `np` is numpy, `urlopen` is urllib.request.urlopen."""

    @classmethod
    def of(cls, text: str, path: str = "lissnas/some.py") -> Checker:
        made = cls(path, ast.parse(text))
        for node in ast.walk(made.tree):
            if isinstance(node, ast.Import):
                for one in node.names:
                    made.names[one.asname or one.name.partition(".")[0]] = (
                        one.name if one.asname else one.name.split(".")[0]
                    )
            if isinstance(node, ast.ImportFrom):
                made.names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        return made

    def full(self, node: ast.expr) -> str:
        """Return the full name of an expression; `()` represents a call, `?` any other expression."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            return f"{self.full(node.value)}.{node.attr}"
        return f"{self.full(node.func)}()" if isinstance(node, ast.Call) else "?"

    def problems(self) -> list[str]:
        """Return all violations as `path:line: what`."""
        return sorted({f"{self.path}:{line}: {what}" for check in CHECKS for line, what in check(self)})


Node = TypeVar("Node", bound=ast.AST)
Found = Iterator[tuple[int, str]]
CHECKS: list[Callable[[Checker], Found]] = []


def rule(check: Callable[[Checker], Found]) -> Callable[[Checker], Found]:
    CHECKS.append(check)
    return check


def each(checker: Checker, kind: type[Node]) -> Iterator[Node]:
    return (node for node in ast.walk(checker.tree) if isinstance(node, kind))


def calls(checker: Checker) -> Iterator[tuple[ast.Call, str, dict[str, ast.expr]]]:
    """Yield every call with the full name of the function and the keyword arguments."""
    for node in each(checker, ast.Call):
        yield node, checker.full(node.func), {one.arg: one.value for one in node.keywords if one.arg}


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is type(value) and node.value == value


@rule
def no_unpickling(checker: Checker) -> Found:
    path, name = UNPICKLER
    whole = [(node, one.name) for node in each(checker, ast.Import) for one in node.names]
    parts = [(node, node.module or "") for node in each(checker, ast.ImportFrom)]
    for node, module in [*whole, *parts]:
        allowed_here = checker.path == path and module == "pickle" and isinstance(node, ast.Import)
        if module.split(".")[0] in MODULES and not allowed_here:
            yield node.lineno, f"imports {module}"
    for used in each(checker, ast.Attribute):
        if used.attr in ("read_pickle", "to_pickle"):
            yield used.lineno, f"pickles by {used.attr}"
    if checker.path != path:
        return
    allowed: set[ast.expr] = set()
    for made in each(checker, ast.ClassDef):
        methods = {one.name for one in made.body if isinstance(one, ast.FunctionDef)}
        if made.name == name and {"find_class", "persistent_load"} <= methods:
            allowed |= set(made.bases)
    for used in each(checker, ast.Attribute):
        full = checker.full(used)
        if full.startswith("pickle.") and full != "pickle.UnpicklingError" and used not in allowed:
            yield used.lineno, f"{full} outside of {name}"


@rule
def no_evaluation_of_text(checker: Checker) -> Found:
    for name in each(checker, ast.Name):
        if checker.full(name).removeprefix("builtins.") in BUILTINS:
            yield name.lineno, f"uses {name.id}"
    for part in each(checker, ast.Attribute):
        if checker.full(part).startswith("builtins."):
            yield part.lineno, f"uses {checker.full(part)}"
    for call, called, _ in calls(checker):
        own_code = checker.path == PLUGINS  # the user names code of their own on the command line
        literal = bool(call.args) and isinstance(call.args[0], ast.Constant)
        if called == "importlib.import_module" and not literal and not own_code:
            yield call.lineno, "imports a module whose name is computed"


@rule
def no_violation_in_inline_programs(checker: Checker) -> Found:
    """Check the text of `python -c TEXT` like a module."""
    known = {
        target.id: node.value
        for node in checker.tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(checker.tree):
        if not isinstance(node, ast.List | ast.Tuple):
            continue
        for option, text in zip(node.elts, node.elts[1:], strict=False):
            if is_constant(option, "-c"):
                program = known.get(text.id, text) if isinstance(text, ast.Name) else text
                if isinstance(program, ast.Constant) and isinstance(program.value, str):
                    inner = Checker.of(program.value, checker.path)
                    yield from ((node.lineno, f"in python -c: {what}") for check in CHECKS for _, what in check(inner))
                else:
                    yield node.lineno, "python -c with a program that is not a literal"


@rule
def no_forbidden_call(checker: Checker) -> Found:
    for call, name, options in calls(checker):
        if name in NEVER:
            yield call.lineno, f"{name} {NEVER[name]}"
        if "shell" in options and not is_constant(options["shell"], False):
            yield call.lineno, "starts a shell"
        if name.endswith("yaml.YAML"):
            kind = options.get("typ") or (call.args[0] if call.args else None)
            if kind is not None and not any(is_constant(kind, good) for good in ("safe", "rt", "pure")):
                yield call.lineno, "a YAML reader that may create objects"


@rule
def no_missing_option(checker: Checker) -> Found:
    archives = "tarfile" in checker.names.values() or any(n.startswith("tarfile.") for n in checker.names.values())
    for call, name, options in calls(checker):
        required = REQUIRED.get(name, {})
        if archives and isinstance(call.func, ast.Attribute) and call.func.attr in ("extract", "extractall"):
            required = {"filter": "data"}
        for option, value in required.items():
            if not is_constant(options.get(option), value):
                yield call.lineno, f"{name} without {option}={value!r}"


@rule
def no_request_without_timeout(checker: Checker) -> Found:
    for call, name, options in calls(checker):
        if name in TIMED:
            at = TIMED[name]
            limit = options.get("timeout") or (call.args[at] if len(call.args) > at else None)
            if limit is None or is_constant(limit, None):
                yield call.lineno, f"{name} without a timeout"


@rule
def no_server_on_the_network(checker: Checker) -> Found:
    documents = {node.value for node in each(checker, ast.Expr)}
    for text in each(checker, ast.Constant):
        if isinstance(text.value, str) and text not in documents and ANYWHERE.search(text.value):
            yield text.lineno, "listens on all interfaces: 0.0.0.0"
    for call, name, options in calls(checker):
        bound = isinstance(call.func, ast.Attribute) and call.func.attr in ("bind", "start_server", "create_server")
        if name not in LISTENS and not bound:
            continue
        where: ast.expr | None = options.get(LISTENS.get(name, ""))
        if where is None and call.args:
            where = call.args[0]
        if isinstance(where, ast.Tuple):
            where = where.elts[0]
        elif not LISTENS.get(name):
            continue  # a Unix socket, or an address that was checked at its definition
        if not any(is_constant(where, host) for host in LOOPBACK) and not is_host(where):
            yield call.lineno, f"{name} does not listen on the loopback"


def is_host(node: ast.expr | None) -> bool:
    """Return whether an expression is `HOST`, which test_servers.py verifies to be the loopback."""
    return (
        isinstance(node, ast.Name | ast.Attribute) and (node.id if isinstance(node, ast.Name) else node.attr) == "HOST"
    )


# -- the source ------------------------------------------------------------------------------------
def test_every_file_is_checked() -> None:
    names = {str(p.relative_to(ROOT)) for p in FILES}
    assert {UNPICKLER[0], "lissnas/artifacts/folder.py", "flows/common.py", "infra/stack.py"} <= names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_source_has_no_violations(path: Path) -> None:
    assert Checker.of(path.read_text(), str(path.relative_to(ROOT))).problems() == []


# -- the checks ------------------------------------------------------------------------------------
BAD = {
    "import pickle": "imports pickle",
    "import pickle as p": "imports pickle",
    "from pickle import loads": "imports pickle",
    "def f():\n    import cloudpickle": "imports cloudpickle",
    "import joblib": "imports joblib",
    "import dill": "imports dill",
    "import shelve": "imports shelve",
    "import marshal": "imports marshal",
    "import cPickle": "imports cPickle",
    "import pandas as pd\npd.read_pickle('x')": "read_pickle",
    "eval('1')": "uses eval",
    "exec(text)": "uses exec",
    "list(map(eval, texts))": "uses eval",
    "compile('1', '', 'eval')": "uses compile",
    "__import__('os')": "uses __import__",
    "import builtins\nbuiltins.eval('1')": "uses builtins.eval",
    "from builtins import exec as run\nrun('1')": "uses run",
    "import importlib\nimportlib.import_module(name)": "computed",
    "import sys\nrun([sys.executable, '-c', 'import pickle'])": "in python -c: imports pickle",
    "TRY = 'eval(input())'\nrun(['python', '-c', TRY])": "in python -c: uses eval",
    "run(['python', '-c', f'print({x})'])": "not a literal",
    "import yaml\nyaml.load(text)": "creates objects from YAML",
    "from yaml import unsafe_load\nunsafe_load(text)": "creates objects from YAML",
    "from ruamel.yaml import YAML\nYAML(typ='unsafe')": "may create objects",
    "import ruamel.yaml\nruamel.yaml.YAML(typ=['unsafe', 'pytypes'])": "may create objects",
    "from ruamel.yaml import YAML\nYAML(typ=kind)": "may create objects",
    "import subprocess\nsubprocess.run('ls', shell=True)": "starts a shell",
    "import subprocess as s\ns.Popen('ls', shell=how)": "starts a shell",
    "from subprocess import getoutput\ngetoutput('ls')": "starts a shell",
    "import os\nos.system('ls')": "starts a shell",
    "from os import popen\npopen('ls')": "starts a shell",
    "import torch\ntorch.load('x')": "weights_only=True",
    "import torch\ntorch.load('x', weights_only=False)": "weights_only=True",
    "from torch import load\nload('x', weights_only=safe)": "weights_only=True",
    "import numpy as np\nnp.load('x')": "allow_pickle=False",
    "import numpy as np\nnp.load('x', allow_pickle=True)": "allow_pickle=False",
    "from numpy import load\nload('x')": "allow_pickle=False",
    "import tarfile\ntarfile.open('x').extractall('y')": "filter='data'",
    "import tarfile\nwith tarfile.open('x') as t: t.extract('y', filter='fully_trusted')": "filter='data'",
    "import shutil\nshutil.unpack_archive('x')": "filter='data'",
    "import tempfile\ntempfile.mktemp()": "another process can create first",
    "HOST = '0.0.0.0'": "0.0.0.0",
    "run(['serve', '--host=0.0.0.0:80'])": "0.0.0.0",
    "s.bind(('', 80))": "does not listen on the loopback",
    "s.bind(('::', 80))": "does not listen on the loopback",
    "s.bind((host, 80))": "does not listen on the loopback",
    "from http.server import HTTPServer\nHTTPServer(('', 80), H)": "does not listen on the loopback",
    "import socket\nsocket.create_server(('', 80))": "does not listen on the loopback",
    "from prometheus_client import start_http_server\nstart_http_server(80)": "does not listen on the loopback",
    "from moto.server import ThreadedMotoServer\nThreadedMotoServer(port=0)": "does not listen on the loopback",
    "from werkzeug.serving import make_server\nmake_server('', 0, app)": "does not listen on the loopback",
    "import uvicorn\nuvicorn.run(app, host=host)": "does not listen on the loopback",
    "import urllib.request\nurllib.request.urlopen('x')": "without a timeout",
    "from urllib.request import urlopen\nurlopen('x', None)": "without a timeout",
    "import urllib.request as r\nr.urlretrieve('x')": "wait forever",
    "import requests\nrequests.get('x')": "without a timeout",
    "import requests\nrequests.Session()": "wait forever",
    "import httpx\nhttpx.post('x', timeout=None)": "without a timeout",
    "from httpx import Client\nClient()": "without a timeout",
    "import socket\nsocket.create_connection(('x', 1))": "without a timeout",
    "import http.client\nhttp.client.HTTPSConnection('x')": "without a timeout",
}
GOOD = [
    "import json\njson.loads('1')",
    "import re\nre.compile('x')",
    "model.eval()",
    "import importlib\nimportlib.import_module('os')",
    "import sys\nrun([sys.executable, '-c', 'import sys; print(sys.path)'])",
    "import yaml\nyaml.safe_load(text)",
    "from ruamel.yaml import YAML\nYAML(typ='safe')\nYAML()",
    "import subprocess\nsubprocess.run(['ls'], shell=False)",
    "import torch\ntorch.load('x', weights_only=True)",
    "import numpy as np\nnp.load('x', allow_pickle=False)",
    "import tarfile\ntarfile.open('x').extractall('y', filter='data')",
    "import tarfile\ntarfile.open('x').extractfile(member)",
    "rows.str.extract('(a)')",
    "import tempfile\ntempfile.mkstemp()",
    "'''Not on 0.0.0.0, as others do.'''",
    "version = '10.0.0.0'",
    "s.bind(('127.0.0.1', 0))",
    "from infra.settings import HOST\ns.bind((HOST, 0))",
    "s.bind(str(path))",
    "from http.server import HTTPServer\nHTTPServer(('127.0.0.1', 0), H)",
    "from prometheus_client import start_http_server\nstart_http_server(80, addr='127.0.0.1')",
    "import urllib.request\nurllib.request.urlopen('x', timeout=5)\nurllib.request.urlopen('x', None, 5)",
    "import requests\nrequests.get('x', timeout=5)",
    "import httpx\nhttpx.Client(timeout=LIMIT)",
    "import socket\nsocket.create_connection(('x', 1), 3)",
]


@pytest.mark.parametrize("text", BAD)
def test_violation_is_found(text: str) -> None:
    found = Checker.of(text).problems()
    assert len(found) == 1, found
    assert BAD[text] in found[0]


@pytest.mark.parametrize("text", GOOD)
def test_allowed_code_has_no_violations(text: str) -> None:
    assert Checker.of(text).problems() == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("class _Plain(pickle", "class _Other(pickle", "pickle.Unpickler outside of _Plain"),
        ("def find_class", "def find_name", "pickle.Unpickler outside of _Plain"),
        ("_Plain(path, stream).load()", "pickle.load(stream)", "pickle.load outside of _Plain"),
        ("import pickle\n", "import pickle\nfrom pickle import loads\n", "imports pickle"),
        ("import pickle\n", "import pickle\nimport marshal\n", "imports marshal"),
    ],
)
def test_other_unpicklers_are_found(old: str, new: str, expected: str) -> None:
    path, text = UNPICKLER[0], (ROOT / UNPICKLER[0]).read_text()
    assert old in text
    assert expected in str(Checker.of(text.replace(old, new), path).problems())
    assert "imports pickle" in str(Checker.of(text, "lissnas/other.py").problems())
