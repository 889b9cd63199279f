"""The label of a network: its accuracy after training from scratch; in a process that can be ended.

python -m lissnas.nets.labels     (reads a line of JSON with the setup, then one for each architecture)
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from lissnas.artifacts import Checkpoint
from lissnas.config import Params, label_images, label_width
from lissnas.nets import images
from lissnas.nets.alone import train_alone
from lissnas.nets.evaluation import accuracy
from lissnas.nets.training import compute_on
from lissnas.oracles.label_collection import said
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
    model = train_alone(
        space_name,
        arch,
        data,
        recipe,
        width=label_width(params, space_name),
        stem_stride=settings.stem_stride,
        seed=seed,
        checkpoint=checkpoint,
        device=device,
        as_shortcuts=True,
    )
    validation = data.batches("validation", recipe.batch_size)
    return accuracy(model, ((x.to(device), y.to(device)) for x, y in validation))


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
        answer(error=said(failure))
        return
    for line in sys.stdin:
        try:
            arch = json.loads(line)
            checkpoint = checkpoint_of(setup, arch)
            answer(value=train_label(params, setup["space"], arch, setup["seed"], data, checkpoint))
        except Exception as failure:
            answer(error=said(failure))


if __name__ == "__main__":
    serve()
