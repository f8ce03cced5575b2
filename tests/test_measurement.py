"""The measurement: checked values, normalization, and copies that leave the original alone."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from tests.conftest import scene

IMAGE = scene()[..., 0]


def test_the_ratio_is_the_true_one():
    assert csrecon.sample(IMAGE, 0.1).operator.ratio == 109 / 1089


def test_a_y_of_another_shape_is_refused():
    m = csrecon.sample(IMAGE, 0.1)
    with pytest.raises(InputError, match="does not fit"):
        Measurement.of(m.operator, m.y[:, :1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_must_be_finite(bad):
    m = csrecon.sample(IMAGE, 0.1)
    y = m.y.clone()
    y[0, 0, 0, 0] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        Measurement.of(m.operator, y)


def test_normalizing_orthonormal_rows_changes_nothing():
    m = csrecon.sample(IMAGE, 0.1)
    assert m.normalized() is m


def test_normalizing_any_rows_gives_the_orthonormal_measurement():
    mixing = np.random.Generator(np.random.PCG64(1)).normal(size=(20, 20))
    orthonormal = Phi.make(20, 64, 0).matrix
    mixed = csrecon.sample(IMAGE, phi=mixing @ orthonormal).normalized()
    plain = csrecon.sample(IMAGE, phi=orthonormal)
    assert mixed.operator.rows.orthonormal
    torch.testing.assert_close(
        mixed.operator.adjoint(mixed.y), plain.operator.adjoint(plain.y), atol=1e-3, rtol=0
    )


def test_normalizing_leaves_out_repeated_rows():
    rows = Phi.make(10, 64, 0).matrix
    m = csrecon.sample(IMAGE, phi=np.concatenate([rows, rows])).normalized()
    assert m.operator.m == 10
    assert m.operator.ratio == 10 / 64


def test_a_zero_phi_is_refused():
    with pytest.raises(InputError, match="zero"):
        csrecon.sample(IMAGE, phi=np.zeros((3, 64))).normalized()


def test_blocks_are_images_of_their_own():
    m = csrecon.sample(IMAGE, 0.2, block=16)
    local, y = m.operator.split(m.y)
    assert local.image_shape == (16, 16)
    assert y.shape == (4 * 5, 1, 1, m.y.shape[-1])
    torch.testing.assert_close(m.operator.join(local.adjoint(y)), m.operator.adjoint(m.y))


def test_complex_values_are_for_operators_of_complex_values():
    real = csrecon.sample(IMAGE, 0.1)
    with pytest.raises(InputError, match="BlockOperator measures real values"):
        Measurement.of(real.operator, real.y.to(torch.complex64))
    m = csrecon.sample(IMAGE, 0.1, kind="fourier")
    values = torch.view_as_complex(m.y)
    assert values.shape == (1, round(0.1 * IMAGE.size))
    assert torch.equal(Measurement.of(m.operator, values).y, m.y)
    assert torch.equal(Measurement.of(m.operator, values.conj().conj()).y, m.y)
    mirrored = Measurement.of(m.operator, values.conj()).y
    torch.testing.assert_close(mirrored, m.y * torch.tensor([1.0, -1.0]))


def test_what_may_be_stacked():
    a, b = csrecon.sample(IMAGE, 0.1), csrecon.sample(255 - IMAGE, 0.1)
    assert a.batch_key == b.batch_key is not None
    both = Measurement.stacked([a, b])
    assert torch.equal(both.y, torch.cat([a.y, b.y]))
    assert Measurement.stacked([a]) is a
    others = [
        csrecon.sample(IMAGE, 0.1, seed=1),
        csrecon.sample(IMAGE, 0.2),
        csrecon.sample(IMAGE[1:], 0.1),
        csrecon.sample(IMAGE, 0.1, block=32),
        csrecon.sample(IMAGE, 0.1, kind="fourier"),
        csrecon.sample(IMAGE, kind="identity"),
        csrecon.sample(IMAGE, 0.1, noise_sigma=0.1),
    ]
    for other in others:
        assert other.batch_key != a.batch_key
        with pytest.raises(UsageError, match="stacked"):
            Measurement.stacked([a, other])
    assert others[-1].batch_key is None
    with pytest.raises(UsageError, match="stacked"):
        Measurement.stacked([others[-1], others[-1]])


def test_a_copy_on_a_device_leaves_the_original():
    m = csrecon.sample(IMAGE, 0.1)
    copy = m.to(torch.device("meta"))
    assert copy.operator.rows.matrix().is_meta
    assert isinstance(m.operator, BlockOperator)
    assert not m.operator.rows.matrix().is_meta
