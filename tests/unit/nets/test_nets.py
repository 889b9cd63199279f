"""Networks and supernets: equal logits, published sizes, subsets of operations, initialization."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra `torch`)")

from lissnas import nets, spaces  # noqa: E402
from lissnas.core.errors import InvalidArchitecture, UnknownName, UserError  # noqa: E402
from lissnas.nets.anynetx import XBlock  # noqa: E402
from lissnas.nets.blocks import BatchNorm, DepthwiseConvolution, MobileBlock  # noqa: E402
from lissnas.nets.labels import zero_init_residuals  # noqa: E402
from lissnas.nets.nasbench101 import plan, widths_of  # noqa: E402
from lissnas.spaces import Archs, Space  # noqa: E402
from tests.small_nets import SMALL, copy_weights, images  # noqa: E402

nn = torch.nn
SIDE = {"nas_bench_macro": 32, "nasbench101": 32, "transnas_micro": 256}
"""Image sides for which costs are counted, if not 224."""
N_COSTS = {"nas_bench_macro": 12, "transnas_micro": 6}
PUBLISHED = {"shufflenetv2": ("21012020202300003233", 3.5e6), "fairnas": ("2023500551311335354", 4.6e6)}
"""The released networks and their published parameters, without batch norms."""


@pytest.fixture(params=nets.names())
def space(request: pytest.FixtureRequest) -> Space:
    return spaces.get(request.param)


def sample(space: Space, n: int, seed: int = 0) -> Archs:
    return space.sample(n, np.random.default_rng(seed))


def logits(net: Any, *args: Any) -> Any:
    torch.manual_seed(0)  # dropout
    return net(*args)


def names_of(net: nets.Network) -> set[str]:
    return {name for name, _ in net.body.named_parameters()}


# -- shared weights ---------------------------------------------------------------------------------
def test_a_network_with_copied_weights_gives_the_logits_of_its_path(space: Space) -> None:
    supernet = nets.supernet(space.name, **SMALL)  # norms have weights, except in shufflenetv2
    for p in supernet.parameters():
        if p.dim() == 1:  # initial norms would hide mixed-up channels
            nn.init.normal_(p, 1.0, 0.2)
    x = images(8, 16)
    for i, arch in enumerate(sample(space, 3, seed=1)):
        supernet.train()
        for seed in (1, 2):
            supernet(images(8, 16, seed), arch)
        network = nets.network(space.name, arch, seed=i, **SMALL)
        copy_weights(supernet, network)
        for mode in (False, True, False):  # at last with the statistics of the training pass
            supernet.train(mode)
            network.train(mode)
            expected = logits(supernet, x, arch)
            assert expected.shape == (8, 10)
            torch.testing.assert_close(logits(network, x), expected, rtol=1e-5, atol=1e-5)


def test_copying_leaves_the_supernet_as_it_is(space: Space) -> None:
    supernet = nets.supernet(space.name, **SMALL)
    before = {k: v.clone() for k, v in supernet.state_dict().items()}
    network = nets.network(space.name, sample(space, 1)[0], seed=1, **SMALL)
    copy_weights(supernet, network)
    for p in network.parameters():
        p.data.add_(1.0)
    assert all(torch.equal(before[k], v) for k, v in supernet.state_dict().items())


def test_gradients_and_statistics_reach_only_the_path(space: Space) -> None:
    supernet = nets.supernet(space.name, affine=True, **SMALL).train()
    arch = sample(space, 1, seed=2)[0]
    own = nets.network(space.name, arch, **SMALL)
    before = {k: v.clone() for k, v in supernet.state_dict().items()}
    supernet(images(4, 16), arch).square().sum().backward()
    reached = {name for name, p in supernet.named_parameters() if p.grad is not None}
    # In TransNAS a path can have operations with unused output.
    assert reached <= names_of(own) if space.name == "transnas_micro" else reached == names_of(own)
    changed = {k for k, v in supernet.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert changed <= set(own.body.state_dict())


def test_operations_off_the_path_are_not_run(space: Space) -> None:
    supernet = nets.supernet(space.name, **SMALL)
    arch = sample(space, 1, seed=3)[0]
    own = dict(nets.network(space.name, arch, **SMALL).body.named_modules())
    ran: set[str] = set()
    for name, module in supernet.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.add(name))
    supernet(images(2, 16), arch)
    assert ran <= set(own)


# -- published sizes --------------------------------------------------------------------------------
def measured(network: nets.Network, side: int, head: bool) -> tuple[int, int]:
    """Return multiply-adds of convolutions and classifier (by hooks) and parameters, on the meta device."""
    flops = 0

    def count(module: Any, _: Any, out: Any) -> None:
        nonlocal flops
        flops += module.weight.numel() * out[0, 0].numel()  # every weight once for each output pixel

    classifier = network.body.classifier
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and (head or module is not classifier):
            module.register_forward_hook(count)
    network.eval()(torch.empty(1, 3, side, side, device="meta"))
    params = sum(p.numel() for p in network.parameters())
    return flops, params - (0 if head else sum(p.numel() for p in classifier.parameters()))


def test_costs_of_full_size_networks_equal_those_of_the_space(space: Space) -> None:
    rows = sample(space, N_COSTS.get(space.name, 4), seed=4)
    costs = space.costs(rows)
    for i, arch in enumerate(rows):
        with torch.device("meta"):
            network = nets.network(space.name, arch)
        # TransNAS counts the encoder without the head, which depends on the task.
        found = measured(network, SIDE.get(space.name, 224), head=space.name != "transnas_micro")
        assert found == (costs["flops"][i], costs["params"][i])


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameters_are_the_weights_without_norms(name: str) -> None:
    arch, published = PUBLISHED[name]
    with torch.device("meta"):
        network = nets.network(name, spaces.get(name).parse([arch])[0])
    weights = sum(m.weight.numel() for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))
    assert weights == pytest.approx(published, rel=0.01)


def test_nasbench101_has_the_published_minimum_and_maximum_of_parameters() -> None:
    space = spaces.get("nasbench101")
    rows = space.enumerate()
    params = space.costs(rows)["params"]
    for at, expected in ((params.argmin(), 227_274), (params.argmax(), 49_979_274)):
        with torch.device("meta"):
            network = nets.network("nasbench101", rows[at])
        assert sum(p.numel() for p in network.parameters()) == expected


# -- parts of a space -------------------------------------------------------------------------------
def test_only_operations_of_the_architectures_are_built(space: Space) -> None:
    rows = sample(space, 3, seed=5)
    supernet = nets.supernet(space.name, rows, affine=True, **SMALL)
    built = {name for name, _ in supernet.named_parameters()}
    assert built == set.union(*(names_of(nets.network(space.name, arch, **SMALL)) for arch in rows))
    for arch in rows:
        assert supernet(images(2, 16), arch).shape == (2, 10)
    everything = {name for name, _ in nets.supernet(space.name, affine=True, **SMALL).named_parameters()}
    assert built < everything


def test_a_path_that_was_not_built_is_named() -> None:
    supernet = nets.supernet("fairnas", spaces.get("fairnas").parse(["0" * 19]), **SMALL)
    with pytest.raises(UserError, match="layer 2 has no choice 4; built choices: 0"):
        supernet(images(2, 16), [0, 0, 4] + [0] * 16)
    with pytest.raises(UserError, match="expected 19 numbers for fairnas, found 3"):
        supernet(images(2, 16), [0, 0, 4])


def test_invalid_arguments_are_refused() -> None:
    macro = spaces.get("nas_bench_macro")
    with pytest.raises(UnknownName, match="transnas_macro"):
        nets.supernet("transnas_macro")
    with pytest.raises(UserError, match="empty set"):
        nets.supernet("nas_bench_macro", macro.enumerate()[:0])
    with pytest.raises(UserError, match="positive width"):
        nets.network("nas_bench_macro", [0] * 8, width=0)
    with pytest.raises(UserError, match="choose a larger width"):
        nets.supernet("shufflenetv2", width=0.1)
    with pytest.raises(UserError, match="stem_stride"):
        nets.supernet("transnas_micro", stem_stride=3)
    with pytest.raises(InvalidArchitecture, match="out of range"):
        nets.network("nas_bench_macro", [3] * 8)


# -- small images, seeds, starts --------------------------------------------------------------------
def test_small_images_train(space: Space) -> None:
    supernet = nets.supernet(space.name, **SMALL).train()
    for arch in sample(space, 2, seed=6):
        supernet.zero_grad()
        loss = nn.functional.cross_entropy(supernet(images(4, 16), arch), torch.tensor([0, 1, 2, 3]))
        loss.backward()
        grads = [p.grad for p in supernet.parameters() if p.grad is not None]
        assert torch.isfinite(loss)
        assert all(torch.isfinite(g).all() for g in grads)
        assert any(g.abs().max() > 0 for g in grads)


def test_weights_depend_only_on_the_seed(space: Space) -> None:
    state = torch.get_rng_state()
    a, b, c = (nets.supernet(space.name, seed=seed, **SMALL).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_shufflenetv2_is_initialized_as_in_spos() -> None:
    supernet = nets.supernet("shufflenetv2", spaces.get("shufflenetv2").parse(["0123" * 5]))
    assert not any(isinstance(m, nn.BatchNorm2d) and m.affine for m in supernet.modules())
    convolutions = [m for m in supernet.modules() if isinstance(m, nn.Conv2d)]
    assert float(convolutions[0].weight.detach().std()) == pytest.approx(0.01, rel=0.1)
    wide = [c for c in convolutions[1:] if c.weight.numel() > 10_000]
    assert wide
    for c in wide:
        assert float(c.weight.detach().std()) == pytest.approx(1 / c.weight.shape[1], rel=0.1)


@pytest.mark.parametrize("name", ["nas_bench_macro", "mobilenet", "fairnas", "anynetx"])
def test_residual_blocks_start_as_identities(name: str) -> None:
    space = spaces.get(name)
    net = nets.network(name, sample(space, 1)[0].tolist(), **SMALL)
    inner = [
        b
        for b in net.modules()
        if (isinstance(b, MobileBlock) and b.shortcut)
        or (isinstance(b, XBlock) and isinstance(b.shortcut, nn.Identity))
    ]
    last: list[Any] = [[*block.get_submodule("body").children()][-1] for block in inner]
    assert inner
    zero_init_residuals(net)
    for block, norm in zip(inner, last, strict=True):
        channels = norm.num_features
        x = images(2, 4).mean(dim=1, keepdim=True).abs().expand(-1, channels, -1, -1)
        assert torch.equal(block(x), x)
    logits(net, images(4, 32)).sum().backward()
    assert all(norm.weight.grad.abs().sum() > 0 for norm in last)  # and can be trained


# -- leading channels -------------------------------------------------------------------------------
@pytest.mark.parametrize("kernel", [3, 5, 7, 9])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (2, 5), (3, 3), (4, 2), (6, 3)])
def test_depthwise_convolution_on_small_maps_equals_torch(kernel: int, stride: int, height: int, width: int) -> None:
    convolution = DepthwiseConvolution(6, 6, kernel, stride, kernel // 2, groups=6, bias=False)
    x = torch.randn(4, 6, height, width, requires_grad=True)
    found = convolution(x)
    expected = nn.functional.conv2d(x, convolution.weight, None, stride, kernel // 2, groups=6)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    for a, b in zip(
        *(torch.autograd.grad((y * weights).sum(), [x, convolution.weight]) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_batch_norm_of_leading_channels() -> None:
    wide, narrow = BatchNorm(8), nn.BatchNorm2d(5)
    for momentum in (0.1, None):
        wide.momentum = narrow.momentum = momentum
        wide.reset_running_stats()
        narrow.reset_running_stats()
        for seed in range(3):
            x = torch.randn(4, 5, 3, 3, generator=torch.Generator().manual_seed(seed))
            torch.testing.assert_close(wide.train()(x), narrow.train()(x))
        torch.testing.assert_close(wide.eval()(x), narrow.eval()(x))
        mean, var, expected = (b.tolist() for b in (wide.running_mean, wide.running_var, narrow.running_mean))  # type: ignore[union-attr]
        assert mean == pytest.approx([*expected, 0, 0, 0])
        assert var[5:] == [1, 1, 1]


def test_nasbench101_shares_leading_channels() -> None:
    # Three vertices that feed the output share its 128 channels: 43, 43 and 42.
    (arch,) = spaces.get("nasbench101").parse(["1110001011-012"])
    vertices, _ = plan(tuple(arch.tolist()), 128)
    assert [v.width for v in vertices] == [43, 43, 42]
    one = widths_of(arch[None], 128)
    assert sorted(one.operations[one.operations > 0].tolist()) == [42, 43, 43]
    two = widths_of(np.concatenate([arch[None], sample(spaces.get("nasbench101"), 1)]), 128)
    assert set(two.operations.ravel().tolist()) == {0, 128}
