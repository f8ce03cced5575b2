"""Solvers against independent implementations, and the transforms that they threshold in."""

import sys

import numpy as np
import pytest
import pywt
import torch
from skimage.restoration import denoise_tv_chambolle
from sklearn.linear_model import Lasso as SklearnLasso
from sklearn.linear_model import orthogonal_mp

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.reconstructors.base import last
from csrecon.reconstructors.solvers.frame import GAP, OBJECTIVE, RESIDUAL
from csrecon.reconstructors.solvers.lasso import duality_gap
from csrecon.reconstructors.solvers.omp import Omp, Support
from csrecon.reconstructors.solvers.transforms import dct, wavelet
from csrecon.reconstructors.solvers.tv import total_variation
from csrecon.reconstructors.solvers.tval3 import lengths, shrink
from tests.conftest import scene

IMAGE = scene(40, 33)[..., 0].astype(np.float32) / 255

TRANSFORMS = {
    "dct": dct(8),
    "haar": wavelet("haar", 1),
    "db2": wavelet("db2", 3),
    "sym4": wavelet("sym4", 4),
    "deep": wavelet("sym8", 16),
}


# --- Transforms ---


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (16, 16), (13, 22)])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_orthonormal(name, shape):
    transform = TRANSFORMS[name]
    draw = torch.Generator().manual_seed(0)
    x, z = torch.randn(2, 3, 2, *shape, generator=draw, dtype=torch.float64)
    for shift in (0, 1, transform.period - 1):
        code = transform.forward(x, shift)
        assert code.shape == x.shape
        torch.testing.assert_close((code * transform.forward(z, shift)).sum(), (x * z).sum())
        torch.testing.assert_close(transform.inverse(code, shift), x)
        back = transform.inverse(z, shift)  # Wᵀ = W⁻¹
        torch.testing.assert_close((code * z).sum(), (x * back).sum())
        torch.testing.assert_close(transform.forward(back, shift), z)


@pytest.mark.parametrize("name", ["haar", "db2", "sym4", "coif1"])
@pytest.mark.parametrize("levels", [1, 3])
def test_wavelets_are_those_of_pywavelets(name, levels):
    x = torch.randn(64, 96, dtype=torch.float64)
    found = wavelet(name, levels).forward(x[None, None], 0)[0, 0]
    parts = pywt.wavedec2(x.numpy(), name, mode="periodization", level=levels)
    np.testing.assert_allclose(found, pywt.coeffs_to_array(parts)[0], atol=1e-10)


def test_shifts_are_circular_for_wavelets():
    x = torch.randn(1, 1, 16, 16)
    transform = TRANSFORMS["db2"]
    moved = x.roll((3, 3), dims=(-2, -1))
    torch.testing.assert_close(transform.forward(x, 3), transform.forward(moved, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("transform=wavelet,wavelet=sim4", "did you mean 'sym4'"),
        ("transform=wavelet,wavelet=bior2.2", "not orthogonal"),
        ("transform=wavelet,wavelet=dmey", "not orthogonal"),
        ("transform=fourier", "transform='fourier'"),
        ("levels=0", "levels='0'"),
        ("weight=0", "weight"),
        ("weight=-1", "weight"),
        ("weight=best", "weight"),
        ("tolerance=1", "tolerance='1'"),
        ("tolerance=-1", "tolerance='-1'"),
        ("continuation=-1", "continuation='-1'"),
    ],
)
def test_options_that_cannot_be(options, message):
    for name in ("ista", "fista", "lasso"):
        with pytest.raises(UsageError, match=message):
            csrecon.load(f"{name}:{options}")


def test_wavelets_need_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywt", None)
    assert csrecon.load("fista:wavelet=coif2").wavelet == "coif2"  # not used
    with pytest.raises(UsageError, match=r"csrecon\[solvers\]"):
        csrecon.load("fista:transform=wavelet,wavelet=coif2")


# --- Lasso ---


def small(side=12, m=60, noise=0.01):
    return csrecon.sample(IMAGE[:side, :side], m=m, block=side, noise_sigma=noise)


def synthesis(m, transform):
    """A Wᵀ as a matrix, columns for coefficients."""
    height, width = m.operator.image_shape
    units = torch.eye(height * width).view(-1, 1, height, width)
    return m.operator(transform.inverse(units, 0)).flatten(1).T.double().numpy()


@pytest.mark.parametrize(
    ("options", "transform"),
    [("size=16", dct(16)), ("transform=wavelet,wavelet=haar,levels=2", wavelet("haar", 2))],
)
@pytest.mark.parametrize("weight", [0.05, 0.005])
def test_lasso_reaches_the_objective_of_scikit_learn(options, transform, weight):
    m = small()
    a, y = synthesis(m, transform), m.y.flatten().double().numpy()
    reference = SklearnLasso(weight / len(y), fit_intercept=False, tol=1e-12, max_iter=10**6)
    code = reference.fit(a, y).coef_
    least = 0.5 * np.square(a @ code - y).sum() + weight * np.abs(code).sum()
    found = last(csrecon.load(f"lasso:weight={weight},tolerance=1e-4,{options}").steps(m))
    assert found.facts[OBJECTIVE] == pytest.approx(least, rel=1e-4)
    assert found.stopped == "relative duality gap below 0.0001"
    assert 0 <= found.facts[GAP] <= 1e-4 * found.facts[OBJECTIVE]


