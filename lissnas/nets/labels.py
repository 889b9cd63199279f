"""Label networks by their accuracy after training from scratch, in a process that can be killed.

python -m lissnas.nets.labels     (reads the setup as a line of JSON, then a line for each architecture)
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
from lissnas.nets.probe import accuracy
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

    The result depends only on the parameters, the seed and the architecture: all networks see the same batches,
    and equal layers start with equal weights. `data` are the images of the parameters if already loaded.
    """
    settings = params.label
    recipe, device = params.recipes[settings.recipe], compute_on(params.torch)
    data = images.load(label_images(params), recipe) if data is None else data
    row, width = spaces.get(space_name).parse([arch])[0], label_width(params, space_name)
    model = network(space_name, row, width=width, stem_stride=settings.stem_stride, classes=data.classes, seed=seed)
    zero_init_residuals(model)
    train(model, data, recipe, seed, None, checkpoint, device=device)
    validation = data.batches("validation", recipe.batch_size)
    return accuracy(model, ((x.to(device), y.to(device)) for x, y in validation))


def zero_init_residuals(model: nn.Module) -> None:
    """Set the last norm of each residual branch to zero: blocks start as identities (arXiv 1706.02677, 5.1).

    Deep networks learn much more within a few hundred steps this way.
    """
    for block in model.modules():
        if isinstance(block, XBlock) or (isinstance(block, MobileBlock) and block.shortcut):
            last = block.body[-1]
            assert isinstance(last, BatchNorm)
            nn.init.zeros_(last.weight)


def serve() -> None:
    """Label the architectures on stdin, one line each, until it ends; write the answers to stdout."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output must not mix with the answers

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
