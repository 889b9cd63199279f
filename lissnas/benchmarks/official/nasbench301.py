"""Reader of NAS-Bench-301's surrogate models: an XGBoost ensemble in a folder or zip, checked and copied.

The published models are pickles of `xgboost.Booster` (github.com/automl/nasbench301, gradient_boosting/
xgboost.py), whose loading would run code, in a binary format that XGBoost 3.1 dropped. They have to be
converted once, on a machine that trusts them, to XGBoost's JSON or UBJSON (docs/how_to/official_data.md),
which this module reads.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from lissnas.benchmarks.official.files import UnreadableFile, inside
from lissnas.benchmarks.official.published_model import load_model
from lissnas.benchmarks.official.restricted import BROKEN_ZIP, NotPlainData, load_member
from lissnas.core.errors import UserError, first_line
from lissnas.core.memory_limit import max_memory

MODEL = "surrogate_model"
PREFERRED = (f"{MODEL}.ubj", f"{MODEL}.json", f"{MODEL}.model")
"""File names of a member's model, in order of preference."""
CONFIGS = ("model_config.json", "data_config.json")
CONVERT = (
    "If you trust it, convert it once in a separate environment: pip install 'xgboost==1.7.6' 'numpy<2' "
    "'scipy<1.12', then in Python pickle.load(open('surrogate_model.model', 'rb')).save_model('surrogate_model.json') "
    "in each member's folder"
)


def read(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of an ensemble, models as UBJSON, and a description of it.

    Raises UnreadableFile for a model that XGBoost can't load, or that is a pickle.
    """
    members: dict[PurePosixPath, dict[str, bytes]] = {}
    for name, data in _files(path):
        members.setdefault(name.parent, {})[name.name] = data
    files: dict[str, bytes] = {}
    origins: list[str] = []
    features: set[int] = set()
    for folder, contents in sorted(members.items()):
        models = [m for m in PREFERRED if m in contents]
        if not models or not _is_xgboost(path, folder, contents):
            continue
        location, member = str(folder / models[0]), f"member_{len(origins)}"
        model, width = _checked(path, location, contents[models[0]])
        files[f"{member}/{MODEL}.ubj"] = model
        files |= {f"{member}/{config}": contents[config] for config in CONFIGS if config in contents}
        origins.append(location)
        features.add(width)
    if not origins:
        raise UnreadableFile(path, "the file", f"holds no XGBoost model: no {', '.join(PREFERRED)}")
    if len(features) > 1:
        raise UnreadableFile(path, "the models", f"read different numbers of features: {sorted(features)}")
    return files, {"models": len(origins), "features": features.pop(), "origins": origins}


def _files(path: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield names and contents of the models and configurations in a folder or zip."""
    wanted = {*PREFERRED, *CONFIGS}
    if path.is_dir():
        for file in inside(path):
            if file.name in wanted:
                yield PurePosixPath(file.relative_to(path).as_posix()), file.read_bytes()
        return
    if not zipfile.is_zipfile(path):
        raise UnreadableFile(path, "the file", "is neither a zip nor a folder of models")
    try:
        with zipfile.ZipFile(path) as archive:
            left = max_memory(path.stat().st_size)
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                name = PurePosixPath(info.filename)
                if name.name not in wanted or info.is_dir():
                    continue
                left -= info.file_size
                if left < 0:
                    raise UnreadableFile(path, info.filename, "unpacks to more than a zip of this size can hold")
                yield name, archive.read(info)
    except BROKEN_ZIP as error:
        raise UnreadableFile(path, "the zip", first_line(error)) from None


def _is_xgboost(path: Path, folder: PurePosixPath, contents: dict[str, bytes]) -> bool:
    """Return whether a member's configuration names XGBoost or is absent; other kinds are in the same archive."""
    if CONFIGS[0] not in contents:
        return True
    try:
        model = json.loads(contents[CONFIGS[0]])["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(path, str(folder / CONFIGS[0]), f"names no model ({type(error).__name__})") from None
    return bool(model == "xgb")


def _checked(path: Path, location: str, data: bytes) -> tuple[bytes, int]:
    """Return a model as UBJSON and its number of features."""
    if data.startswith(b"\x80"):
        try:
            load_member(location, data)
        except NotPlainData as error:
            reason = f"refuses to load: it names {error.named}, which is not plain data. {CONVERT}"
            raise UnreadableFile(path, location, reason) from None
        raise UnreadableFile(path, location, "is a pickle of plain data, not a model")
    if not data.lstrip().startswith(b"{"):
        reason = f"is not a model in JSON or UBJSON; XGBoost 3.1 and later read no binary models. {CONVERT}"
        raise UnreadableFile(path, location, reason)
    try:
        booster = load_model(data)
    except UserError as error:
        raise UnreadableFile(path, location, f"XGBoost can't load it ({error})") from None
    return bytes(booster.save_raw("ubj")), int(booster.num_features())
