"""The strength that is chosen from the data, and the values that are held out for it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import UsageError
from csrecon.reconstructors.base import last
from csrecon.reconstructors.solvers.frame import RESIDUAL, STRENGTH
from csrecon.reconstructors.solvers.strength import expected_residual
from csrecon.sensing.parts import Kept, held_out, measured, without
from tests.checks import check_operator
from tests.conftest import scene

IMAGE = scene(48, 48)[..., 0].astype(np.float32) / 255


def measurement(kind, noise):
    options = {"block": 16} if kind in ("gaussian", "hadamard-cake") else {}
    ratio = {} if kind == "identity" else {"ratio": 0.4}
    return csrecon.sample(IMAGE, kind=kind, noise_sigma=noise, **options, **ratio)


def psnr(x):
    return -10 * math.log10(np.square(x - IMAGE).mean())


# --- Held-out values ---


@pytest.mark.parametrize("kind", ["gaussian", "hadamard-cake", "fourier", "identity"])
def test_a_tenth_is_held_out_and_never_the_mean(kind):
    m = measurement(kind, 0)
    held = held_out(m.operator, 0.1)
    assert tuple(held.shape) == m.operator.y_shape
    assert 0.07 < float(held.float().mean()) < 0.13
    assert torch.equal(held, held_out(m.operator, 0.1))
    assert not torch.equal(held, held_out(m.operator, 0.1, seed=1))
    fewer = without(m, held)
    assert not fewer.y[:, held].any()
    assert torch.equal(fewer.y[:, ~held], m.y[:, ~held])
    if kind == "hadamard-cake":
        level = m.operator(torch.ones(1, 1, 48, 48))[0].abs() > 1
        assert level.any()
        assert not (held & level).any()


def test_conjugate_frequencies_are_held_out_together():
    m = measurement("fourier", 0)
    held = held_out(m.operator, 0.1)
    assert torch.equal(held[:, 0], held[:, 1])
    chosen = set(m.operator.index[held[:, 0]].tolist())
    present = set(m.operator.index.tolist())
    for place in chosen:
        row, column = divmod(place, 48)
        other = (-row % 48) * 48 + (-column % 48)
        assert other not in present or other in chosen
    assert 0 not in chosen


def test_missing_blocks_are_not_held_out():
    m = measurement("gaussian", 0)
    present = torch.ones(m.operator.grid)
    present[1, 2] = 0
    operator = type(m.operator)(m.operator.phi, (48, 48), (16, 16), None, present)
    assert not held_out(operator, 0.5)[1, 2].any()
    assert int(measured(operator).sum()) == 8 * operator.m


@pytest.mark.parametrize("kind", ["gaussian", "fourier"])
def test_a_part_is_an_operator(kind):
    m = measurement(kind, 0)
    part = Kept(m.operator, ~held_out(m.operator, 0.3))
    x = torch.randn(2, *part.domain)
    y = torch.randn(2, *part.y_shape)
    torch.testing.assert_close((part(x) * y).sum(), (x * part.adjoint(y)).sum())
    assert part.ratio < m.operator.ratio
    assert part.normalized(y, 0.1) == (part, y, 0.1)
    if kind == "fourier":
        check_operator(part)


# --- The choice ---


@pytest.mark.parametrize("kind", ["gaussian", "fourier", "identity"])
@pytest.mark.parametrize("name", ["tv", "fista", "tval3"])
def test_the_residual_is_that_of_the_known_noise(name, kind):
    m = measurement(kind, 0.05).normalized()
    final = last(csrecon.load(f"{name}:weight=auto").steps(m))
    target = expected_residual(m)
    assert target == pytest.approx(0.05 * math.sqrt(m.y.numel()))
    assert 0.9 * target < final.facts[RESIDUAL] < 1.03 * target


@pytest.mark.parametrize("kind", ["gaussian", "identity"])
def test_cross_validation_is_near_the_best_strength(kind):
    m = replace(measurement(kind, 0.05), noise=0.0)
    found = psnr(csrecon.reconstruct(m, "tv:weight=auto", device="cpu"))
    weights = np.geomspace(0.002, 0.2, 7)
    grid = [psnr(csrecon.reconstruct(m, f"tv:weight={w}", device="cpu")) for w in weights]
    assert found > max(grid) - 0.5
    assert found > grid[0] + 0.5


def test_without_noise_the_strength_is_small():
    m = measurement("gaussian", 0)
    final = last(csrecon.load("tv:weight=auto").steps(m))
    assert final.facts[STRENGTH] < 0.005


def test_lasso_takes_it_too():
    m = measurement("gaussian", 0.05)
    final = last(csrecon.load("lasso:weight=auto,iterations=300").steps(m))
    assert final.facts[RESIDUAL] == pytest.approx(expected_residual(m), rel=0.1)


def test_too_few_values():
    m = csrecon.sample(IMAGE[:1, :2], kind="identity")
    with pytest.raises(UsageError, match="weight=auto: 2 values are too few"):
        csrecon.load("tv:weight=auto")(m)
