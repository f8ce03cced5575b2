"""Denoisers: their contract, alone and by name, and `denoise` on identity measurements."""

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image
from typer.testing import CliRunner

import csrecon
from csrecon import zoo
from csrecon.cli import parse
from csrecon.cli.app import app
from csrecon.errors import ModelError, UsageError
from csrecon.reconstructors.denoisers import DENOISERS
from csrecon.reconstructors.nets.frcoast import FrcoastBlock
from csrecon.reconstructors.solvers.denoise import Denoise
from csrecon.sensing.noise import estimated_sigma
from csrecon.zoo import cards, store, weights_file
from tests.checks import check_reconstructor
from tests.conftest import ROOT, scene

LEVELS = (0.05, 0.1, 0.3)


@cache
def photo():
    """A part of a photo, (64, 80) in [0, 1]."""
    with cbook.get_sample_data("grace_hopper.jpg") as stream:
        pixels = np.asarray(Image.open(stream).convert("L").reduce(3))
    return pixels[20:84, 60:140].astype(np.float32) / 255


def noisy(sigma, count=1, channels=1):
    """The photo and noisy copies of it, (count, channels, H, W)."""
    x = torch.from_numpy(photo()).expand(count, channels, -1, -1)
    draw = torch.Generator().manual_seed(1)
    return x, x + sigma * torch.randn(x.shape, generator=draw)


def error(a, b):
    return float((a - b).square().mean().sqrt())


@pytest.fixture(params=DENOISERS)
def denoiser(request):
    return zoo.denoiser(request.param)


@pytest.mark.parametrize("channels", [1, 2])
def test_shape_type_and_determinism(denoiser, channels):
    _, v = noisy(0.1, 2, channels)
    before = v.clone()
    found = denoiser(v, 0.1)
    assert found.shape == v.shape
    assert found.dtype == v.dtype
    assert torch.isfinite(found).all()
    assert torch.equal(found, denoiser(v, 0.1))
    assert torch.equal(v, before)


def test_a_batch_is_its_images_one_by_one(denoiser):
    _, v = noisy(0.1, 3)
    single = torch.cat([denoiser(image[None], 0.1) for image in v])
    torch.testing.assert_close(denoiser(v, 0.1), single, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", LEVELS)
def test_noise_becomes_less_at_every_level(denoiser, sigma):
    x, v = noisy(sigma)
    assert error(denoiser(v, sigma), x) < 0.85 * error(v, x)


def test_without_noise_nothing_changes(denoiser):
    x, _ = noisy(0.1)
    assert torch.equal(denoiser(x, 0.0), x)
    assert error(denoiser(x, 1e-3), x) < 2e-3


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (33, 18)])
def test_small_images(denoiser, shape):
    v = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    found = denoiser(v, 0.2)
    assert found.shape == v.shape
    assert torch.isfinite(found).all()


def test_a_constant_image_stays(denoiser):
    v = torch.full((1, 1, 32, 32), 0.3)
    torch.testing.assert_close(denoiser(v, 0.1), v, atol=1e-5, rtol=0)


@pytest.fixture
def network(tmp_path):
    """The path of rdenoise with random weights."""
    path = tmp_path / "mine.safetensors"
    card = cards.card("rdenoise")
    torch.manual_seed(0)
    weights_file.save(card.build(), card.blueprint(), path)
    return path


def test_a_network_is_conditioned_on_sigma(network):
    found = zoo.denoiser(str(network))
    _, v = noisy(0.1, 2)
    assert found(v, 0.1).shape == v.shape
    assert not torch.equal(found(v, 0.05), found(v, 0.1))
    assert torch.equal(found(v, 0.0), v)
    half = 0.5 + (v - 0.5) / 2  # the largest trained σ is 0.2: more noise is scaled down to it
    torch.testing.assert_close(found(v, 0.4), 0.5 + 2 * (found(half, 0.2) - 0.5))
    m = csrecon.sample(photo(), kind="identity", noise_sigma=0.1)
    alone = csrecon.reconstruct(m, network, device="cpu", precision="fp32")
    used = csrecon.reconstruct(m, f"denoise:with={network}", device="cpu", precision="fp32")
    np.testing.assert_allclose(used, alone, atol=1e-5)
    with pytest.raises(UsageError, match=r"1 channel\(s\)"):
        found(noisy(0.1, 1, 2)[1], 0.1)