@pytest.mark.parametrize("name", ["ista", "fista"])
def test_ista_and_fista_end_where_lasso_does(name):
    m = small()
    options = "weight=0.02,size=16,iterations=1000"
    least = last(csrecon.load(f"lasso:{options},tolerance=1e-6").steps(m)).facts[OBJECTIVE]
    found = last(csrecon.load(f"{name}:{options},spin=false,continuation=0").steps(m))
    assert found.facts[OBJECTIVE] == pytest.approx(least, rel=1e-4)


def test_the_gap_bounds_what_is_left():
    """From far and near, with several planes and complex images; zero where the image is zero."""
    phased = (IMAGE * np.exp(1j * IMAGE)).astype(np.complex64)
    for m in (
        csrecon.sample(scene(20, 20), 0.5, block=10, color="rgb"),
        csrecon.sample(phased, 0.4, kind="fourier"),
    ):
        solver = csrecon.load(
            "lasso:weight=0.02,tolerance=1e-4,iterations=400,size=8,continuation=0"
        )
        steps = list(solver.steps(m))
        least = steps[-1].facts[OBJECTIVE]
        told = [step for step in steps if GAP in step.facts]
        assert len(told) > 1
        for step in told:
            assert step.facts[GAP] >= (step.facts[OBJECTIVE] - least) * (1 - 1e-6)
        assert told[-1].facts[GAP] < 1e-3 * least
        zero = torch.zeros_like(steps[-1].image)
        assert duality_gap(m, dct(8), zero, 100.0) == 0  # the minimum for so large a λ


def test_the_gap_is_primal_minus_dual():
    """By the definition, with a dual point found by trying multiples of the residual."""
    m = small()
    a, y = synthesis(m, dct(16)), m.y.flatten().double().numpy()
    x = torch.from_numpy(IMAGE[:12, :12].copy())[None, None]
    code = dct(16).forward(x, 0).flatten().double().numpy()
    r = y - a @ code
    primal = 0.5 * r @ r + 0.02 * np.abs(code).sum()
    most = 0.02 / np.abs(a.T @ r).max()
    scales = np.linspace(-most, most, 20001)
    dual = max(0.5 * y @ y - 0.5 * np.square(y - s * r).sum() for s in scales)
    assert duality_gap(m, dct(16), x, 0.02) == pytest.approx(primal - dual, rel=1e-4)


def test_lasso_has_a_fixed_grid():
    with pytest.raises(UsageError, match="leave out spin"):
        csrecon.load("lasso:spin=true")


# --- OMP ---


@pytest.mark.parametrize("sparsity", [1, 4, 12])
def test_omp_finds_the_support_of_scikit_learn(sparsity):
    draw = torch.Generator().manual_seed(sparsity)
    atoms = torch.randn(30, 70, generator=draw)
    atoms = atoms / atoms.norm(dim=0)
    y = torch.randn(5, 30, generator=draw)
    found = Support.of(atoms, y)
    for _ in range(sparsity):
        found.grow()
    code = found.code().numpy()
    expected = orthogonal_mp(atoms.numpy(), y.T.numpy(), n_nonzero_coefs=sparsity).T
    assert [set(np.flatnonzero(c)) for c in code] == [set(np.flatnonzero(c)) for c in expected]
    np.testing.assert_allclose(code, expected, atol=1e-4)
    np.testing.assert_allclose(found.residual, y - found.code() @ atoms.T, atol=1e-5)


def test_omp_recovers_what_is_sparse_in_its_dictionary(tmp_path):
    draw = np.random.default_rng(0)
    dictionary = draw.normal(size=(64, 90)).astype(np.float32)
    np.save(tmp_path / "d.npy", dictionary)
    code = np.zeros((4, 90), np.float32)
    for row in code:
        row[draw.choice(90, 3, replace=False)] = draw.uniform(0.5, 1, 3) * draw.choice([-1, 1], 3)
    blocks = code @ dictionary.T
    image = blocks.reshape(2, 2, 8, 8).swapaxes(1, 2).reshape(16, 16)
    image = (image - image.min()) / np.ptp(image)
    unit = csrecon.sample(image, 0.5, block=8)
    m = unit.__class__(unit.operator, unit.operator(torch.from_numpy(np.ascontiguousarray(
        blocks.reshape(2, 2, 8, 8).swapaxes(1, 2).reshape(1, 1, 16, 16)))))  # fmt: skip
    solver = Omp(dictionary=str(tmp_path / "d.npy"), sparsity=10, tolerance=1e-4)
    final = last(solver.steps(m))
    assert final.stopped == "no block above its tolerance"
    assert final.index == 3
    assert final.facts[RESIDUAL] < 1e-3
    whole = final.image.reshape(2, 8, 2, 8).swapaxes(1, 2).reshape(4, 64)
    np.testing.assert_allclose(whole, blocks, atol=1e-3)


