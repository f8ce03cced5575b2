"""Orthonormalization: which components of Φ are kept, and that nothing else has an influence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.sensing.operators.kinds import KINDS
from csrecon.sensing.operators.orthonormal import orthonormalized, well_conditioned
from tests.conftest import scene

IMAGE = scene(96, 128).mean(axis=-1).astype(np.uint8)
ROWS = Phi.make(64, 256, 0).matrix.astype(np.float64)
WEAK = ROWS * np.where(np.arange(64) % 8, 1, 1e-3)[:, None]
SPREAD = ROWS * 10.0 ** (-3 * np.arange(64) / 63)[:, None]


def noisy(phi, sigma=0.02, image=IMAGE):
    """What Φ measures, with noise that the measurement does not know."""
    m = csrecon.sample(image, phi=phi.astype(np.float32), block=16)
    draw = np.random.Generator(np.random.PCG64(3))
    noise = sigma * torch.from_numpy(draw.standard_normal(m.y.shape)).float()
    return replace(m, y=m.y + noise)


@pytest.mark.parametrize("phi", [WEAK, SPREAD], ids=["weak", "spread"])
@pytest.mark.parametrize("image", [IMAGE, IMAGE[:16, :16], 0 * IMAGE, 0 * IMAGE + 200])
def test_without_noise_all_components_are_kept(phi, image):
    m = csrecon.sample(image, phi=phi.astype(np.float32), block=16).normalized()
    assert m.operator.m == 64
    plain = csrecon.sample(image, phi=ROWS.astype(np.float32), block=16)
    expected = plain.operator.adjoint(plain.y)
    torch.testing.assert_close(m.operator.adjoint(m.y), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("sigma", [0.0, 0.02, 5.0])
@pytest.mark.parametrize("kind", ["bernoulli", "binary"])
def test_a_well_conditioned_phi_loses_nothing(kind, sigma):
    m = csrecon.sample(IMAGE, 0.25, kind=kind, block=16, noise_sigma=sigma).normalized()
    assert m.operator.m == 64


def test_the_noise_is_that_of_the_kept_components():
    m = noisy(WEAK)
    known = replace(m, noise=0.02).normalized()
    assert known.operator.m == 56
    assert known.noise == pytest.approx(0.02, rel=1e-3)
    unknown = m.normalized()
    assert unknown.operator.m == 56
    assert unknown.noise == 0


def test_normalizing_twice_and_again_gives_the_same():
    m = noisy(SPREAD)
    once, again = m.normalized(), m.normalized()
    assert torch.equal(once.y, again.y)
    assert once.normalized() is once


def test_missing_blocks_have_no_influence():
    m = noisy(SPREAD)
    present = torch.ones(m.operator.grid)
    present[:2] = 0
    operator = BlockOperator(m.operator.phi, (96, 128), (16, 16), None, present)
    part = Measurement.of(operator, m.y * present[..., None])
    cropped = Measurement.of(BlockOperator(m.operator.phi, (64, 128), (16, 16)), m.y[:, 2:])
    assert torch.equal(part.normalized().y[:, 2:], cropped.normalized().y)
    nothing = BlockOperator(m.operator.phi, (96, 128), (16, 16), None, 0 * present)
    assert Measurement.of(nothing, 0 * m.y).normalized().operator.m == 64


def test_only_a_well_conditioned_phi_is_stacked():
    """Which components are kept depends on y: others in a batch must have no influence on it."""
    m = csrecon.sample(IMAGE, phi=WEAK.astype(np.float32), block=16)
    assert m.batch_key is None
    with pytest.raises(UsageError, match="stacked"):
        Measurement.stacked([m, m])
    for kind in KINDS:  # whose Φ is exact, and whose noise is recorded
        assert csrecon.sample(IMAGE, 0.9, kind=kind, block=16).batch_key is not None


def test_repeated_rows_are_averaged_whatever_their_noise():
    m = noisy(np.concatenate([ROWS, ROWS]), sigma=0.1)
    clean = csrecon.sample(IMAGE, phi=ROWS.astype(np.float32), block=16)
    both = m.normalized()
    assert both.operator.m == 64
    off = both.operator.adjoint(both.y) - clean.operator.adjoint(clean.y)
    assert float(off.std()) == pytest.approx(0.1 * np.sqrt(64 / 256 / 2), rel=0.1)


@pytest.mark.parametrize("factor", [0.0, 1e-20, 1e-30])
def test_rows_of_nothing_are_left_out(factor):
    rows = ROWS * np.where(np.arange(64) == 5, factor, 1)[:, None]
    assert noisy(rows).normalized().operator.m == 63


def test_one_block_and_one_row():
    one = noisy(WEAK, image=IMAGE[:16, :16])
    assert replace(one, noise=0.02).normalized().operator.m >= 56
    single = orthonormalized(ROWS[:1] * 7, (16, 16), np.ones((3, 1)), 0.1)
    assert single.noise == pytest.approx(0.1 / 7)
    assert well_conditioned(ROWS[:1])
    assert not well_conditioned(WEAK)