def test_a_network_is_applied_in_tiles(network, monkeypatch):
    m = csrecon.sample(np.tile(photo(), (2, 2)), kind="identity", noise_sigma=0.1)
    model = f"denoise:with={network}"
    whole, tiled = (
        csrecon.reconstruct(m, model, device="cpu", precision="fp32", tile=tile)
        for tile in ("off", 64)
    )
    np.testing.assert_allclose(whole, tiled, atol=2e-5)
    largest = []
    original = FrcoastBlock.prox

    def watched(self, state, gradient, gain):
        largest.append(max(state.image.shape[-2:]))
        return original(self, state, gradient, gain)

    monkeypatch.setattr(FrcoastBlock, "prox", watched)
    csrecon.reconstruct(m, model, device="cpu", precision="fp32", tile=64)
    assert max(largest) < 160


def test_options_by_name():
    found = csrecon.load("denoise:with=nlm:patch=7:decay=0.5, sigma=0.2")
    assert found == Denoise(DENOISERS["nlm"](patch=7, decay=0.5), 0.2)
    assert csrecon.load("denoise") == Denoise(zoo.denoiser("tv"))
    assert zoo.identity(found) == {
        "solver": "denoise",
        "with": {"denoiser": "nlm", "patch": 7, "distance": 7, "decay": 0.5},
        "sigma": 0.2,
    }


def test_a_denoiser_has_iterations_per_layer_of_its_own(monkeypatch, network):
    assert parse.model_at("pnp:with=rdenoise@4") == ("pnp:with=rdenoise@4", None)
    assert parse.model_at("rdenoise@4") == ("rdenoise", 4)
    monkeypatch.setattr(store, "weights_path", lambda *_: network)
    found = csrecon.load("denoise:with=rdenoise@3")
    assert found.with_.network.schedule.counts == (3,)
    assert zoo.identity(found)["with"]["ipl"] == "3"
    for name, message in {"@x": "rdenoise@IPL", "@9": r"1\.\.8", "@0": "0"}.items():
        with pytest.raises(UsageError, match=message):
            csrecon.load(f"denoise:with=rdenoise{name}")


def test_a_weights_file_has_iterations_per_layer_too(network):
    found = csrecon.load(f"denoise:with={network}@3").with_.network
    assert found.schedule.counts == csrecon.load(f"{network}@3").schedule.counts == (3,)
    assert csrecon.load(str(network)).schedule.counts == (8,)
    for text, message in {"@x": r"mine.safetensors@IPL", "@9": r"1\.\.8", "@0": "0"}.items():
        with pytest.raises(UsageError, match=message):
            csrecon.load(f"denoise:with={network}{text}")
    assert csrecon.load("rcoast@2").schedule.counts == (2,) * 5
    with pytest.raises(UsageError, match="no layers"):
        csrecon.load("tv@2")
    for text in ("rcoast@x", "rcoast@"):
        with pytest.raises(UsageError, match="expected rcoast@IPL, as rcoast@4"):
            csrecon.load(text)
    odd = network.with_name("a@b.safetensors")
    network.rename(odd)
    assert csrecon.load(f"{odd}@2").schedule.counts == (2,)
    assert csrecon.load(str(odd)).schedule.counts == (8,)


def test_the_identity_of_a_network_is_that_of_its_weights(network):
    alone = zoo.identity(csrecon.load(network))
    used = zoo.identity(csrecon.load(f"denoise:with={network}"))["with"]
    assert used == {**alone, "ipl": "8"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("denoise:with=nml", "unknown denoiser 'nml': did you mean 'nlm'"),
        ("denoise:with=fista", "unknown denoiser 'fista'"),
        ("denoise:with=nlm:patc=5", "denoiser 'nlm' has no option 'patc': did you mean 'patch'"),
        ("denoise:with=nlm:patch", "'patch' is no option; expected NAME:option=value"),
        ("denoise:with=nlm:patch=0", "patch='0'"),
        ("denoise:with=wavelet:wavelet=db99", "wavelet='db99'"),
        ("denoise:with=tv,sigma=-1", "sigma='-1'"),
        ("denoise:with=tv,sigma=nan", "sigma='nan'"),
        ("denoise:with_=tv", "no option 'with_': did you mean 'with'"),
        ("denoise:iterations=3", "no option 'iterations'"),
        ("tv:with=nlm", "no option 'with'"),
    ],
)
def test_options_that_cannot_be(name, message):
    with pytest.raises(UsageError, match=message):
        csrecon.load(name)


