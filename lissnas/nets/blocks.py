"""The blocks that networks and supernets are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lissnas.core.errors import UserError

Norm: TypeAlias = Callable[[int], nn.Module]
"""Makes the norm of so many channels."""
Activation: TypeAlias = Callable[[], nn.Module]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also takes fewer channels than it has, and then uses its leading ones.

    With `ghost` above 0, parts of so many images are normalised by their own statistics while training
    (Hoffer et al., 2017).
    """

    ghost: int = 0

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, `(n, c, height, width)`, normalised by channel."""
        if self.training and 0 < self.ghost < len(x):
            return torch.cat([self._normalised(part) for part in x.split(self.ghost)])
        return self._normalised(x)

    def _normalised(self, x: Tensor) -> Tensor:
        c = x.shape[1]
        if c == self.num_features:
            return super().forward(x)
        factor = self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:  # a plain average over all batches, as recalibration takes it
                factor = 1.0 / float(self.num_batches_tracked)
        # Views, so that the running statistics of the leading channels are updated in place.
        parts = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if p is None else p[:c] for p in parts)
        return F.batch_norm(x, mean, var, weight, bias, self.training or mean is None, factor or 0.0, self.eps)


def relu() -> nn.Module:
    """Return a ReLU that overwrites its input, a norm's output that nothing else reads."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """Return a ReLU6 that overwrites its input."""
    return nn.ReLU6(inplace=True)


def convolve(
    inputs: int,
    outputs: int,
    kernel: int,
    norm: Norm,
    stride: int = 1,
    groups: int = 1,
    act: Activation | None = None,
) -> list[nn.Module]:
    """Return a padded convolution without bias, its norm and, if given, an activation."""
    kind = DepthwiseConvolution if kernel > 1 and inputs == outputs == groups else nn.Conv2d
    convolution = kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, norm(outputs), *([act()] if act else [])]


