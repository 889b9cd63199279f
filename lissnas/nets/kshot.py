"""K-shot NAS (Su et al., 2021): a dictionary of K supernets, mixed for each path by weights of its own.

The weights of a path are the sum over k of lambda_k(path) W_k, lambda on the simplex, from a small network
that reads the path's code. Supernets and that network are trained alternately. No code is public; sizes
and the length of a turn are our reading.
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
TURN = 10
"""Steps that train one of the two before the other one's turn; of ten turns one trains the simplex network."""
TURNS = 10


class Simplex(nn.Module):
    """From a path's code, one-hot choices, to weights that are positive and sum to 1."""

    code: Tensor
    weights: Tensor

    def __init__(self, space: Space, k: int) -> None:
        super().__init__()
        self.space, self.k = space, k
        self.choices = max(space.slot_choices)
        inputs = len(space.slot_choices) * self.choices
        self.body = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.ReLU(inplace=True), nn.Linear(HIDDEN, k))
        # All paths start from the plain average, so that the dictionary is a single supernet at first.
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.weights = torch.full((k,), 1 / k)

    def __getstate__(self) -> dict[str, object]:
        """Return what a copy needs; tensors of a gradient's history can't be copied (a moving average copies)."""
        return {**self.__dict__, "weights": self.weights.detach()}

    def forward(self, path: tuple[int, ...]) -> Tensor:
        """Set and return the weights `(k,)` of a path."""
        slots = self.space.slots(np.array([path], np.int8))[0]
        code = np.zeros((len(slots), self.choices), np.float32)
        code[np.flatnonzero(slots >= 0), slots[slots >= 0]] = 1
        first = self.body[0]
        assert isinstance(first, nn.Linear)
        self.weights = self.body(torch.from_numpy(code.reshape(-1)).to(first.weight)).softmax(dim=0)
        return self.weights


class Mix(nn.Module):
    """A parameter as the weighted sum of K of its kind; those of operations off the path are never made."""

    def __init__(self, simplex: Simplex, others: list[Tensor]) -> None:
        super().__init__()
        self._simplex = (simplex,)  # in a tuple, so that it isn't counted as a part of every module
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
        """Return the K starting values, once."""
        others, self._others = self._others or [], None
        return (first, *others)


class KShotSupernet(Supernet):
    """A supernet whose every weight is mixed from K; it is run, judged and stored like a single one."""

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
        """Return what the classifier sees, `(n, channels)`."""
        self.simplex(path)
        return self.supernet.features(x, path)

    def take_turn(self, step: int) -> None:
        """Let the supernets or the simplex network have gradients, whosever turn it is; of one supernet, it alone."""
        weighs = self.simplex.k > 1 and step // TURN % TURNS == TURNS - 1
        self.supernet.requires_grad_(not weighs)
        self.simplex.requires_grad_(weighs)