def test_models_that_are_no_denoisers():
    with pytest.raises(ModelError, match="'rcoast': this network was trained for compressive"):
        csrecon.load("denoise:with=rcoast")


@pytest.mark.parametrize("model", ["denoise:with=wavelet", "denoise:with=nlm", "denoise"])
def test_denoise_keeps_the_contract_of_reconstructors(model):
    m = csrecon.sample(photo(), kind="identity", noise_sigma=0.1)
    check_reconstructor(csrecon.load(model), m)
    x = csrecon.reconstruct(m, model, device="cpu")
    assert np.square(x - photo()).mean() < 0.4 * 0.1**2


def test_denoise_of_a_complex_image():
    phased = (photo() * np.exp(0.5j)).astype(np.complex64)
    m = csrecon.sample(phased, kind="identity", noise_sigma=0.1)
    x = csrecon.reconstruct(m, "denoise:with=wavelet", device="cpu")
    assert np.square(np.abs(x - phased)).mean() < 0.5 * np.square(np.abs(m.y.numpy())).mean()
    assert x.dtype == np.complex64


def test_denoise_of_another_operator():
    with pytest.raises(UsageError, match="made by BlockOperator; expected the identity"):
        csrecon.reconstruct(csrecon.sample(photo(), 0.3), "denoise")


def test_noise_is_estimated():
    x, _ = noisy(0.1)
    for sigma in (0.1, 0.2, 0.3):
        assert estimated_sigma(noisy(sigma)[1]) == pytest.approx(sigma, rel=0.15)
    assert estimated_sigma(x) < 0.05
    assert estimated_sigma(torch.rand(1, 1, 1, 9)) == 0
    known = csrecon.sample(photo(), kind="identity", noise_sigma=0.1)
    unknown = csrecon.sample(np.clip(known.y[0, 0].numpy(), 0, 1), kind="identity")
    told = csrecon.reconstruct(unknown, "denoise:sigma=0.1", device="cpu")
    guessed = csrecon.reconstruct(unknown, "denoise", device="cpu")
    assert np.abs(told - guessed).mean() < 0.01
    assert np.abs(guessed - unknown.y[0, 0].numpy()).mean() > 0.03
    tv = Denoise(zoo.denoiser("tv"))
    both = replace(unknown, y=torch.cat([unknown.y, x]))  # every plane has its own noise
    torch.testing.assert_close(tv(both), torch.cat([tv(unknown), tv(replace(unknown, y=x))]))


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


def test_an_image_file_is_denoised_in_its_colours(tmp_path):
    draw = np.random.Generator(np.random.PCG64(0))
    for name, clean in (("gray", scene(64, 64)[..., 0]), ("rgb", scene(64, 64))):
        dirty = np.clip(clean + draw.normal(0, 20, clean.shape), 0, 255).astype(np.uint8)
        Image.fromarray(clean).save(tmp_path / f"{name}_clean.png")
        Image.fromarray(dirty).save(tmp_path / f"{name}.png")
        run("reconstruct", f"{name}.png", "--model", "denoise:with=wavelet")
        with Image.open(tmp_path / f"{name}_denoised.png") as image:
            found = np.asarray(image).astype(float)
        assert found.shape == clean.shape
        assert np.abs(found - clean).mean() < 0.6 * np.abs(dirty.astype(float) - clean).mean()
    run("reconstruct", "gray.png", "--model", "tv", code=2)


def test_a_measurement_file_is_denoised(tmp_path):
    Image.fromarray(scene(40, 50)[..., 0]).save(tmp_path / "img.png")
    run("sample", "img.png", "--kind", "identity", "--noise-sigma", 0.1)
    result = run("reconstruct", "y.npy", "--model", "denoise:with=nlm", "--ref", "img.png")
    assert "PSNR" in result.stdout
    run("sample", "img.png", "--ratio", 0.3, "-o", "block.npy")
    result = run("reconstruct", "block.npy", "--model", "denoise", code=2)


def test_python_of_the_page():
    page = (ROOT / "docs" / "denoisers.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"image": photo(), "planes": noisy(0.1, 2)[1]}
    exec(example, names)
    assert names["wavelet"] == names["same"]
    assert names["smooth"].shape == names["planes"].shape
    assert names["x"].shape == photo().shape