def test_omp_stops_at_the_noise_and_at_its_sparsity():
    noisy = csrecon.sample(IMAGE, 0.5, block=16, noise_sigma=0.1)
    by_noise = list(csrecon.load("omp:sparsity=100").steps(noisy))
    assert by_noise[-1].stopped == "no block above its tolerance"
    rows = noisy.operator.m
    assert by_noise[-1].facts[RESIDUAL] <= 0.1 * np.sqrt(noisy.y.numel())
    told = list(csrecon.load("omp:sparsity=100,tolerance=0.2").steps(noisy))
    assert len(told) < len(by_noise)
    few = list(csrecon.load("omp:sparsity=3").steps(noisy))
    assert few[-1].stopped == "3 atoms"
    falling = [step.facts[RESIDUAL] for step in few]
    assert falling == sorted(falling, reverse=True)
    assert csrecon.load("omp:sparsity=1000").most(noisy) == rows


def test_omp_leaves_missing_blocks_at_zero():
    m = csrecon.sample(IMAGE, 0.5, block=16)
    present = torch.ones(m.operator.grid)
    present[0, 1] = 0
    operator = type(m.operator)(m.operator.phi, (40, 33), (16, 16), None, present)
    x = csrecon.load("omp")(type(m)(operator, operator.masked(m.y)))
    assert not x[..., :16, 16:32].any()
    assert x[..., :16, :16].any()


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((63, 80)), UsageError, r"blocks of 8×8 pixels need \(64, atoms\)"),
        (np.zeros((64, 8, 8)), InputError, "expected a finite real matrix"),
        (np.full((64, 8), np.nan), InputError, "expected a finite real matrix"),
        (np.zeros((64, 8), complex), InputError, "expected a finite real matrix"),
    ],
)
def test_dictionaries_that_do_not_fit(array, error, message, tmp_path):
    np.save(tmp_path / "d.npy", array)
    with pytest.raises(error, match=message):
        csrecon.load(f"omp:dictionary={tmp_path / 'd.npy'}")(csrecon.sample(IMAGE, 0.5, block=8))


def test_a_dictionary_is_identified_by_its_content(tmp_path):
    draw = np.random.default_rng(0)
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", draw.normal(size=(64, 70)))
    np.save(tmp_path / "c.npy", np.load(tmp_path / "a.npy"))
    a, b, c = (Omp(dictionary=str(tmp_path / f"{name}.npy")).identity() for name in "abc")
    assert a == c
    assert a != b


def test_omp_refuses_huge_blocks_and_missing_dictionaries():
    with pytest.raises(UsageError, match=r"4225 pixels.*at most 4096"):
        csrecon.load("omp")(csrecon.sample(scene(65, 65)[..., 0], m=9, block=65, kind="dct"))
    with pytest.raises(InputError):
        csrecon.load("omp:dictionary=nosuch.npy")


# --- Total variation ---


@pytest.mark.parametrize("weight", [0.1, 0.02])
@pytest.mark.parametrize("name", ["tv", "tval3"])
def test_total_variation_reaches_the_objective_of_scikit_image(name, weight):
    noisy = csrecon.sample(IMAGE[:24, :20], kind="identity", noise_sigma=0.1)
    v = noisy.y[0, 0].double().numpy()
    x = denoise_tv_chambolle(v, weight, eps=1e-12, max_num_iter=4000)
    least = 0.5 * np.square(x - v).sum()
    least += weight * total_variation(torch.from_numpy(x)[None, None])
    options = f"weight={weight},iterations=1000,continuation=20"
    found = last(csrecon.load(f"{name}:{options}").steps(noisy))
    assert found.facts[OBJECTIVE] == pytest.approx(least, rel=1e-4)


def test_both_total_variations_agree_on_blocks():
    m = csrecon.sample(IMAGE, 0.3, block=16)
    options = "weight=0.02,iterations=500,continuation=50"
    a, b = (last(csrecon.load(f"{name}:{options}").steps(m)) for name in ("tv", "tval3"))
    assert a.facts[OBJECTIVE] == pytest.approx(b.facts[OBJECTIVE], rel=1e-3)


def test_shrinkage_is_the_prox_of_the_length():
    p = torch.randn(1, 2, 5, 6, dtype=torch.float64)
    found = shrink(p, 0.7)
    assert bool((lengths(found)[lengths(p) < 0.7] == 0).all())

    def cost(q):
        return 0.5 * (q - p).square().sum() + 0.7 * lengths(q).sum()

    for _ in range(50):
        assert cost(found) <= cost(found + 0.01 * torch.randn_like(p))