class DepthwiseConvolution(nn.Conv2d):
    """A padded depthwise convolution without bias, quick on small maps.

    Where the kernel is larger than the map, the convolution is one matrix a channel: on a CPU that takes a half to
    a twentieth of the time of the library's depthwise convolution, which goes through the taps in the padding too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of `x`, `(n, c, height, width)`."""
        sides, reach = x.shape[2:], self.kernel_size[0]
        if x.device.type != "cpu" or reach <= max(sides):
            return super().forward(x)
        (rows, columns), stride = (self._taps(side) for side in sides), self.stride[0]
        out = [(side - 1) // stride + 1 for side in sides]
        row, column = rows[:, None, :, None], columns[None, :, None, :]  # (height, width, out height, out width)
        within = (row >= 0) & (row < reach) & (column >= 0) & (column < reach)
        taps = torch.where(within, row * reach + column, reach * reach).reshape(-1)
        weight = F.pad(self.weight.flatten(1), (0, 1))  # the last tap, 0, leads nowhere
        matrices = weight[:, taps].view(len(weight), -1, out[0] * out[1])
        y = torch.bmm(x.flatten(2).transpose(0, 1).contiguous(), matrices)
        if y.requires_grad:
            y.register_hook(Tensor.contiguous)  # or the library goes matrix by matrix; as above
        return y.transpose(0, 1).reshape(*x.shape[:2], *out)

    def _taps(self, side: int) -> Tensor:
        """Return which tap would lead from a position of the input, the rows, to one of the output."""
        stride, padding = self.stride[0], self.kernel_size[0] // 2
        return torch.arange(side)[:, None] - torch.arange(0, side, stride)[None, :] + padding


class MobileBlock(nn.Module):
    """MobileNetV2's block: 1x1 expansion, depthwise convolution, 1x1 projection, a shortcut where shapes allow."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, kernel: int, expansion: int, norm: Norm, act: Activation
    ) -> None:
        super().__init__()
        middle = inputs * expansion
        expand = convolve(inputs, middle, 1, norm, act=act) if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            *convolve(middle, middle, kernel, norm, stride, groups=middle, act=act),
            *convolve(middle, outputs, 1, norm),
        )
        self.shortcut = stride == 1 and inputs == outputs and expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.body(x)
        return x + y if self.shortcut else y


class ShuffleBlock(nn.Module):
    """ShuffleNetV2's block; with a stride of 1 every second channel passes, with 2 both branches see all."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.stride = stride
        entering, middle = (inputs // 2 if stride == 1 else inputs), outputs // 2
        if outputs <= entering:
            raise UserError(f"a shuffle block can't lead {inputs} channels to {outputs}: choose a larger width")
        self.main = nn.Sequential(*self.main_branch(entering, middle, outputs - entering, stride, kernel, norm))
        if stride > 1:
            self.side = nn.Sequential(
                *convolve(entering, entering, kernel, norm, stride, groups=entering),
                *convolve(entering, entering, 1, norm, act=relu),
            )

    def main_branch(
        self, inputs: int, middle: int, outputs: int, stride: int, kernel: int, norm: Norm
    ) -> list[nn.Module]:
        """Return 1x1, depthwise and 1x1 convolution."""
        return [
            *convolve(inputs, middle, 1, norm, act=relu),
            *convolve(middle, middle, kernel, norm, stride, groups=middle),
            *convolve(middle, outputs, 1, norm, act=relu),
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        if self.stride == 1:
            return torch.cat((x[:, 0::2], self.main(x[:, 1::2])), dim=1)
        return torch.cat((self.side(x), self.main(x)), dim=1)


class XceptionBlock(ShuffleBlock):
    """The shuffle block whose main branch is three depthwise convolutions, each followed by a 1x1."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__(inputs, outputs, stride, 3, norm)

    def main_branch(
        self, inputs: int, middle: int, outputs: int, stride: int, kernel: int, norm: Norm
    ) -> list[nn.Module]:
        """Return the three pairs, the first one with the stride."""
        return [
            *convolve(inputs, inputs, kernel, norm, stride, groups=inputs),
            *convolve(inputs, middle, 1, norm, act=relu),
            *convolve(middle, middle, kernel, norm, groups=middle),
            *convolve(middle, middle, 1, norm, act=relu),
            *convolve(middle, middle, kernel, norm, groups=middle),
            *convolve(middle, outputs, 1, norm, act=relu),
        ]


class LeadingConvolution(nn.Module):
    """Convolution, norm and ReLU of which a caller may use the leading channels only."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """Return `outputs` channels, made from as many input channels as `x` has."""
        c = self.convolution
        if (x.shape[1], outputs) == (c.in_channels, c.out_channels):
            y = c(x)
        else:
            y = F.conv2d(x, c.weight[:outputs, : x.shape[1]], padding=c.padding)
        return F.relu(self.norm(y), inplace=True)


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing pixels: two 1x1 convolutions, one a pixel further down and right."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            nn.Conv2d(inputs, n, 1, stride, bias=False) for n in (outputs // 2, outputs - outputs // 2)
        )
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return `outputs` channels at the reduced resolution."""
        x = F.relu(x)
        shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        y: Tensor = self.norm(torch.cat((self.parts[0](x), self.parts[1](shifted)), dim=1))
        return y


def start_like_mobilenet(network: nn.Module) -> None:
    """Draw convolutions from N(0, 2 / fan-out), the classifier from N(0, .01), as MobileNetV2 does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            _start_classifier(module)


def start_like_spos(network: nn.Module) -> None:
    """Draw the first convolution from N(0, .01), the others from N(0, 1 / their inputs); biases of norms .0001.

    As in the code of Single Path One-Shot, where the numbers are standard deviations.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.01 if name.startswith("stem") else 1.0 / module.weight.shape[1])
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.bias, 0.0001)
        elif isinstance(module, nn.Linear):
            _start_classifier(module)


def _start_classifier(module: nn.Linear) -> None:
    nn.init.normal_(module.weight, 0, 0.01)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def start_like_nasbench(network: nn.Module) -> None:
    """Draw convolutions from N(0, 1 / fan-in), the classifier uniformly after Glorot, as NAS-Bench-101 does."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
