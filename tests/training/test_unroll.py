"""Unrolling: what a recursive network computes, its copy in layers computes too."""

import pytest
import torch

import csrecon
from csrecon import zoo
from csrecon.errors import UsageError
from csrecon.nets.coast import coast
from csrecon.nets.ista_net_plus import ista_net_plus
from csrecon.recursion import Limits, Schedule
from csrecon.training.unroll import unroll, widen
from tests.conftest import scene

LIMITS = Limits(1, 1, (0.1, 0.5))


def measurement(ratio):
    return csrecon.sample(scene(40, 70), ratio=ratio, color="gray")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_ista_net_plus_computes_the_same():
    counts = Schedule((2, 3))
    source = ista_net_plus(counts, modulation="rfmu", blockwise=False, turning=True).eval()
    target = ista_net_plus(Schedule((1,) * 5), LIMITS, blockwise=False).eval()
    m = measurement(0.2)
    assert not torch.allclose(target(m), source(m), atol=1e-2)
    unroll(source, target)
    torch.testing.assert_close(target(m), source(m), atol=1e-4, rtol=0)


def test_coast_computes_the_same_in_the_middle_of_its_ratios():
    source = zoo.load("rcoast")
    source.halved_after = None  # a layer of its own goes all of its way
    limits = Limits(1, 1, (327 / 1089 - 0.2, 327 / 1089 + 0.2))
    target = coast(Schedule((1,) * 20), limits, projection=source.projection).eval()
    unroll(source, target)
    m = measurement(0.3)
    torch.testing.assert_close(target(m), source(m), atol=1e-4, rtol=0)
    for ratio in (0.1, 0.5):
        m = measurement(ratio)
        assert (target(m) - source(m)).square().mean().sqrt() < 0.03


def test_five_layers_compute_what_one_iteration_of_each_does():
    source = zoo.load("rcoast")
    limits = Limits(1, 1, (327 / 1089 - 0.2, 327 / 1089 + 0.2))
    target = coast(Schedule((1,) * 5), limits, projection=source.projection).eval()
    unroll(source, target)
    m = measurement(0.3)
    expected = source(m, source.schedule.with_ipl(1))
    torch.testing.assert_close(target(m), expected, atol=1e-4, rtol=0)


def test_without_its_rfmu_a_recursive_network_stays_near():
    """One gain a layer and ratio cannot say what one an iteration says, but begins near it."""
    source = zoo.load("rcoast")
    limits = Limits(12, 12, (0.1, 0.5))
    target = coast(
        source.schedule, limits, projection=True, halved_after=source.halved_after, turning=True
    ).eval()
    m = measurement(0.3)
    untrained = (target(m) - source(m)).square().mean().sqrt()
    unroll(source, target)
    assert (target(m) - source(m)).square().mean().sqrt() < 0.1 * untrained


@pytest.mark.parametrize(
    ("counts", "arguments", "message"),
    [
        ((1,) * 19, {}, "19 layers cannot begin as 5 layers unrolled"),
        ((2,) * 20, {}, "same recursion"),
        ((4,) * 5, {"turning": True}, "same recursion"),
        ((1,) * 20, {"modulation": "rfmu"}, "RFMU"),
    ],
)
def test_what_cannot_begin_unrolled(counts, arguments, message):
    source = coast(Schedule((4,) * 5), modulation="rfmu")
    with pytest.raises(UsageError, match=message):
        unroll(source, coast(Schedule(counts), LIMITS, **arguments))


def test_layers_of_another_kind():
    with pytest.raises(UsageError, match="layers of both networks differ"):
        unroll(
            coast(Schedule((2, 2)), modulation="rfmu"), ista_net_plus(Schedule((1,) * 4), LIMITS)
        )


def test_what_a_network_hears_besides_begins_without_effect():
    source = zoo.load("rcoast-first")
    arguments = {"modulation": "rfmu", "max_steps": 30}
    target = coast(source.schedule, source.limits, **arguments, noise_scale=10).eval()
    widen(source, target)
    m = csrecon.sample(scene(40, 70), ratio=0.2, color="gray", noise_sigma=0.05)
    torch.testing.assert_close(target(m), source(m))
    with pytest.raises(UsageError, match="do not fit"):
        widen(source, coast(Schedule((4,) * 6), LIMITS, **arguments))
