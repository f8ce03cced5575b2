"""Layers whose weights belong to no pixel grid, and the networks of MRI that are made of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from csrecon.reconstructors.nets.disco import VIEW, DiscoConv, basis
from csrecon.reconstructors.nets.fno import SpectralConv
from csrecon.runtime import execution
from csrecon.training.tasks.mri import MaskCamera
from csrecon.zoo import cards
from tests.checks import check_reconstructor

SIDES = (192, 320)
SHARED = 32  # of every grid: points at whole multiples of 1/32
VARIANTS = ["mri-disco", "mri-fno"]


def smooth(side, shift=0.0, step=1):
    """A sum of waves of at most 5 cycles, (1, 2, side / step, side / step), at (step·i + shift)."""
    place = (torch.arange(0, side, step, dtype=torch.float64) + shift) / side
    made = []
    for seed in (0, 1):
        draw = torch.Generator().manual_seed(seed)
        waves = torch.zeros(len(place), len(place), dtype=torch.float64)
        for down in range(-5, 6):
            for across in range(6):
                phase = 2 * math.pi * (down * place[:, None] + across * place)
                a, b = torch.randn(2, generator=draw, dtype=torch.float64)
                waves += (a * phase.cos() + b * phase.sin()) / (1 + down**2 + across**2)
        made.append(waves)
    return torch.stack(made)[None].float()


def shared(values):
    """The values at the points that every grid has, without a margin."""
    step = values.shape[-1] // SHARED
    return values[..., ::step, ::step][..., 3:-3, 3:-3]


def change(layer, at):
    """The largest relative change of a layer's output from 256 points a side to another number."""
    with torch.no_grad():
        known = shared(layer(256))
        spread = (known - known.mean((-2, -1), keepdim=True)).std()
        return max(float((shared(layer(side)) - known).std() / spread) for side in at)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("slopes", [False, True], ids=["any", "slopes"])
def test_a_disco_convolution_of_a_smooth_function_is_that_of_every_resolution(stride, slopes):
    torch.manual_seed(0)
    layer = DiscoConv(2, 4, 5.0, stride)
    if slopes:
        layer.weight.data[:, :, [0, 1, 6]] = 0  # kernels of mean zero

    def at(side):
        if stride == 1:
            return layer(smooth(side, step=2), 2 * VIEW / side)
        return layer(smooth(side, -0.5), VIEW / side)

    assert change(at, SIDES) < 0.02


def test_an_ordinary_convolution_of_mean_zero_is_another_one_at_another_resolution():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 4, 3, padding=1)
    layer.weight.data -= layer.weight.data.mean((2, 3), keepdim=True)
    assert change(lambda side: layer(smooth(side)), SIDES) > 0.2


def test_a_spectral_convolution_of_a_smooth_function_is_that_of_every_resolution():
    torch.manual_seed(0)
    layer = SpectralConv(2, 6)
    assert change(lambda side: layer(smooth(side)), SIDES) < 1e-5


@pytest.mark.parametrize("pixel", [4 / 3, 8 / 5, 2.0, 8 / 3])
def test_disco_kernels_are_exact_on_constants_slopes_and_curvatures(pixel):
    """∫ hat(ρ/w - 1) is 2π w², so that of the first ring with its slope is π·7/6·w³."""
    known = basis(5.0, pixel, pixel**2, True).astype(np.float64)
    assert len(known) == 11
    side = known.shape[-1]
    assert side == 2 * math.floor(5 / pixel) + 1
    along = pixel * (np.arange(side) - side // 2)
    width = 5 / 3
    sums = known.sum((1, 2))
    np.testing.assert_allclose(sums[[0, 1, 6]], math.pi * width**2 / np.array([3, 0.5, 0.25]))
    np.testing.assert_allclose(sums[[2, 3, 7, 8]], 0, atol=1e-5)
    slope = (known[2] * along).sum()
    np.testing.assert_allclose(slope, math.pi * width**3 * 7 / 6, rtol=1e-6)
    across = along[:, None] * along
    curvature = (known[10] * 2 * across).sum(), (known[9] * (along**2 - along[:, None] ** 2)).sum()
    np.testing.assert_allclose(curvature[0], curvature[1], rtol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [(64, 48), (33, 35), (2, 5), (1, 1)])
def test_the_networks_keep_the_contract(name, size):
    torch.manual_seed(0)
    net = cards.card(name).build().eval().at(3)
    x = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(0))
    check_reconstructor(net, MaskCamera("random2d", 0.4, 5)(x, torch.Generator()))


@pytest.mark.parametrize("name", VARIANTS)
def test_the_networks_run_and_train_in_bf16_and_channels_last(name):
    torch.manual_seed(0)
    net = cards.card(name).build().at(2).to(memory_format=torch.channels_last)
    x = torch.rand(1, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    m = MaskCamera("random2d", 0.4, 5)(x, torch.Generator())
    with torch.autocast("cpu", torch.bfloat16):
        error = (net(m) - x).square().mean()
    error.backward()
    assert all(value.grad is not None for value in net.parameters())
    with torch.no_grad():
        fast = execution.image(net.eval(), m, execution.Setup(torch.device("cpu"), "bf16"))
        exact = execution.image(net, m, execution.Setup(torch.device("cpu")))
    assert (fast - exact).abs().max() < 0.05


@pytest.mark.parametrize("name", VARIANTS)
def test_a_block_of_a_smooth_image_is_that_of_every_resolution(name):
    torch.manual_seed(0)
    block = cards.card(name).build().blocks[0]
    gain = torch.rand(2, block.features)

    def at(side):
        """What the block adds to the gradient step, at the points i / side."""
        image, gradient = smooth(side).split(1, dim=1)
        state, _ = block.prox(block.begin(image), gradient, gain)
        return state.image - block.descend(block.begin(image), gradient)

    assert change(at, SIDES) < 0.02
