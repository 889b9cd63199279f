"""K-shot NAS (Su et al., 2021): a dictionary of K supernets whose weights are mixed for each path.

The weights of a path are the sum over k of lambda_k(path) W_k, with lambda on the simplex, computed by a small
network from the path's one-hot code. Supernets and that network are trained alternately. No code is public;
sizes and the length of a turn are our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lissnas.nets.base import Supernet
from lissnas.spaces import Space

HIDDEN = 64
"""Hidden units of the simplex network."""
TURN = 10
"""Steps in a turn, which trains either the supernets or the simplex network."""
TURNS = 10
"""Turns in a cycle; the last one trains the simplex network."""


class Simplex(nn.Module):
    """A network that maps a path, as one-hot choices, to positive weights that sum to 1."""

    code: Tensor
    weights: Tensor

    def __init__(self, space: Space, k: int) -> None:
        super().__init__()
        self.space, self.k = space, k
        self.choices = max(space.slot_choices)
        inputs = len(space.slot_choices) * self.choices
        self.body = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, k))
        # Zero weights: all paths start with the plain average of the supernets.
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.weights = torch.full((k,), 1 / k)

    def __getstate__(self) -> dict[str, object]:
        """Return the state for a copy (by a moving average); tensors with a gradient history can't be copied."""
        return {**self.__dict__, "weights": self.weights.detach()}

    def forward(self, path: tuple[int, ...]) -> Tensor:
        """Set and return the weights of a path, `(k,)`."""
        slots = self.space.slots(np.array([path], np.int8))[0]
        code = np.zeros((len(slots), self.choices), np.float32)
        code[np.flatnonzero(slots >= 0), slots[slots >= 0]] = 1
        first = self.body[0]
        assert isinstance(first, nn.Linear)
        self.weights = self.body(torch.from_numpy(code.reshape(-1)).to(first.weight)).softmax(dim=0)
        return self.weights


class Mix(nn.Module):
    """Parametrization of a parameter as a weighted sum of K tensors; computed only for operations on the path."""

    def __init__(self, simplex: Simplex, others: list[Tensor]) -> None:
        super().__init__()
        self._simplex = (simplex,)  # in a tuple, so that torch does not register it as a submodule
        self._others: list[Tensor] | None = others

    def forward(self, *parts: Tensor) -> Tensor:
        """Return the mixed parameter."""
        if len(parts) == 1:
            return parts[0]
        weights = self._simplex[0].weights.to(parts[0])
        mixed = weights[0] * parts[0]
        for weight, part in zip(weights[1:], parts[1:], strict=True):
            mixed = mixed + weight * part
        return mixed

    def right_inverse(self, first: Tensor) -> tuple[Tensor, ...]:
        """Return the K initial values; works once."""
        others, self._others = self._others or [], None
        return (first, *others)


class KShotSupernet(Supernet):
    """A supernet with weights mixed from K supernets; used, evaluated and stored like a single one."""

    def __init__(self, make: Callable[[int], Supernet], space: Space, k: int) -> None:
        single = make(0)
        super().__init__(space, single.scale)
        self.simplex = Simplex(space, k)
        others = [dict(make(i).named_parameters()) for i in range(1, k)]
        for name, module in list(single.named_modules()):
            for own, _ in list(module.named_parameters(recurse=False)):
                path = f"{name}.{own}" if name else own
                mix = Mix(self.simplex, [o[path].detach().clone() for o in others])
                parametrize.register_parametrization(module, own, mix, unsafe=True)
        self.supernet = single

    def forward(self, x: Tensor, path: Iterable[int]) -> Tensor:
        """Return logits, `(n, classes)`."""
        row = self.checked(path)
        self.simplex(row)
        logits: Tensor = self.supernet(x, row)
        return logits

    def features(self, x: Tensor, path: tuple[int, ...]) -> Tensor:
        """Return the features for the classifier, `(n, channels)`."""
        self.simplex(path)
        return self.supernet.features(x, path)

    def select_trainable(self, step: int) -> None:
        """Enable gradients for either the supernets or the simplex network; with K = 1 always for the supernet."""
        trains_simplex = self.simplex.k > 1 and step // TURN % TURNS == TURNS - 1
        self.supernet.requires_grad_(not trains_simplex)
        self.simplex.requires_grad_(trains_simplex)
