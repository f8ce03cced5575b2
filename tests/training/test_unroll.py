"""Unrolling: what a recursive network computes, its copy in layers computes too."""

from dataclasses import replace

import pytest
import torch

import csrecon
from csrecon import zoo
from csrecon.errors import UsageError
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.sensing.measurement import Condition
from csrecon.training.unroll import unroll, widen
from tests.conftest import scene


def network(block, schedule, modulation="none", ratios=(0.1, 0.5), **recursion):
    """A network with random weights; a modulation is a name, or a dict with options."""
    part = {"name": modulation} if isinstance(modulation, str) else modulation
    blueprint = Blueprint.model_validate(
        {
            "block": {"name": block},
            "modulation": part,
            "recursion": {"schedule": schedule, **recursion},
            "trained": {"ipl": max(schedule), "max_ipl": 12, "ratios": ratios},
        }
    )
    return blueprint.build()


RISTA = {"name": "rfmu", "level_scale": None}
RCOAST = {"name": "rfmu", "max_steps": 30}
AROUND = (327 / 1089 - 0.2, 327 / 1089 + 0.2)


def measurement(ratio):
    return csrecon.sample(scene(40, 70), ratio=ratio, color="gray")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_ista_net_plus_computes_the_same():
    source = network("ista-net-plus", (2, 3), RISTA, rotate=True).eval()
    target = network("ista-net-plus", (1,) * 5).eval()
    m = measurement(0.2)
    assert not torch.allclose(target(m), source(m), atol=1e-2)
    unroll(source, target)
    torch.testing.assert_close(target(m), source(m), atol=1e-4, rtol=0)


def test_coast_computes_the_same_in_the_middle_of_its_ratios():
    source = zoo.load("rcoast")
    source.recursion = replace(source.recursion, relax_after=None)  # a layer goes all of its way
    target = network("coast", (1,) * 20, "ratio", AROUND, projection=True).eval()
    unroll(source, target)
    m = measurement(0.3)
    torch.testing.assert_close(target(m), source(m), atol=1e-4, rtol=0)
    for ratio in (0.1, 0.5):
        m = measurement(ratio)
        assert (target(m) - source(m)).square().mean().sqrt() < 0.03


def test_five_layers_compute_what_one_iteration_of_each_does():
    source = zoo.load("rcoast")
    target = network("coast", (1,) * 5, "ratio", AROUND, projection=True).eval()
    unroll(source, target)
    m = measurement(0.3)
    expected = source.at(1)(m)
    torch.testing.assert_close(target(m), expected, atol=1e-4, rtol=0)


def test_without_its_rfmu_a_recursive_network_stays_near():
    """One gain a layer and ratio cannot say what one an iteration says, but begins near it."""
    source = zoo.load("rcoast")
    settings = {"projection": True, "relax_after": source.recursion.relax_after, "rotate": True}
    target = network("coast", (4,) * 5, "ratio", **settings).eval()
    m = measurement(0.3)
    untrained = (target(m) - source(m)).square().mean().sqrt()
    unroll(source, target)
    assert (target(m) - source(m)).square().mean().sqrt() < 0.1 * untrained


@pytest.mark.parametrize(
    ("counts", "modulation", "recursion", "message"),
    [
        ((1,) * 19, "ratio", {}, "19 layers cannot start from 5 layers unrolled"),
        ((2,) * 20, "ratio", {}, "same recursion"),
        ((4,) * 5, "ratio", {"rotate": True}, "same recursion"),
        ((1,) * 20, "rfmu", {}, "RFMU"),
    ],
)
def test_what_cannot_begin_unrolled(counts, modulation, recursion, message):
    source = network("coast", (4,) * 5, "rfmu")
    with pytest.raises(UsageError, match=message):
        unroll(source, network("coast", counts, modulation, **recursion))


def test_layers_of_another_kind():
    with pytest.raises(UsageError, match="layers of both networks differ"):
        unroll(network("coast", (2, 2), "rfmu"), network("ista-net-plus", (1,) * 4))


def test_what_a_network_is_conditioned_on_besides_begins_without_effect():
    source = zoo.load("rcoast-first")
    target = network("coast", (4,) * 5, {**RCOAST, "noise_scale": 10}).eval()
    widen(source, target)
    m = csrecon.sample(scene(40, 70), ratio=0.2, color="gray", noise_sigma=0.05)
    torch.testing.assert_close(target(m), source(m))
    with pytest.raises(UsageError, match="do not fit"):
        widen(source, network("coast", (4,) * 6, RCOAST))


def test_a_network_becomes_conditioned_on_the_ratio_without_effect_at_first():
    source = zoo.load("rista")
    options = {"name": "rfmu", "max_steps": 9}
    target = network("ista-net-plus", (3, 3, 3), options, rotate=True).eval()
    widen(source, target)
    for ratio in (0.1, 0.5):
        for visit in source.schedule.visits(3):
            gains = target.modulation(Condition(ratio), visit)
            torch.testing.assert_close(gains, source.modulation(Condition(ratio), visit))
