"""The measurement: checked values, whitening, and copies that leave the original alone."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError
from csrecon.measurement import Measurement
from csrecon.operators import BlockOperator, Phi
from tests.conftest import scene

IMAGE = scene()[..., 0]


def test_level_is_the_true_ratio():
    assert csrecon.sample(IMAGE, 0.1).level == 109 / 1089


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


def test_whitening_orthonormal_rows_changes_nothing():
    m = csrecon.sample(IMAGE, 0.1)
    assert m.whiten() is m


def test_whitening_any_rows_gives_the_orthonormal_measurement():
    mixing = np.random.Generator(np.random.PCG64(1)).normal(size=(20, 20))
    orthonormal = Phi.make(20, 64, 0).matrix
    mixed = csrecon.sample(IMAGE, phi=mixing @ orthonormal).whiten()
    plain = csrecon.sample(IMAGE, phi=orthonormal)
    assert mixed.operator.rows.is_orthonormal()
    torch.testing.assert_close(
        mixed.operator.adjoint(mixed.y), plain.operator.adjoint(plain.y), atol=1e-3, rtol=0
    )


def test_whitening_leaves_out_repeated_rows():
    rows = Phi.make(10, 64, 0).matrix
    m = csrecon.sample(IMAGE, phi=np.concatenate([rows, rows])).whiten()
    assert m.operator.m == 10
    assert m.level == 10 / 64


def test_a_zero_phi_is_refused():
    with pytest.raises(InputError, match="zero"):
        csrecon.sample(IMAGE, phi=np.zeros((3, 64))).whiten()


def test_blocks_are_images_of_their_own():
    m = csrecon.sample(IMAGE, 0.2, block=16)
    local = m.per_block()
    assert local.operator.image_shape == (16, 16)
    assert local.y.shape == (4 * 5, 1, 1, m.y.shape[-1])
    torch.testing.assert_close(
        m.operator.join_blocks(local.operator.adjoint(local.y)), m.operator.adjoint(m.y)
    )


def test_a_copy_on_a_device_leaves_the_original():
    m = csrecon.sample(IMAGE, 0.1)
    copy = m.to(torch.device("meta"))
    assert copy.operator.rows.matrix().is_meta
    assert isinstance(m.operator, BlockOperator)
    assert not m.operator.rows.matrix().is_meta
