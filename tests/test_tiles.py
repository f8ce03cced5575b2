"""Tiles change nothing but the memory."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import csrecon.api
from csrecon.errors import ResourceError, UsageError
from csrecon.reconstructors.base import State
from csrecon.reconstructors.modulation import NoModulation, RatioGain
from csrecon.reconstructors.nets import BLOCKS
from csrecon.reconstructors.nets.ista_net_plus import IstaNetPlusBlock
from csrecon.reconstructors.unfolding import Recursion, Unfolding
from csrecon.runtime import execution, tiles
from csrecon.runtime.tiles import Tiles
from csrecon.sensing import operators
from csrecon.sensing.operators import block as blocks
from csrecon.zoo import cards
from tests.checks import check_tiled
from tests.conftest import scene

NETWORKS = ["rcoast", "coast", "rista", "istanet-plus"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(130, 97), (64, 200), (33, 33), (1, 5000)])
def test_tiled_equals_untiled(name, size):
    torch.manual_seed(0)
    net = cards.card(name).build().eval()
    m = csrecon.sample(scene(*size)[..., 0], 0.2)
    with torch.inference_mode():
        whole = [step.image for step in net.at(1).steps(m)]
        tiled = [step.image for step in net.at(1).applied(Tiles(64)).steps(m)]
    assert len(tiled) == len(net.blocks)
    for a, b in zip(whole, tiled, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


@pytest.mark.parametrize("size", [(130, 97), (131, 97)])
@pytest.mark.parametrize("name", BLOCKS)
def test_tiled_equals_untiled_in_every_orientation(name, size):
    torch.manual_seed(0)
    block = BLOCKS[name](32)
    gains = RatioGain(32, block.sites)
    net = Unfolding([block], Recursion((8,), rotate=True), gains).eval()
    m = csrecon.sample(scene(*size)[..., 0], 0.2)
    assert check_tiled(net, m) == 8


def test_single_blocks_are_worked_on_in_groups():
    torch.manual_seed(0)
    blocks = [IstaNetPlusBlock(32), IstaNetPlusBlock(32)]
    net = Unfolding(blocks, Recursion((1, 1), blockwise=True), NoModulation(32, 2)).eval()
    m = csrecon.sample(scene(120, 150)[..., 0], 0.2)
    sizes = []
    original = type(net.blocks[0]).prox

    def spy(self, state, gradient, gain):
        sizes.append(len(state.image))
        return original(self, state, gradient, gain)

    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(net.blocks[0]), "prox", spy)
        whole = list(net.steps(m))[-1].image
        tiled = list(net.applied(Tiles(66)).steps(m))[-1].image
    torch.testing.assert_close(whole, tiled, atol=2e-5, rtol=0)
    assert sizes[0] == 20
    assert max(sizes[2:]) == 4


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 9), st.sampled_from([1, 2, 4]))
def test_spans_cover_everything_once(cells, side, margin, stride):
    length, side = cells * stride, max(side, stride)
    covered = []
    for inner, outer, core in tiles._spans(length, side, margin, stride):
        places = list(range(length))[outer]
        assert places[core] == list(range(length))[inner]
        reach = -(-margin // stride) * stride
        assert outer.start == max(0, inner.start - reach)
        assert outer.stop == min(length, inner.stop + reach)
        assert all(
            edge % stride == 0 for part in (inner, outer) for edge in (part.start, part.stop)
        )
        covered += list(range(length))[inner]
    assert covered == list(range(length))
    sizes = [inner.stop - inner.start for inner, _, _ in tiles._spans(length, side, margin, stride)]
    assert max(sizes) <= side and max(sizes) - min(sizes) <= stride


def test_memory_that_ends_makes_smaller_tiles(caplog, monkeypatch):
    net = csrecon.load("rcoast")
    original = type(net.blocks[0]).prox

    def starved(self, state, gradient, gain):
        if state.image[0].numel() > 100 * 100:
            raise torch.OutOfMemoryError("planted")
        return original(self, state, gradient, gain)

    m = csrecon.sample(scene(150, 160)[..., 0], 0.2)
    expected = csrecon.reconstruct(m, net, 1, "cpu", tile="off")
    monkeypatch.setattr(type(net.blocks[0]), "prox", starved)
    image = csrecon.reconstruct(m, net, 1, "cpu", tile=512)
    assert abs(image - expected).max() < 2e-5
    assert "tiles of 77 pixels" in caplog.text
    monkeypatch.setattr(tiles, "SMALLEST", 160)
    with pytest.raises(ResourceError, match="out of memory"):
        csrecon.reconstruct(m, net, 1, "cpu", tile=512)


def test_memory_that_ends_halves_what_is_worked_on_at_once(monkeypatch):
    block = csrecon.load("rcoast").blocks[0]
    original, sizes = type(block).prox, []

    def starved(self, state, gradient, gain):
        sizes.append(state.image[:, 0].numel())
        if state.image[:, 0].numel() > 40_000:
            raise torch.OutOfMemoryError("planted")
        return original(self, state, gradient, gain)

    monkeypatch.setattr(type(block), "prox", starved)
    for shape, least in (((16, 1, 64, 64), 10_000), ((1, 1, 20, 4000), 1_000)):
        sizes.clear()
        x = torch.rand(shape)
        with torch.inference_mode():
            Tiles(4096)(block, State(x), x, torch.ones(1, 32))
        assert 40_000 >= max(sizes[1:]) > least


@pytest.mark.parametrize("band", [1, 40 * 33, 3 * 40 * 33])
def test_the_gradient_comes_in_bands(monkeypatch, band):
    m = csrecon.sample(scene(140, 40), 0.3)
    x = torch.rand(3, 1, 140, 40)
    expected = m.operator.adjoint(m.operator(x) - m.y)
    monkeypatch.setattr(blocks, "_BAND", band)
    calls = []
    original = operators.BlockOperator.forward
    monkeypatch.setattr(
        operators.BlockOperator,
        "forward",
        lambda self, part: calls.append(part.shape[-2]) or original(self, part),
    )
    torch.testing.assert_close(m.gradient(x), expected)
    assert len(calls) > 1 and sum(calls) == 140


def test_what_a_user_may_ask_for():
    assert execution.choose("cpu").tile_side() == 320
    assert execution.choose("cpu").tile_side(scale=2) == 640
    assert execution.Setup(torch.device("mps"), tile="auto").tile_side() is None
    assert execution.choose("cpu", tile="128").tile_side(scale=2) == 128
    assert execution.choose("cpu", tile="off").tile is None
    assert execution.choose("cpu", tile="128").tile == 128
    for tile in ("63", "-1", "big", "1e3"):
        with pytest.raises(UsageError, match="expected auto, off"):
            execution.choose("cpu", tile=tile)


def test_features_at_half_resolution_take_larger_tiles(monkeypatch):
    sides = []
    monkeypatch.setattr(Unfolding, "applied", lambda self, by: sides.append(by.side) or self)
    for name in ("rcoast", "frcoast"):
        csrecon.reconstruct(csrecon.sample(scene(33, 33)[..., 0], 0.2), name, 1, "cpu")
    assert sides == [320, 640]


def test_every_iterate_comes_also_with_tiles():
    m = csrecon.sample(scene(), 0.2)
    steps = csrecon.api.reconstruct_steps(m, ipl=5, setup=execution.choose("cpu", "fp32", 64))
    assert [step.index for step in itertools.islice(steps, 5)] == [1, 2, 3, 4, 5]
