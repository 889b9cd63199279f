"""Building blocks of networks and supernets, and weight initialization."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lissnas.core.errors import UserError

Norm: TypeAlias = Callable[[int], nn.Module]
"""Returns a norm for a number of channels."""
Activation: TypeAlias = Callable[[], nn.Module]


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that accepts fewer channels than it has; it then uses its leading channels.

    If `ghost` is above 0, training normalises each part of `ghost` images by its own statistics (ghost batch
    norm, Hoffer et al., 2017).
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
            if factor is None:  # plain average over all batches, as in recalibration
                factor = 1.0 / float(self.num_batches_tracked)
        # Views: the running statistics of the leading channels are updated in place.
        parts = (self.running_mean, self.running_var, self.weight, self.bias)
        mean, var, weight, bias = (None if p is None else p[:c] for p in parts)
        return F.batch_norm(x, mean, var, weight, bias, self.training or mean is None, factor or 0.0, self.eps)


def relu() -> nn.Module:
    """Return an in-place ReLU, for the output of a norm that nothing else reads."""
    return nn.ReLU(inplace=True)


def relu6() -> nn.Module:
    """Return an in-place ReLU6."""
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
    """Return a padded convolution without bias, its norm and an optional activation."""
    kind = DepthwiseConvolution if kernel > 1 and inputs == outputs == groups else nn.Conv2d
    convolution = kind(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, norm(outputs), *([act()] if act else [])]


class DepthwiseConvolution(nn.Conv2d):
    """A padded depthwise convolution without bias, fast on small feature maps.

    If the kernel is larger than the map, the convolution is a matrix product for each channel. On a CPU this takes 5 to
    50 % of the time of torch's depthwise convolution, which also computes the taps in the padding.
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
        weight = F.pad(self.weight.flatten(1), (0, 1))  # the last tap, 0, is for pairs out of reach
        matrices = weight[:, taps].view(len(weight), -1, out[0] * out[1])
        y = torch.bmm(x.flatten(2).transpose(0, 1).contiguous(), matrices)
        if y.requires_grad:
            y.register_hook(Tensor.contiguous)  # a non-contiguous gradient is multiplied matrix by matrix
        return y.transpose(0, 1).reshape(*x.shape[:2], *out)

    def _taps(self, side: int) -> Tensor:
        """Return the tap index, `(inputs, outputs)`, that connects each input position to each output position."""
        stride, padding = self.stride[0], self.kernel_size[0] // 2
        return torch.arange(side)[:, None] - torch.arange(0, side, stride)[None, :] + padding


class MobileBlock(nn.Module):
    """MobileNetV2's block: 1x1 expansion, depthwise convolution, 1x1 projection, a shortcut if shapes are equal."""

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
    """ShuffleNetV2's block: stride 1 passes every second channel through; stride 2 feeds all to both branches."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.stride = stride
        entering, middle = (inputs // 2 if stride == 1 else inputs), outputs // 2
        if outputs <= entering:
            raise UserError(f"a shuffle block can't map {inputs} to {outputs} channels; choose a larger width")
        self.main = nn.Sequential(*self.main_branch(entering, middle, outputs - entering, stride, kernel, norm))
        if stride > 1:
            self.side = nn.Sequential(
                *convolve(entering, entering, kernel, norm, stride, groups=entering),
                *convolve(entering, entering, 1, norm, act=relu),
            )

    def main_branch(
        self, inputs: int, middle: int, outputs: int, stride: int, kernel: int, norm: Norm
    ) -> list[nn.Module]:
        """Return the layers: 1x1, depthwise and 1x1 convolution."""
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
    """A shuffle block with three depthwise convolutions in the main branch, each followed by a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__(inputs, outputs, stride, 3, norm)

    def main_branch(
        self, inputs: int, middle: int, outputs: int, stride: int, kernel: int, norm: Norm
    ) -> list[nn.Module]:
        """Return the layers of the three pairs; the first has the stride."""
        return [
            *convolve(inputs, inputs, kernel, norm, stride, groups=inputs),
            *convolve(inputs, middle, 1, norm, act=relu),
            *convolve(middle, middle, kernel, norm, groups=middle),
            *convolve(middle, middle, 1, norm, act=relu),
            *convolve(middle, middle, kernel, norm, groups=middle),
            *convolve(middle, outputs, 1, norm, act=relu),
        ]


class LeadingConvolution(nn.Module):
    """Convolution, norm and ReLU that can use only their leading channels."""

    def __init__(self, inputs: int, outputs: int, kernel: int, norm: Norm) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.norm = norm(outputs)

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """Return the first `outputs` channels, computed from all channels of `x`."""
        c = self.convolution
        if (x.shape[1], outputs) == (c.in_channels, c.out_channels):
            y = c(x)
        else:
            y = F.conv2d(x, c.weight[:outputs, : x.shape[1]], padding=c.padding)
        return F.relu(self.norm(y), inplace=True)


class FactorizedReduce(nn.Module):
    """Halve the resolution without losing pixels: two 1x1 convolutions, one of them offset by one pixel."""

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


def init_like_mobilenet(network: nn.Module) -> None:
    """Initialize convolutions from N(0, 2 / fan-out), the classifier from N(0, .01), as in MobileNetV2."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            _init_classifier(module)


def init_like_spos(network: nn.Module) -> None:
    """Initialize the first convolution from N(0, .01), others from N(0, 1 / inputs), and biases of norms to .0001.

    As in the code of Single Path One-Shot; the numbers are standard deviations.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, 0.01 if name.startswith("stem") else 1.0 / module.weight.shape[1])
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.bias, 0.0001)
        elif isinstance(module, nn.Linear):
            _init_classifier(module)


def _init_classifier(module: nn.Linear) -> None:
    nn.init.normal_(module.weight, 0, 0.01)
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def init_like_nasbench(network: nn.Module) -> None:
    """Initialize convolutions from N(0, 1 / fan-in), the classifier by Glorot's uniform, as in NAS-Bench-101."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
        elif isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
