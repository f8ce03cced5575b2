"""The recursion: order of visits, what the modulation is told, and one generic stack of blocks."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import csrecon
from csrecon.errors import UsageError
from csrecon.recursion import (
    RFMU,
    Limits,
    NoModulation,
    ProxBlock,
    RatioGain,
    Schedule,
    Unfolding,
    Visit,
    last,
)
from tests.checks import check_reconstructor
from tests.conftest import scene

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
ORDERS = st.sampled_from(["layers", "stack"])


def test_order_of_visits():
    assert list(Schedule((1, 2, 3)).path()) == [0, 1, 1, 2, 2, 2]
    assert list(Schedule((1, 2, 3), "stack").path()) == [0, 1, 2, 1, 2, 2]


@given(COUNTS, ORDERS)
def test_every_layer_is_visited_as_often_as_it_counts(counts, order):
    path = list(Schedule(counts, order).path())
    assert [path.count(layer) for layer in range(len(counts))] == list(counts)


@given(COUNTS, ORDERS, st.integers(1, 5))
def test_a_trained_schedule_is_told_as_it_is(counts, order, extra):
    for visit in Schedule(counts, order).visits(max(counts) + extra - 1):
        assert (visit.told_index, visit.told_total) == (visit.index, visit.total)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))
def test_beyond_the_training_each_layer_hears_its_own_trained_values(layers, trained, extra):
    ipl = trained + extra
    visits = Schedule((ipl,) * layers).visits(trained)
    for position, visit in enumerate(visits):
        layer, iteration = position // ipl, position % ipl + 1
        assert visit.layer == layer
        assert visit.told_total == layers * trained
        assert visit.told_index == layer * trained + min(iteration, trained)


@given(COUNTS, ORDERS, st.integers(1, 5))
def test_told_values_are_those_of_a_trained_schedule(counts, order, trained):
    clamped = Schedule(tuple(min(c, trained) for c in counts), order)
    known = {(v.layer, v.told_index, v.told_total) for v in clamped.visits(trained)}
    for visit in Schedule(counts, order).visits(trained):
        assert (visit.layer, visit.told_index, visit.told_total) in known


def test_counts():
    schedule = Schedule((4, 4, 4, 4, 4))
    assert schedule.with_ipl(6).counts == (6,) * 5
    assert schedule.with_ipl([4, 4, 4, 6, 6]).counts == (4, 4, 4, 6, 6)
    assert str(schedule) == "4"
    assert str(schedule.with_ipl([4, 4, 4, 6, 6])) == "4,4,4,6,6"
    for wrong in (0, -1, [4, 4], [4, 4, 4, 4, 0]):
        with pytest.raises(UsageError):
            schedule.with_ipl(wrong)


def test_rfmu_hears_level_total_and_index():
    unit = RFMU(8, max_steps=20)
    z = torch.tensor([2 * 0.1, 15 / 20, 7 / 20])
    visit = Visit(layer=1, iteration=2, index=9, total=17, told_index=7, told_total=15)
    torch.testing.assert_close(unit(0.1, 0.0, visit), unit.units[0](z)[None])
    pair = RFMU(8, max_steps=20, sites=2, level_scale=None)
    assert pair(0.1, 0.0, visit).shape == (2, 8)
    torch.testing.assert_close(pair(0.1, 0.0, visit), pair(0.5, 0.2, visit))
    torch.testing.assert_close(pair(0.1, 0.0, visit)[1], pair.units[1](z[1:]))
    listening = RFMU(8, max_steps=20, noise_scale=10)
    heard = listening.units[0](torch.cat([z, torch.tensor([0.3])]))
    torch.testing.assert_close(listening(0.1, 0.03, visit), heard[None])


def test_ratio_gain_hears_the_ratio_alone():
    gain = RatioGain(4)
    visits = list(Schedule((2, 2)).visits(2))
    torch.testing.assert_close(gain(0.3, 0.0, visits[0]), gain(0.3, 0.0, visits[3]))
    expected = 0.3 * gain.linear.weight[:, 0] + gain.linear.bias
    torch.testing.assert_close(gain(0.3, 0.0, visits[0])[0], expected)


class Shrink(ProxBlock):
    """A block as a user would write one: r scaled by its first gain."""

    reach = 0

    def prox(self, r, gain):
        return r * (0.9 + 0.01 * gain[0, 0]), r.abs().mean()


def toy(ipl=3, **options):
    return Unfolding([Shrink(), Shrink()], Schedule((ipl, ipl)), NoModulation(2), **options)


@pytest.fixture
def m():
    return csrecon.sample(scene()[..., 0], 0.2)


@pytest.mark.parametrize("blockwise", [False, True])
def test_any_block_becomes_recursive(m, blockwise):
    check_reconstructor(toy(blockwise=blockwise), m)


def test_the_recursion_is_the_formula(m):
    net = toy(ipl=2)
    x = m.operator.adjoint(m.y)
    r = x  # the data term has no gradient at the start
    for layer in (0, 0, 1, 1):
        x = r * 0.91
        r = x - net.blocks[layer].rho * m.operator.adjoint(m.operator(x) - m.y)
    torch.testing.assert_close(net(m), x)


def test_a_final_projection_agrees_with_the_measurement(m):
    whole = csrecon.sample(scene(33, 66)[..., 0], 0.2)
    x = toy(projection=True)(whole)
    torch.testing.assert_close(whole.operator(x), whole.y, atol=1e-4, rtol=0)
    plain = [step.image for step in toy().steps(m)]
    projected = [step.image for step in toy(projection=True).steps(m)]
    assert all(torch.equal(a, b) for a, b in zip(plain[:-1], projected[:-1], strict=True))
    assert not torch.equal(plain[-1], projected[-1])


def test_late_iterations_go_half_of_the_way(m):
    whole = [step.image for step in toy(ipl=3).steps(m)]
    halved = [step.image for step in toy(ipl=3, halved_after=1).steps(m)]
    torch.testing.assert_close(halved[0], whole[0])
    torch.testing.assert_close(halved[1], (whole[0] + whole[1]) / 2)
    never = [step.image for step in toy(ipl=3, halved_after=3).steps(m)]
    assert all(torch.equal(a, b) for a, b in zip(never, whole, strict=True))


class Lean(ProxBlock):
    """A block that looks to one side: every pixel becomes its left neighbour."""

    reach = 1

    def prox(self, r, gain):
        return torch.nn.functional.pad(r, (1, -1)), r.new_zeros(())


def test_every_iteration_of_a_layer_sees_another_orientation(m):
    shapes = []

    def watched(block, x, gradient, gain):
        shapes.append(tuple(x.shape[-2:]))
        return block(x, gradient, gain)

    def centres(turning):
        net = Unfolding([Lean(), Lean()], Schedule((9, 1)), NoModulation(2), turning=turning)
        for block in net.blocks:
            torch.nn.init.zeros_(block.rho)  # no data term: only the shifts are left
        return [step.image[..., 9:-9, 9:-9] for step in net.steps(m, apply=watched)]

    begin = m.operator.adjoint(m.y)[..., 9:-9, 9:-9]
    turned = centres(True)
    height, width = m.operator.image_shape
    assert shapes == [(height, width), (width, height)] * 4 + [(height, width)] * 2
    assert not torch.equal(turned[0], begin)
    # Four turns of a shift cancel, and so do four mirrored ones; the second layer begins anew.
    assert torch.equal(turned[3], begin)
    assert torch.equal(turned[7], begin)
    assert torch.equal(turned[8], turned[0])
    assert not any(torch.equal(image, begin) for image in centres(False))


def test_only_the_last_iterate_is_kept(m):
    import weakref

    alive = []

    def watched():
        for step in toy().steps(m):
            alive.append(weakref.ref(step.image))
            yield step

    final = last(watched())
    assert [image() is not None for image in alive] == [False] * 5 + [True]
    assert final.index == 6


def test_autocast_touches_the_convolutions_only(m):
    plain = csrecon.load("rcoast")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        again = csrecon.sample(scene()[..., 0], 0.2)
        image = plain(again)
    assert torch.equal(again.y, m.y)
    assert image.dtype == torch.float32


def test_steps_carry_what_training_needs(m):
    net = toy()
    penalties = [step.penalty for step in net.steps(m, Schedule((1, 2)))]
    assert len(penalties) == 3
    sum(penalties).backward()
    assert all(block.rho.grad is not None for block in net.blocks)


def test_limits(m, caplog):
    net = toy(limits=Limits(trained_ipl=3, max_ipl=5, ratios=(0.1, 0.5))).eval()
    net(m, Schedule((3, 3)))
    assert not caplog.text
    net(m, Schedule((5, 1)))
    assert "above 3 iterations" in caplog.text
    with pytest.raises(UsageError, match=r"1\.\.5"):
        net(m, Schedule((6, 1)))
    net(csrecon.sample(scene()[..., 0], 0.9))
    assert "outside the trained range" in caplog.text
    with pytest.raises(UsageError, match="2 layers"):
        net(m, Schedule((3, 3, 3)))
