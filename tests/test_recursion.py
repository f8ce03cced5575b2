"""The recursion: order of visits, what conditions the modulation, and one generic stack."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import csrecon
from csrecon.errors import UsageError
from csrecon.reconstructors.base import State, last
from csrecon.reconstructors.modulation import RFMU, NoModulation, RatioGain
from csrecon.reconstructors.schedule import Schedule, Visit
from csrecon.reconstructors.unfolding import ProxBlock, Recursion, Trained, Unfolding
from csrecon.sensing.measurement import Condition
from csrecon.sensing.operators import FourierOptions
from tests.checks import check_reconstructor
from tests.conftest import scene

COUNTS = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)
ORDERS = st.sampled_from(["layers", "looped"])


def test_order_of_visits():
    assert list(Schedule((1, 2, 3)).path()) == [0, 1, 1, 2, 2, 2]
    assert list(Schedule((1, 2, 3), "looped").path()) == [0, 1, 2, 1, 2, 2]


@given(COUNTS, ORDERS)
def test_every_layer_is_visited_as_often_as_it_counts(counts, order):
    path = list(Schedule(counts, order).path())
    assert [path.count(layer) for layer in range(len(counts))] == list(counts)


@given(COUNTS, ORDERS, st.integers(1, 5))
def test_a_trained_schedule_is_told_as_it_is(counts, order, extra):
    for visit in Schedule(counts, order).visits(max(counts) + extra - 1):
        assert (visit.r_cur, visit.r_tot) == (visit.index, visit.total)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))
def test_beyond_the_training_each_layer_hears_its_own_trained_values(layers, trained, extra):
    ipl = trained + extra
    visits = Schedule((ipl,) * layers).visits(trained)
    for position, visit in enumerate(visits):
        layer, iteration = position // ipl, position % ipl + 1
        assert visit.layer == layer
        assert visit.r_tot == layers * trained
        assert visit.r_cur == layer * trained + min(iteration, trained)


@given(COUNTS, ORDERS, st.integers(1, 5))
def test_told_values_are_those_of_a_trained_schedule(counts, order, trained):
    clamped = Schedule(tuple(min(c, trained) for c in counts), order)
    known = {(v.layer, v.r_cur, v.r_tot) for v in clamped.visits(trained)}
    for visit in Schedule(counts, order).visits(trained):
        assert (visit.layer, visit.r_cur, visit.r_tot) in known


def test_counts():
    schedule = Schedule((4, 4, 4, 4, 4))
    assert schedule.with_ipl(6).counts == (6,) * 5
    assert schedule.with_ipl([4, 4, 4, 6, 6]).counts == (4, 4, 4, 6, 6)
    assert str(schedule) == "4"
    assert str(schedule.with_ipl([4, 4, 4, 6, 6])) == "4,4,4,6,6"
    for wrong in (0, -1, [4, 4], [4, 4, 4, 4, 0]):
        with pytest.raises(UsageError):
            schedule.with_ipl(wrong)


def test_rfmu_hears_ratio_total_and_index():
    unit = RFMU(8, max_steps=20)
    z = torch.tensor([2 * 0.1, 15 / 20, 7 / 20])
    visit = Visit(layer=1, iteration=2, index=9, total=17, r_cur=7, r_tot=15)
    quiet = Condition(0.1)
    torch.testing.assert_close(unit(quiet, visit), unit.units[0](z)[None])
    pair = RFMU(8, max_steps=20, sites=2, level_scale=None)
    assert pair(quiet, visit).shape == (2, 8)
    torch.testing.assert_close(pair(quiet, visit), pair(Condition(0.5, 0.2), visit))
    torch.testing.assert_close(pair(quiet, visit)[1], pair.units[1](z[1:]))
    listening = RFMU(8, max_steps=20, noise_scale=10)
    for noise, heard in ((0.03, 0.3), (0.1, 1.0), (0.7, 1.0)):  # no more than in training
        expected = listening.units[0](torch.cat([z, torch.tensor([heard])]))
        torch.testing.assert_close(listening(Condition(0.1, noise), visit), expected[None])


def test_gains_begin_where_they_are_told_to():
    visit = next(Schedule((3,)).visits(3))
    torch.manual_seed(0)
    gains = RFMU(512, max_steps=20, initial=0.25)(Condition(0.1), visit).detach()
    assert float(gains.mean()) == pytest.approx(0.25, abs=0.05)
    assert float(gains.std()) > 0.01


def test_ratio_gain_hears_the_ratio_alone():
    gain = RatioGain(4)
    visits = list(Schedule((2, 2)).visits(2))
    torch.testing.assert_close(
        gain(Condition(0.3), visits[0]), gain(Condition(0.3, 0.1), visits[3])
    )
    expected = 0.3 * gain.linear.weight[:, 0] + gain.linear.bias
    torch.testing.assert_close(gain(Condition(0.3), visits[0])[0], expected)


class Shrink(ProxBlock):
    """A block as a user would write one: r scaled by its first gain."""

    reach = 0

    def prox(self, state, gradient, gain):
        r = self.descend(state, gradient)
        return State(r * (0.9 + 0.01 * gain[0, 0])), r.abs().mean()


def toy(ipl=3, trained=None, **options):
    recursion = Recursion((ipl, ipl), **options)
    return Unfolding([Shrink(), Shrink()], recursion, NoModulation(2), trained=trained)


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
    halved = [step.image for step in toy(ipl=3, relax_after=1).steps(m)]
    torch.testing.assert_close(halved[0], whole[0])
    torch.testing.assert_close(halved[1], (whole[0] + whole[1]) / 2)
    never = [step.image for step in toy(ipl=3, relax_after=3).steps(m)]
    assert all(torch.equal(a, b) for a, b in zip(never, whole, strict=True))


def test_late_iterates_are_averaged_and_the_recursion_goes_on_from_the_last(m):
    last = [step.image for step in toy(ipl=3).steps(m)]
    mean = [step.image for step in toy(ipl=3, average_after=2).steps(m)]
    assert all(torch.equal(a, b) for a, b in zip(mean[:3], last[:3], strict=True))
    for index in (4, 5, 6):
        torch.testing.assert_close(mean[index - 1], torch.stack(last[2:index]).mean(0))


class Lean(ProxBlock):
    """A block that looks to one side: every pixel becomes its left neighbour."""

    reach = 1

    def prox(self, state, gradient, gain):
        r = self.descend(state, gradient)
        return State(torch.nn.functional.pad(r, (1, -1))), r.new_zeros(())


def test_every_iteration_of_a_layer_sees_another_orientation(m):
    shapes = []

    def watched(block, state, gradient, gain):
        assert gradient.shape == state.image.shape
        shapes.append(tuple(state.image.shape[-2:]))
        return block(state, gradient, gain)

    def centres(rotate):
        net = Unfolding([Lean(), Lean()], Recursion((9, 1), rotate=rotate), NoModulation(2))
        for block in net.blocks:
            torch.nn.init.zeros_(block.rho)  # no data term: only the shifts are left
        return [step.image[..., 9:-9, 9:-9] for step in net.applied(watched).steps(m)]

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
    penalties = [step.penalty for step in net.at((1, 2)).steps(m)]
    assert len(penalties) == 3
    sum(penalties).backward()
    assert all(block.rho.grad is not None for block in net.blocks)


def test_limits(m, caplog):
    net = toy(trained=Trained(ipl=3, max_ipl=5, ratios=(0.1, 0.5))).eval()
    net.at(3)(m)
    assert not caplog.text
    net.at((5, 1))(m)
    assert "above 3 iterations per layer" in caplog.text
    with pytest.raises(UsageError, match=r"1\.\.5"):
        net.at((6, 1))(m)
    net(csrecon.sample(scene()[..., 0], 0.9))
    assert "outside the trained range" in caplog.text
    with pytest.raises(UsageError, match="2 layers"):
        net.at((3, 3, 3))


def test_other_counts_are_a_view_of_the_same_network(m):
    net = toy(ipl=3)
    once = net.at(1)
    assert [len(list(n.steps(m))) for n in (net, once, once.at((2, 1)))] == [6, 2, 3]
    assert net.schedule.counts == (3, 3)
    assert once.recursion.schedule == (1, 1)
    with torch.no_grad():
        once.blocks[0].rho.fill_(0.125)
    assert float(net.blocks[0].rho) == 0.125
    whole = net.applied(lambda block, state, gradient, gain: (state, gradient.new_zeros(())))
    torch.testing.assert_close(whole(m), m.operator.adjoint(m.y))
    assert not torch.equal(net(m), whole(m))


def test_a_schedule_stands_for_a_recursion_with_nothing_else():
    net = Unfolding([Shrink(), Shrink()], Schedule((2, 3), "looped"), NoModulation(2))
    assert net.recursion == Recursion((2, 3), order="looped")
    assert net.trained == Trained(3, 3, (0.0, 1.0))
    with pytest.raises(UsageError, match="1 blocks for a schedule of 2"):
        Unfolding([Shrink()], Schedule((2, 3)), NoModulation(2))


def test_a_state_is_moved_and_relaxed_with_its_features():
    image, features = torch.rand(2, 1, 4, 6), torch.rand(2, 3, 2, 3)
    plain, full = State(image), State(image, features)
    assert plain.map(torch.neg).features is None
    torch.testing.assert_close(plain.map(torch.neg).image, -image)
    moved = full.map(lambda part: part.flip(-1))
    torch.testing.assert_close(moved.image, image.flip(-1))
    torch.testing.assert_close(moved.features, features.flip(-1))
    proposed = State(torch.ones_like(image), torch.ones_like(features))
    relaxed = full.relaxed(proposed)
    torch.testing.assert_close(relaxed.image, (image + 1) / 2)
    torch.testing.assert_close(relaxed.features, (features + 1) / 2)
    assert plain.relaxed(State(proposed.image)).features is None
    first = plain.relaxed(proposed)  # there is nothing to take the mean with yet
    torch.testing.assert_close(first.image, (image + 1) / 2)
    assert first.features is proposed.features


def test_a_network_for_mri_warns_of_block_sampling(caplog):
    image = scene(32, 40)[..., 0]
    coils = FourierOptions(coils=4)
    for m in (
        csrecon.sample(image, 0.3, kind="fourier"),
        csrecon.sample(image, 0.3, kind="fourier", fourier=coils),
        csrecon.sample(image, 0.3),
    ):
        assert not caplog.records
        csrecon.reconstruct(m, "mri-frcoast", 1, "cpu")
    assert "was trained on k-space" in caplog.text
