"""The label of a network: its accuracy after training from scratch; in a process that can be ended.

python -m lissnas.nets.labels     (reads a line of JSON with the setup, then one for each architecture)
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from torch import nn

from lissnas import spaces
from lissnas.artifacts import Checkpoint
from lissnas.config import Params, label_images, label_width
from lissnas.nets import images
from lissnas.nets.anynetx import XBlock
from lissnas.nets.blocks import BatchNorm, MobileBlock
from lissnas.nets.build import network
from lissnas.nets.evaluation import accuracy
from lissnas.nets.training import compute_on, train
from lissnas.oracles.label_collection import describe_failure
from lissnas.oracles.training_worker import checkpoint_of


def train_label(
    params: Params,
    space_name: str,
    arch: str,
    seed: int,
    data: images.Data | None = None,
    checkpoint: Checkpoint | None = None,
) -> float:
    """Train a network from scratch by the recipe of `params.label`; return its validation accuracy in percent.

    A function of the parameters, the seed and the architecture, whichever others are trained: all have the
    same batches, and the same first weights where they are built alike. `data` are the images of the
    parameters, where they are loaded already.
    """
    settings = params.label
    recipe, device = params.recipes[settings.recipe], compute_on(params.torch)
    data = images.load(label_images(params), recipe) if data is None else data
    row, width = spaces.get(space_name).parse([arch])[0], label_width(params, space_name)
    model = network(space_name, row, width=width, stem_stride=settings.stem_stride, classes=data.classes, seed=seed)
    begin_as_shortcuts(model)
    train(model, data, recipe, seed, None, checkpoint, device=device)
    validation = data.batches("validation", recipe.batch_size)
    return accuracy(model, ((x.to(device), y.to(device)) for x, y in validation))


def begin_as_shortcuts(model: nn.Module) -> None:
    """Set the last norm of every residual branch to zero, so that the blocks pass on what they get (1706.02677, 5.1).

    Deep networks that are trained for a few hundred steps learn much more that way.
    """
    for block in model.modules():
        if isinstance(block, XBlock) or (isinstance(block, MobileBlock) and block.shortcut):
            last = block.body[-1]
            assert isinstance(last, BatchNorm)
            nn.init.zeros_(last.weight)


def serve() -> None:
    """Label what the standard input asks for, a line each, until it ends; answer on the standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints here must not get between the answers

    def answer(**record: Any) -> None:
        print(json.dumps(record), file=answers, flush=True)

    try:
        setup = json.loads(sys.stdin.readline())
        params = Params.model_validate(setup["params"])
        data = images.load(label_images(params), params.recipes[params.label.recipe])
        answer(ready=True)
    except Exception as failure:
        answer(error=describe_failure(failure))
        return
    for line in sys.stdin:
        try:
            arch = json.loads(line)
            checkpoint = checkpoint_of(setup, arch)
            answer(value=train_label(params, setup["space"], arch, setup["seed"], data, checkpoint))
        except Exception as failure:
            answer(error=describe_failure(failure))


if __name__ == "__main__":
    serve()
