"""Noise on y has the strength that was asked for, is remembered, and is not believed."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import UsageError
from csrecon.sensing import native
from csrecon.sensing.noise import Noise
from tests.conftest import scene

IMAGE = scene(99, 132)[..., 0]


def test_gaussian_noise_has_its_sigma_and_its_seed():
    clean = csrecon.sample(IMAGE, 0.3)
    noisy = csrecon.sample(IMAGE, 0.3, noise_sigma=0.05)
    assert noisy.noise == pytest.approx(0.05)
    assert float((noisy.y - clean.y).std()) == pytest.approx(0.05, rel=0.05)
    assert torch.equal(noisy.y, csrecon.sample(IMAGE, 0.3, noise_sigma=0.05).y)
    other = Noise(0.05).added(clean, torch.from_numpy(IMAGE / 255.0)[None, None].float(), seed=1)
    assert not torch.equal(noisy.y, other.y)


def test_every_image_has_noise_of_its_own():
    """Equal noise on all images would be a pattern that a method could learn, or average out."""
    other = IMAGE.copy()
    other[0, 0] ^= 1
    for kind in ("gaussian", "fourier", "identity"):
        ratio = None if kind == "identity" else 0.3

        def noise_on(image, kind=kind, ratio=ratio, **said):
            clean = csrecon.sample(image, ratio, kind=kind, **said)
            return csrecon.sample(image, ratio, kind=kind, noise_sigma=0.05, **said).y - clean.y

        first, second = noise_on(IMAGE), noise_on(other)
        assert torch.equal(first, noise_on(IMAGE.copy()))
        correlation = torch.corrcoef(torch.stack([first.ravel(), second.ravel()]))[0, 1]
        assert abs(float(correlation)) < 0.1
        if kind != "identity":
            assert not torch.equal(first, noise_on(IMAGE, seed=1))


@pytest.mark.parametrize("kind", ["binary", "gaussian", "hadamard"])
def test_photons_arrive_as_poisson_has_it(kind):
    clean = csrecon.sample(IMAGE, 0.3, kind=kind)
    noisy = csrecon.sample(IMAGE, 0.3, kind=kind, photons=1e4)
    off = (noisy.y - clean.y).double()
    assert abs(float(off.mean())) < 4 * noisy.noise / np.sqrt(off.numel())
    assert float(off.std()) == pytest.approx(noisy.noise, rel=0.1)
    quieter = csrecon.sample(IMAGE, 0.3, kind=kind, photons=1e8)
    assert quieter.noise == pytest.approx(noisy.noise / 100)
    if kind == "binary":  # a value of v is v photons' worth: counts of whole photons
        counts = 1e4 * noisy.y.double()
        assert float((counts - counts.round()).abs().max()) < 1


@pytest.mark.parametrize("said", [{"noise_sigma": -1}, {"photons": 0}, {"photons": float("nan")}])
def test_noise_that_cannot_be(said):
    with pytest.raises(UsageError, match="expected a"):
        csrecon.sample(IMAGE, 0.3, **said)


def test_photons_of_the_identity_are_those_of_the_pixels():
    noisy = csrecon.sample(IMAGE, kind="identity", photons=1e4)
    counts = 1e4 * noisy.y.double()
    assert float((counts - counts.round()).abs().max()) < 1e-2
    assert noisy.noise == pytest.approx(np.sqrt((IMAGE / 255).mean() / 1e4), rel=1e-3)
    with pytest.raises(UsageError, match="counts no photons"):
        csrecon.sample(IMAGE, 0.3, kind="fourier", photons=1e4)


def test_noise_is_remembered_in_the_file(tmp_path):
    noisy = csrecon.sample(IMAGE, 0.3, noise_sigma=0.05)
    native.save(noisy, tmp_path / "y.npy")
    assert native.load(tmp_path / "y.npy").noise == pytest.approx(0.05)
    assert '"sigma": 0.05' in (tmp_path / "y.json").read_text()
    native.save(csrecon.sample(IMAGE, 0.3), tmp_path / "clean.npy")
    text = (tmp_path / "clean.json").read_text()
    assert '"noise": null' in text
    assert '"missing": []' in text
    assert native.load(tmp_path / "clean.npy").noise == 0


def test_data_are_believed_as_far_as_their_noise_allows():
    clean = csrecon.sample(scene(99, 132)[..., 0], 0.5)
    x = clean.operator.adjoint(clean.y)
    truth = torch.from_numpy(IMAGE / 255.0).float()[None, None]
    # Where the image is as wrong as y, half of the step is best, and better than all or nothing.
    for sigma, most in ((0.01, 1.05), (0.05, 0.85), (0.3, 1.05)):
        noisy = Noise(sigma).added(clean, truth, seed=0)
        guess = truth + 0.05 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
        after = (noisy.consistent(guess) - truth).square().mean()
        full = (guess - noisy.gradient(guess) - truth).square().mean()
        before = (guess - truth).square().mean()
        assert after < most * min(before, full)
    torch.testing.assert_close(clean.consistent(x), x - clean.gradient(x))


def test_normalizing_scales_the_noise():
    m = csrecon.sample(IMAGE, phi=3 * csrecon.sample(IMAGE, 0.3).operator.phi.matrix)
    noisy = Noise(0.06).added(m, torch.from_numpy(IMAGE / 255.0).float()[None, None], seed=0)
    assert noisy.normalized().noise == pytest.approx(0.02)
