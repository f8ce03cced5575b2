"""Starts: what x⁰ is, and the gradient there."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.reconstructors.starts import AdjointStart, LinearStart, MarkovStart
from csrecon.sensing.operators import Phi
from tests.conftest import scene


def measured(height=50, width=70, ratio=0.3):
    return csrecon.sample(scene(height, width)[..., 0], ratio)


def test_the_adjoint_start_has_no_gradient():
    m = measured()
    x, gradient = AdjointStart()(m)
    torch.testing.assert_close(x, m.operator.adjoint(m.y))
    assert not gradient.any()


def test_the_adjoint_start_of_an_operator_that_is_not_tight():
    m = csrecon.sample(scene()[..., 0], 0.3, kind="fourier")
    assert not m.operator.tight
    x, gradient = AdjointStart()(m)
    torch.testing.assert_close(x, m.operator.adjoint(m.y))
    torch.testing.assert_close(gradient, m.gradient(x))
    assert gradient.abs().max() > 0.01


def test_starts_for_blocks_need_blocks():
    m = csrecon.sample(scene()[..., 0], kind="identity")
    with pytest.raises(UsageError, match="block measurements"):
        MarkovStart()(m)
    with pytest.raises(InputError, match="its own Φ"):
        LinearStart(20, 64, "0" * 64)(m)


def test_the_markov_start_is_the_formula():
    m = measured(33, 33)
    phi = m.operator.rows.matrix().double().numpy()
    place = np.arange(33)
    along = 0.95 ** np.abs(place[:, None] - place)
    c = np.kron(along, along)
    shared = phi @ c @ phi.T + 1e-3 * np.eye(len(phi))
    y = m.y[0, 0, 0].double().numpy()
    expected = 0.5 + c @ phi.T @ np.linalg.solve(shared, y - 0.5 * phi.sum(1))
    x, gradient = MarkovStart()(m)
    np.testing.assert_allclose(x.numpy().ravel(), expected, atol=2e-4)
    torch.testing.assert_close(gradient, m.gradient(x))


@pytest.mark.parametrize("ratio", [0.01, 0.1, 0.5, 1.0])
def test_the_markov_start_is_nearer(ratio):
    m = measured(ratio=ratio)
    image = torch.from_numpy(scene()[..., 0] / np.float32(255))
    errors = [
        (start(m)[0][0, 0] - image).square().mean() for start in (AdjointStart(), MarkovStart())
    ]
    assert errors[1] < errors[0] or errors[0] < 1e-4


def test_the_linear_start_knows_its_phi():
    phi = Phi.make(20, 64, 0)
    start = LinearStart(20, 64, phi.sha256)
    start.q.copy_(torch.from_numpy(phi.matrix.T))
    m = csrecon.sample(scene()[..., 0], phi=phi)
    torch.testing.assert_close(start(m)[0], m.operator.adjoint(m.y))
    with pytest.raises(InputError, match="its own Φ"):
        start(csrecon.sample(scene()[..., 0], phi=Phi.make(20, 64, 1)))
