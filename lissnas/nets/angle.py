"""How far training turned the weights of a path: ABS' score (Hu et al., 2020), an oracle that needs no image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lissnas.core.errors import UserError
from lissnas.nets.base import Supernet
from lissnas.nets.blocks import LeadingConvolution
from lissnas.nets.kshot import KShotSupernet
from lissnas.spaces import Archs, FloatArray

SIDE = 32
"""Pixels of the image that shows which operations a path runs."""


class AngleOracle:
    """Gives `(n,)` angles in radians between a path's initial and trained weights, larger is better.

    A path's weights are those of all convolutions and of the classifier that it runs, as one vector; norms
    and biases don't count. In a cell an operation counts once, where the original concatenates every way
    from input to output, and pooling counts nothing. Raises UserError for two supernets that don't match.
    """

    def __init__(self, initial: Supernet, trained: Supernet) -> None:
        if isinstance(trained, KShotSupernet):
            raise UserError("the weights of a K-shot supernet depend on the path: it has no angle; train a single one")
        before, after = initial.state_dict(), trained.state_dict()
        if {n: v.shape for n, v in before.items()} != {n: v.shape for n, v in after.items()}:
            raise UserError("the initial and the trained supernet are not of the same operations and widths")
        self.supernet = trained
        self._run: dict[str, None] = {}
        self._products: dict[str, FloatArray] = {}
        for name, module in trained.named_modules():
            inner = module.convolution if isinstance(module, LeadingConvolution) else module
            if isinstance(inner, (nn.Conv2d, nn.Linear)):
                weight = f"{name}.convolution.weight" if inner is not module else f"{name}.weight"
                a, b = (state[weight].double().reshape(-1).cpu() for state in (before, after))
                self._products[weight] = np.array([float(a @ b), float(a @ a), float(b @ b)])
                module.register_forward_hook(self._noting(weight))

    def _noting(self, weight: str) -> Any:
        def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._run[weight] = None

        return note

    @torch.inference_mode()
    def __call__(self, archs: Archs) -> FloatArray:
        """Return the angles of architectures."""
        self.supernet.eval()
        device = next(self.supernet.parameters()).device
        image = torch.zeros(1, 3, SIDE, SIDE, device=device)
        out = np.empty(len(archs))
        for i, path in enumerate(archs):
            self._run.clear()
            self.supernet(image, path)
            dot, before, after = np.sum([self._products[weight] for weight in self._run], axis=0)
            out[i] = np.arccos(np.clip(dot / np.sqrt(before * after), -1, 1))
        return out
