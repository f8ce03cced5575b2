"""No bundled network turns rounding into gray levels.

The contract: a relative change of y of 1e-6 changes no pixel by more than 1e-4, in float32, tiled
or not, at low and high ratios and at the largest IPL. A threshold below zero breaks it: soft
thresholding then jumps at 0.
"""

from dataclasses import replace

import pytest
import torch

import csrecon
from csrecon.reconstructors.nets.ista_net_plus import IstaNetPlusBlock
from csrecon.runtime import execution
from csrecon.zoo import cards
from tests.conftest import scene
from tests.test_golden import BUNDLED

CHANGE, BOUND = 1e-6, 1e-4


def changed(m):
    """The measurement, with a random change of y, and scaled: three planes that need no noise."""
    draw = torch.Generator().manual_seed(1)
    change = torch.randn(m.y.shape, generator=draw)
    change *= CHANGE * m.y.norm() / change.norm()
    return replace(m, y=torch.cat([m.y, m.y + change, m.y * (1 + CHANGE)]))


def response(network, m, tile):
    """The largest change of a pixel."""
    setup = execution.choose("cpu", "fp32", tile)
    image = execution.final(execution.steps(network, changed(m), setup)).image
    return float((image[1:] - image[:1]).abs().max())


@pytest.mark.parametrize("tile", ["off", "64"])
@pytest.mark.parametrize("name", BUNDLED)
def test_a_change_that_rounding_could_make_changes_no_pixel(name, tile):
    network = csrecon.load(name)
    denoises = cards.card(name).task == "denoising"

    def measured(image, level):
        if denoises:
            return csrecon.sample(image, kind="identity", noise_sigma=level / 5)
        return csrecon.sample(image, level)

    for level in (0.1, 0.5):
        assert response(network, measured(scene(66, 90)[..., 0], level), tile) <= BOUND
    longest = network.at(network.trained.max_ipl)
    assert response(longest, measured(scene(40, 66)[..., 0], 0.3), tile) <= BOUND


def test_the_contract_finds_a_negative_threshold():
    network = csrecon.load("rista")
    for block in network.blocks:
        assert isinstance(block, IstaNetPlusBlock)
        assert block.nonnegative
        block.nonnegative = False
        with torch.no_grad():
            block.threshold.fill_(-0.02)
    assert response(network, csrecon.sample(scene(66, 90)[..., 0], 0.1), "off") > BOUND


@pytest.mark.parametrize("value", [-0.3, -0.01, 0.0, 0.01])
def test_a_nonnegative_threshold_makes_the_block_continuous(value):
    block = IstaNetPlusBlock(4, nonnegative=True).eval()
    with torch.no_grad():
        block.threshold.fill_(value)
    code = torch.linspace(-1, 1, 20001)
    soft = block.shrunk(code).detach()
    assert float((soft[1:] - soft[:-1]).abs().max()) <= 1.01e-4
    assert torch.equal(soft, -soft.flip(0)) or torch.allclose(soft, -soft.flip(0), atol=1e-6)
    assert bool((soft.abs() <= code.abs()).all())
