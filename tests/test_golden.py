"""Every bundled weights file gives the image that it gave when it was released.

The values in golden.npz come from the release that bundled the weights, `PYTHONPATH=<its src>
python -m tests.test_golden`, so this module asks nothing of csrecon but what both have. They are
computed in float64 from values that no rounding touches (a Hadamard Φ). A denoiser is measured by
the identity, with noise of ±σ, and σ takes the place of the ratio; a network for MRI by a radial
mask of k-space.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard

import csrecon
from csrecon.zoo import cards
from tests.conftest import ROOT

GOLDEN = Path(__file__).with_name("golden.npz")
RATIOS = (0.1, 0.3)
BUNDLED = sorted(p.stem for p in (ROOT / "src/csrecon/zoo/bundled").glob("*.safetensors"))


def picture():
    """The image of csrecon.evaluation.selftest.scene: smooth, with one edge."""
    row, column = np.mgrid[:50, :70].astype(np.float64)
    waves = 0.5 + 0.25 * np.sin(row / 5) * np.cos(column / 7)
    return np.asarray(waves + 0.2 * (row + column > 60), dtype=np.float32)


def measured(name, ratio):
    """Scrambled Hadamard rows of blocks of 32×32 pixels, ±1/32 each: exact in float32."""
    if cards.card(name).task == "denoising":
        m = csrecon.sample(picture(), kind="identity")
        signs = np.random.PCG64(0).random_raw(picture().size) >> np.uint64(63)
        noise = np.where(signs, ratio, -ratio).reshape(picture().shape)
        return replace(m, y=m.y + torch.from_numpy(noise).float(), noise=ratio)
    if cards.card(name).task == "mri":
        return csrecon.sample(picture(), ratio, kind="fourier", mask="radial")
    raw = np.random.PCG64(0).random_raw(2048)
    kept = np.argsort(raw[:1024])[: round(1024 * ratio)]
    signs = np.where(raw[1024:] >> np.uint64(63), 1, -1)
    return csrecon.sample(picture(), phi=hadamard(1024)[kept] * signs / np.float32(32))


def in_float64(name, ratio):
    m = measured(name, ratio)
    m = replace(m, operator=m.operator.double(), y=m.y.double())
    if not m.noise:
        m = replace(m, y=m.operator(torch.from_numpy(picture())[None, None].double()))
    with torch.inference_mode():
        return csrecon.load(name).double()(m)[0, 0].numpy()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as stored:
        return dict(stored)


def test_every_bundled_file_has_golden_images(golden):
    assert BUNDLED
    assert sorted(golden) == sorted(f"{name}@{ratio}" for name in BUNDLED for ratio in RATIOS)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", BUNDLED)
def test_nothing_moved(golden, name, ratio):
    expected = golden[f"{name}@{ratio}"]
    assert expected.dtype == np.float32
    assert expected.shape == (50, 70)
    np.testing.assert_allclose(in_float64(name, ratio), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", BUNDLED)
def test_float32_gives_the_same(golden, name, ratio):
    image = csrecon.reconstruct(measured(name, ratio), name, None, "cpu", precision="fp32")
    off = np.abs(image - golden[f"{name}@{ratio}"])
    assert off.max() <= 1e-3


def write():
    images = {
        f"{name}@{ratio}": in_float64(name, ratio).astype(np.float32)
        for name in BUNDLED
        for ratio in RATIOS
    }
    np.savez_compressed(GOLDEN, **images)
    sys.stdout.write(f"{len(images)} images by {csrecon.__file__} in {GOLDEN}\n")


if __name__ == "__main__":
    write()
