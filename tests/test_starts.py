"""Starts: what x⁰ is, and the gradient there."""

import gc

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError
from csrecon.reconstructors import starts
from csrecon.reconstructors.starts import AdjointStart, LinearStart, MarkovStart
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOptions, Phi
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


def test_a_start_for_one_phi_needs_blocks():
    m = csrecon.sample(scene()[..., 0], kind="identity")
    with pytest.raises(InputError, match="its own Φ"):
        LinearStart(20, 64, "0" * 64)(m)


@pytest.mark.parametrize("kind", ["gaussian", "binary", "hadamard", "dct", "pixels", "fourier"])
def test_the_markov_start_is_nearer_for_every_kind(kind):
    m = csrecon.sample(scene(66, 90)[..., 0], 0.25, kind=kind).normalized()
    image = torch.from_numpy(scene(66, 90)[..., 0] / np.float32(255))
    near, far = (
        (start(m)[0][0, 0] - image).square().mean() for start in (MarkovStart(), AdjointStart())
    )
    assert near < 0.8 * far


def test_the_markov_start_of_a_whole_image_is_that_of_one_block(monkeypatch):
    m = csrecon.sample(scene(33, 33)[..., 0], 0.2)
    at_once, gradient = MarkovStart()(m)
    monkeypatch.setattr(starts, "LARGEST_SYSTEM", 0)
    monkeypatch.setattr(starts, "_RESIDUAL", 1e-7)
    step_by_step, other = MarkovStart(iterations=500)(m)
    torch.testing.assert_close(step_by_step, at_once, atol=2e-3, rtol=0)
    torch.testing.assert_close(other, gradient, atol=2e-3, rtol=0)


def test_the_markov_start_of_complex_images_has_mean_zero():
    values = np.exp(1j * scene(24, 30)[..., 0] / 80).astype(np.complex64)
    m = csrecon.sample(values, 0.4, kind="fourier")
    x, gradient = MarkovStart()(m)
    assert x.shape == gradient.shape == (1, 2, 24, 30)
    true = torch.view_as_real(torch.from_numpy(values)).movedim(-1, 0)
    assert (x[0] - true).square().mean() < (m.operator.adjoint(m.y)[0] - true).square().mean()


@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_the_markov_start_of_several_coils_is_far_nearer_than_the_adjoint(is_complex):
    image = scene(48, 64)[..., 0] / 255.0
    if is_complex:
        image = (image * np.exp(1j * np.linspace(0, 2, 64))).astype(np.complex64)
    m = csrecon.sample(
        image, 0.4, kind="fourier", mask="random1d", fourier=FourierOptions(coils=8)
    ).normalized()
    x = torch.view_as_real(torch.from_numpy(image.astype(np.complex64))).movedim(-1, 0)
    error = [
        float((start[0] - x[: start.shape[1]]).square().mean())
        for start in (m.operator.adjoint(m.y), MarkovStart()(m)[0], MarkovStart(iterations=8)(m)[0])
    ]
    assert error[1] < error[0] / 3
    assert error[2] < error[0] / 3


def test_the_images_of_a_batch_start_by_themselves():
    one, other = (csrecon.sample(scene(30, 40)[..., c], 0.3, kind="fourier") for c in (0, 1))
    both = Measurement.stacked([one, other])
    for k, alone in enumerate((one, other)):
        apart = MarkovStart()(both)[0][k] - MarkovStart()(alone)[0][0]
        assert apart.abs().max() < 2e-5  # rounding only


def test_the_markov_start_is_computed_once_per_phi(monkeypatch):
    counted, solve = [], torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda matrix: counted.append(1) or solve(matrix))
    phi, other = (Phi.given(Phi.make(20, 64, seed).matrix) for seed in (5, 6))
    start = MarkovStart().eval()
    for width in (40, 50, 40):
        m = csrecon.sample(scene(30, width)[..., 0], phi=phi)
        start(m.to(torch.device("cpu")))  # a copy of the operator
    assert len(counted) == 1
    start(csrecon.sample(scene(30, 40)[..., 0], phi=other))
    assert len(counted) == 2
    start.train()(m)
    assert len(counted) == 3
    kept = len(starts._kept)
    del phi, other, m
    gc.collect()
    assert len(starts._kept) <= kept - 2


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
