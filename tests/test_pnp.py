"""Plug-and-play and D-AMP: what they compute for denoisers whose answer is known, and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import csrecon
from csrecon import zoo
from csrecon.errors import CheckError, ModelError, UsageError
from csrecon.reconstructors.solvers import damp
from csrecon.reconstructors.solvers.damp import Damp
from csrecon.reconstructors.solvers.denoise import SIGMA
from csrecon.reconstructors.solvers.frame import STRENGTH
from csrecon.reconstructors.solvers.pnp import PlugAndPlay, fitted
from csrecon.reconstructors.solvers.proximal import falling, proximal_gradient
from csrecon.reconstructors.starts import MarkovStart
from csrecon.sensing.operators.base import Scaled
from csrecon.sensing.operators.transforms import dct_basis
from tests.checks import check_reconstructor
from tests.test_denoisers import photo
from tests.test_solvers import KINDS, measured

TV, WAVELET = zoo.denoiser("tv:iterations=10"), zoo.denoiser("wavelet")


def dct(v, sigma):
    """A proximal operator: it moves every coefficient of the DCT by at most σ."""
    rows, columns = (torch.from_numpy(dct_basis(side)).to(v) for side in v.shape[-2:])
    code = rows @ v @ columns.T
    return rows.T @ (code.sign() * (code.abs() - sigma).relu()) @ columns


def psnr(x):
    return -10 * np.log10(np.mean((np.clip(x, 0, 1) - photo()) ** 2))


def begun(m):
    return psnr(MarkovStart()(m)[0][0, 0].numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["pg", "hqs", "admm"])
def test_pnp_keeps_the_contract(method, kind):
    check_reconstructor(PlugAndPlay(TV, method, iterations=4), measured(kind))


@pytest.mark.parametrize("kind", ["block", "own-phi"])
def test_damp_keeps_the_contract(kind):
    check_reconstructor(Damp(TV, iterations=4), measured(kind))


@pytest.mark.parametrize("method", ["pg", "hqs"])
def test_with_a_proximal_operator_pnp_is_proximal_gradient_descent(method):
    m = csrecon.sample(photo(), 0.3, block=16)
    solver = PlugAndPlay(dct, method, iterations=8, first=0.1, last=0.01)
    start = MarkovStart()(m)[0]
    expected = proximal_gradient(
        m, lambda v, s: (dct(v, s), None), falling(0.1, 0.01, 8), method == "pg", start
    )
    for step, made in zip(solver.steps(m), expected, strict=True):
        torch.testing.assert_close(step.image, m.consistent(made.image), atol=1e-5, rtol=0)
        assert step.facts[STRENGTH] == pytest.approx(made.facts[STRENGTH])


@pytest.mark.parametrize("method", ["pg", "hqs", "admm"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_pnp_improves_on_its_start(method, noise):
    m = csrecon.sample(photo(), 0.3, block=16, noise_sigma=noise)
    model = f"pnp:with=wavelet,method={method}"
    x = csrecon.reconstruct(m, model, device="cpu")
    assert psnr(x) > begun(m) + (0.8 if noise else 1.2)


def test_a_warm_start_is_used():
    m = csrecon.sample(photo(), 0.3, block=16)
    exact = torch.from_numpy(photo())[None, None]
    solver = PlugAndPlay(TV, iterations=1, first=0.01, last=0.01)
    (near,) = solver.steps(m, start=exact)
    (far,) = solver.steps(m)
    assert (near.image - exact).abs().mean() < 0.5 * (far.image - exact).abs().mean()


@pytest.mark.parametrize("mu", [0.0, 0.3])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_data_step_solves_its_problem(mu, scale):
    m = csrecon.sample(photo()[:12, :12], 0.4, block=6)
    if scale != 1:
        m = replace(m, operator=Scaled(m.operator, scale), y=scale * m.y)
    draw = torch.Generator().manual_seed(0)
    w = torch.randn(1, 1, 12, 12, generator=draw)
    basis = torch.eye(144).view(144, 1, 12, 12)
    a = m.operator(basis).flatten(1).T
    shared = a @ a.T + mu * torch.eye(len(a))
    off = m.y.flatten() - a @ w.flatten()
    expected = w.flatten() + a.T @ torch.linalg.solve(shared, off)
    torch.testing.assert_close(fitted(m, w, mu).flatten(), expected, atol=2e-3, rtol=0)


def test_the_denoiser_is_bounded():
    """Even one that returns zeros moves the image by σ only."""
    m = csrecon.sample(photo(), 0.3, block=16)
    solver = PlugAndPlay(
        lambda v, _: torch.zeros_like(v), "hqs", iterations=3, first=0.02, last=0.02
    )
    (first, *_) = solver.steps(m)
    start = MarkovStart()(m)[0]
    assert float((first.image - start).square().mean().sqrt()) <= 0.02 * 1.01


@pytest.mark.parametrize("method", ["pg", "hqs", "admm"])
def test_it_stops_where_the_iterates_rest(method):
    m = csrecon.sample(photo(), 0.5, block=16)
    fixed = PlugAndPlay(dct, method, iterations=300, first=0.005, last=0.005, tolerance=3e-4)
    *_, last = fixed.steps(m)
    assert 3 < last.index < 300
    assert last.stopped == "relative change below 0.0003"
    falling_ = replace(fixed, iterations=5, first=0.1, tolerance=0.9)
    assert [step.stopped for step in falling_.steps(m)] == ["", "", "", "", "iterations"]


def test_noise_is_not_fitted():
    noisy = csrecon.sample(photo(), 0.3, block=16, noise_sigma=0.05)
    *_, last = PlugAndPlay(TV, iterations=5).steps(noisy)
    assert last.facts[STRENGTH] == pytest.approx(0.05)


def test_damp_knows_its_noise():
    """With one block the noise of what is denoised is what the solver says, white, and falls."""
    x = torch.from_numpy(photo()[:64, :64])[None, None]
    m = csrecon.sample(photo()[:64, :64], 0.4, block=64)
    seen = []

    def recording(v, sigma):
        if not seen or not torch.equal(seen[-1], v[0] - x[0]):  # several levels of one image
            seen.append(v[0] - x[0])
        return WAVELET(v, sigma)

    said = [step.facts[SIGMA] for step in Damp(recording, iterations=6).steps(m)]
    true = [float(off.square().mean().sqrt()) for off in seen]
    np.testing.assert_allclose(true, said, rtol=0.1)
    assert true[-1] < 0.5 * true[0]
    for sigma, off in zip(said, seen, strict=True):
        neighbours = float((off[..., 1:] * off[..., :-1]).mean())
        assert abs(neighbours) < 0.1 * sigma**2


def test_damp_finds_the_image_whatever_its_probes():
    m = csrecon.sample(photo(), 0.4, block=16)
    found = [csrecon.reconstruct(m, f"damp:with=wavelet,seed={s}", device="cpu") for s in (0, 1)]
    assert min(map(psnr, found)) > begun(m) + 1
    assert not np.array_equal(*found)
    assert abs(psnr(found[0]) - psnr(found[1])) < 0.5


def test_damp_corrects_a_denoiser_that_smooths_too_much(monkeypatch):
    m = csrecon.sample(photo(), 0.4, block=16)

    def eager(v, sigma):
        return TV(v, 1.5 * sigma)

    def found():
        return psnr(csrecon.reconstruct(m, Damp(eager, iterations=6), device="cpu"))

    chosen = found()
    monkeypatch.setattr(damp, "_FACTORS", (1.0,))
    assert chosen > found() + 0.3


def test_damp_stops_where_its_noise_no_longer_falls():
    m = csrecon.sample(photo(), 0.4, block=16)
    steps = list(Damp(WAVELET, iterations=50).steps(m))
    assert 4 < len(steps) < 50
    assert steps[-1].stopped == "σ no longer falls"
    levels = [step.facts[SIGMA] for step in steps]
    assert levels[-1] < 0.7 * levels[0]


def test_pnp_whose_residual_grows_for_a_while_goes_on():
    """While σ falls only an image that fits y worse than zeros do is divergence."""
    m = csrecon.sample(photo(), 0.3, block=16)

    def blurring(v, sigma):
        return v.mean(dim=(2, 3), keepdim=True) if 0.02 < sigma < 0.06 else v

    falling_ = PlugAndPlay(blurring, "hqs", iterations=6, first=0.1, last=0.01)
    residuals = [step.facts["residual"] for step in falling_.steps(m)]
    assert len(residuals) == 6
    assert max(residuals) > 100 * residuals[0]
    raised = PlugAndPlay(lambda v, _: 2 * v.roll(1, -1), "hqs", iterations=12, first=9, last=8)
    with pytest.raises(CheckError, match="diverged"):
        list(raised.steps(m))


def test_damp_of_planes_is_damp_of_each():
    m = csrecon.sample(np.dstack([photo(), photo()[::-1], photo()[:, ::-1]]), 0.3, block=16)
    for iterations, largest in ((1, 1e-6), (3, 0.02)):  # later ones depend on the probes
        solver = Damp(WAVELET, iterations=iterations)
        x = torch.cat([solver(replace(m, y=plane[None])) for plane in m.y])
        assert (solver(m) - x).abs().mean() < largest


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("damp:with=tv", "damp: needs block sampling"),
        ("denoise:with=tv", "use pnp"),
    ],
)
def test_operators_that_cannot_be(model, message):
    with pytest.raises(UsageError, match=message):
        csrecon.reconstruct(csrecon.sample(photo(), 0.3, kind="fourier"), model)


def test_damp_has_no_warm_start():
    m = csrecon.sample(photo(), 0.4, block=16)
    with pytest.raises(UsageError, match="no warm start"):
        next(Damp(TV).steps(m, start=torch.zeros(1, 1, *photo().shape)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pnp:method=pgd", "method='pgd'"),
        ("pnp:first=0", "first='0'"),
        ("pnp:iterations=0", "iterations='0'"),
        ("damp:seed=-1", "seed='-1'"),
        ("damp:with=bm3d", "unknown denoiser 'bm3d'"),
    ],
)
def test_options_that_cannot_be(name, message):
    with pytest.raises(UsageError, match=message):
        csrecon.load(name)


def test_identities():
    assert zoo.identity(csrecon.load("damp:with=nlm,iterations=3")) == {
        "solver": "damp",
        "iterations": 3,
        "seed": 0,
        "levels": [1.5, 8],
        "factors": [1.0, 0.8, 0.65],
        "with": {"denoiser": "nlm", "patch": 5, "distance": 7, "decay": 0.6},
    }
    with_own = PlugAndPlay(dct)
    with pytest.raises(ModelError, match="no name in the zoo"):
        zoo.identity(with_own)
