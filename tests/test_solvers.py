"""Classical solvers: their parts are what they are called, and their options have names."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import csrecon
from csrecon import zoo
from csrecon.errors import ModelError, UsageError
from csrecon.reconstructors.base import last
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.reconstructors.solvers.fista import Fista
from csrecon.reconstructors.solvers.proximal import falling, proximal_gradient
from csrecon.reconstructors.solvers.transforms import block_dct, soft_threshold
from csrecon.reconstructors.solvers.tv import (
    TotalVariation,
    denoise,
    differences,
    differences_adjoint,
)
from csrecon.sensing.operators.transforms import dct_basis
from tests.checks import check_reconstructor
from tests.conftest import scene

IMAGE = scene(50, 70)[..., 0].astype(np.float32) / 255


def measured(kind):
    """A small measurement of every kind of operator."""
    row, column = np.mgrid[:50, :70]
    phased = (IMAGE * np.exp(1j * (row - column) / 30)).astype(np.complex64)
    return {
        "block": lambda: csrecon.sample(scene(), 0.2),
        "own-phi": lambda: csrecon.sample(
            IMAGE, phi=np.random.Generator(np.random.PCG64(0)).normal(size=(20, 64))
        ).normalized(),
        "fourier": lambda: csrecon.sample(IMAGE, 0.3, kind="fourier"),
        "fourier-complex": lambda: csrecon.sample(phased, 0.3, kind="fourier", mask="random1d"),
        "identity": lambda: csrecon.sample(IMAGE, kind="identity", noise_sigma=0.1),
        "one-pixel": lambda: csrecon.sample(IMAGE[:1, :1], kind="identity"),
    }[kind]()


PLAIN = [name for name in SOLVERS if name not in ("damp", "denoise", "pnp")]
"""Solvers without a denoiser; test_pnp.py has the others."""
KINDS = ["block", "own-phi", "fourier", "fourier-complex", "identity", "one-pixel"]


FEW = {"adjoint": {}, "omp": {"sparsity": 5}}
BLOCKS = ("omp",)  # solvers that take block sampling only


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLAIN)
def test_solvers_keep_the_contract(name, kind):
    solver = SOLVERS[name](**FEW.get(name, {"iterations": 25}))
    if name in BLOCKS and kind not in ("block", "own-phi"):
        with pytest.raises(UsageError, match=r"no blocks.*--model fista"):
            solver(measured(kind))
        return
    check_reconstructor(solver, measured(kind))
    assert last(solver.steps(measured(kind))).stopped


def test_the_adjoint_is_the_back_projection():
    m = measured("fourier")
    solver = csrecon.load("adjoint")
    assert torch.equal(solver(m), m.operator.adjoint(m.y))
    with pytest.raises(UsageError, match="no start"):
        last(solver.steps(m, m.operator.adjoint(m.y)))


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "adjoint"])
def test_solvers_beat_the_back_projection_and_agree_with_the_data(name):
    image = scene(64, 64)[..., 1] / 255
    m = csrecon.sample(image, 0.3, block=16)
    x = csrecon.reconstruct(m, name)
    start = m.operator.adjoint(m.y)[0, 0].numpy()
    assert np.abs(x - image).mean() < 0.2 * np.abs(start - image).mean()
    again = csrecon.sample(np.clip(x, 0, 1), 0.3, block=16)
    assert (again.y - m.y).abs().mean() < 0.01 * m.y.abs().mean()


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(2, 17),
    st.integers(1, 2),
    st.data(),
)
def test_block_dct_is_orthonormal_and_has_its_inverse(shape, size, channels, data):
    shift = data.draw(st.integers(0, size - 1), "shift")
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels, *shape, generator=draw, dtype=torch.float64)
    z = torch.randn(x.shape, generator=draw, dtype=torch.float64)
    code, other = block_dct(x, size, shift), block_dct(z, size, shift)
    assert code.shape == x.shape
    torch.testing.assert_close((code * other).sum(), (x * z).sum())
    torch.testing.assert_close(block_dct(code, size, shift, inverse=True), x)
    torch.testing.assert_close(block_dct(block_dct(z, size, shift, inverse=True), size, shift), z)


@pytest.mark.parametrize("shift", [0, 3])
def test_block_dct_is_the_dct_of_every_block(shift):
    x = torch.rand(1, 1, 11, 19, dtype=torch.float64)
    code = block_dct(x, 8, shift)
    rows = [0, *range(8 - shift, 11, 8), 11]
    columns = [0, *range(8 - shift, 19, 8), 19]
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            block = x[0, 0, top:bottom, left:right].numpy()
            expected = dct_basis(bottom - top) @ block @ dct_basis(right - left).T
            np.testing.assert_allclose(code[0, 0, top:bottom, left:right], expected, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.floats(-3, 3), st.floats(0.01, 2))
def test_soft_thresholding_is_the_prox_of_the_absolute_value(value, strength):
    v = torch.tensor(value, dtype=torch.float64).view(1, 1, 1, 1)
    found = float(soft_threshold(v, strength))
    grid = np.linspace(-3, 3, 60001)
    costs = 0.5 * (grid - value) ** 2 + strength * np.abs(grid)
    assert found == pytest.approx(grid[np.argmin(costs)], abs=2e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.01, 2))
def test_of_complex_values_the_magnitude_shrinks(real, imaginary, strength):
    v = torch.tensor([real, imaginary], dtype=torch.float64).view(1, 2, 1, 1)
    found = soft_threshold(v, strength).flatten().numpy()
    axis = np.linspace(-2, 2, 401)
    a, b = np.meshgrid(axis, axis)
    costs = 0.5 * ((a - real) ** 2 + (b - imaginary) ** 2) + strength * np.hypot(a, b)
    cost = 0.5 * ((found - [real, imaginary]) ** 2).sum() + strength * np.hypot(*found)
    assert cost <= costs.min() + 1e-12
    magnitude = max(0.0, float(np.hypot(real, imaginary)) - strength)
    assert np.hypot(*found) == pytest.approx(magnitude, abs=1e-9)


@pytest.mark.parametrize("kind", ["block", "own-phi", "fourier", "fourier-complex", "identity"])
def test_plain_proximal_gradient_steps_never_raise_the_objective(kind):
    m = measured(kind)
    strength = 0.02

    def prox(v, weight):
        code = soft_threshold(block_dct(v, 16, 5), weight)
        return block_dct(code, 16, 5, inverse=True), None

    def objective(x):
        misfit = 0.5 * (m.operator(x) - m.y).double().square().sum()
        return float(misfit + strength * block_dct(x, 16, 5).double().norm(dim=1).sum())

    steps = list(proximal_gradient(m, prox, [strength] * 30, accelerate=False))
    costs = [objective(m.operator.adjoint(m.y)), *(objective(step.image) for step in steps)]
    assert all(after <= before * (1 + 1e-6) for before, after in pairwise(costs))
    assert costs[-1] < 0.99 * costs[0]
    faster = list(proximal_gradient(m, prox, [strength] * 30))
    assert objective(faster[-1].image) <= costs[-1] * (1 + 1e-6)
    assert len(faster) == 30


def test_strengths_fall_geometrically():
    found = falling(0.1, 0.001, 5)
    np.testing.assert_allclose(found, [0.1, 0.1**1.5, 0.01, 0.1**2.5, 0.001])
    assert falling(0.1, 0.001, 1) == [0.1]
    assert falling(0.1, 0.1, 3) == [0.1] * 3


def test_fista_trusts_noisy_data_less():
    """λ ends at 1.5 σ, so that a noisy image is not fitted exactly."""
    noisy = csrecon.sample(IMAGE, kind="identity", noise_sigma=0.1)
    clean = csrecon.sample(IMAGE, kind="identity")
    off = {m.noise: float((last(Fista().steps(m)).image - m.y).std()) for m in (noisy, clean)}
    assert off[0] < 0.01
    assert off[noisy.noise] == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("channels", [1, 2])
def test_differences_have_their_adjoint(channels):
    x = torch.randn(2, channels, 7, 9, dtype=torch.float64)
    p = torch.randn(2, 2 * channels, 7, 9, dtype=torch.float64)
    assert differences(x).shape == p.shape
    product = (differences(x) * p).sum()
    torch.testing.assert_close(product, (x * differences_adjoint(p)).sum())


def test_tv_denoising_minimises_its_objective():
    draw = torch.Generator().manual_seed(0)
    v = torch.randn(1, 1, 12, 15, generator=draw, dtype=torch.float64)

    def cost(x):
        lengths = differences(x).square().sum(dim=1).sqrt()
        return float(0.5 * (x - v).square().sum() + 0.3 * lengths.sum())

    found, _ = denoise(v, 0.3, torch.zeros_like(differences(v)), 3000)
    for _ in range(50):
        other = found + 0.01 * torch.randn(v.shape, generator=draw, dtype=torch.float64)
        assert cost(found) <= cost(other)
    assert cost(found) < 0.9 * cost(v)


def test_options_by_name():
    assert csrecon.load("tv") == TotalVariation()
    assert csrecon.load("tv:iterations=5") == TotalVariation(iterations=5)
    found = csrecon.load("fista: iterations = 7, size=8,last=1e-2")
    assert found == Fista(iterations=7, size=8, last=0.01)
    m = csrecon.sample(IMAGE, 0.3)
    assert len(list(csrecon.load("tv:iterations=5").steps(m))) == 5
    few = csrecon.reconstruct(m, "fista:iterations=2", device="cpu")
    many = csrecon.reconstruct(m, "fista", device="cpu")
    assert np.abs(many - IMAGE).mean() < np.abs(few - IMAGE).mean()
    assert zoo.identity(found) == {
        "solver": "fista",
        "iterations": 7,
        "tolerance": 0.0,
        "weight": None,
        "first": 0.1,
        "last": 0.01,
        "continuation": None,
        "transform": "dct",
        "size": 8,
        "wavelet": "sym4",
        "levels": 4,
        "spin": True,
    }
    assert zoo.is_solver("tv:iterations=5") and not zoo.is_solver("rcoast")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tv:iteration=5", "no option 'iteration': did you mean 'iterations'"),
        ("fista:inner=5", "solver 'fista' has no option 'inner'"),
        ("tv:iterations=0", "iterations='0'"),
        ("tv:iterations=many", "iterations='many'"),
        ("tv:iterations=1e9", "iterations="),
        ("tv:first=-1", "first='-1'"),
        ("tv:first=nan", "first='nan'"),
        ("tv:last=inf", "last='inf'"),
        ("fista:size=1", "size='1'"),
        ("tv:name=tv", "no option 'name'"),
        ("tv:what=tv", "no option 'what'"),
        ("tv:registry=tv", "no option 'registry'"),
        ("ista:iterations=0", "iterations='0'"),
        ("lasso:iterations=0", "iterations='0'"),
        ("tval3:iterations=0", "iterations='0'"),
        ("tval3:threshold=-1", "threshold='-1'"),
        ("tv:inner=0", "inner='0'"),
        ("omp:sparsity=0", "sparsity"),
        ("omp:tolerance=-1", "tolerance='-1'"),
        ("omp:sparcity=3", "no option 'sparcity': did you mean 'sparsity'"),
    ],
)
def test_options_that_cannot_be(name, message):
    with pytest.raises(UsageError, match=message):
        csrecon.load(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fsta:iterations=5", "did you mean 'fista'"),
        ("rcoast:ipl=3", "a network has no options"),
    ],
)
def test_options_of_what_is_no_solver(name, message):
    with pytest.raises(ModelError, match=message):
        csrecon.load(name)


@pytest.mark.parametrize("name", ["tv:", "tv:iterations", "tv:=5", "tv:iterations=", "tv:a=1,,b=2"])
def test_options_that_are_not_written_as_such(name):
    with pytest.raises(UsageError, match="expected NAME:option=value"):
        csrecon.load(name)


@pytest.mark.parametrize(
    "text",
    ["hf:owner/name", "hf:owner/name@main", "a:b=c.safetensors", "C:\\a\\b.safetensors", "rcoast"],
)
def test_names_without_options_are_left_alone(text):
    assert zoo.split_name(text) == (text, {})
    assert not zoo.is_solver(text)


def test_solvers_take_no_iterations_per_layer():
    with pytest.raises(UsageError, match="no layers"):
        csrecon.reconstruct(csrecon.sample(IMAGE, 0.3), "fista:iterations=2", 3)
