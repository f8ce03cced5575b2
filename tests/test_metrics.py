"""PSNR and SSIM agree with scikit-image; the protocols differ where they say."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from csrecon.errors import InputError
from csrecon.io import images
from csrecon.metrics import psnr, score, ssim


def pair(shape=(37, 52)):
    draw = np.random.Generator(np.random.PCG64(0))
    reference = draw.uniform(size=shape)
    return np.clip(reference + draw.normal(scale=0.1, size=shape), 0, 1), reference


@pytest.mark.parametrize("shape", [(7, 7), (37, 52), (64, 8)])
def test_against_scikit_image(shape):
    image, reference = pair(shape)
    x, y = torch.from_numpy(image)[None, None], torch.from_numpy(reference)[None, None]
    expected = structural_similarity(255 * image, 255 * reference, data_range=255)
    assert float(ssim(x, y)) == pytest.approx(expected, abs=1e-9)
    expected = peak_signal_noise_ratio(255 * reference, 255 * image, data_range=255)
    assert float(psnr(x, y)) == pytest.approx(expected, abs=1e-9)


def test_one_value_per_image():
    x = torch.rand(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    y = x + torch.tensor([0.1, 0.01, 0.001])[:, None, None, None]
    assert psnr(x, y).tolist() == pytest.approx([20, 40, 60], abs=1e-2)
    assert ssim(x, y).shape == (3,)


def test_equal_images():
    x = torch.rand(1, 1, 8, 8)
    assert math.isinf(float(psnr(x, x)))
    assert float(ssim(x, x)) == pytest.approx(1)


def test_paper_protocol_clips_and_does_not_round():
    reference = torch.full((1, 1, 8, 8), 1.0)
    assert math.isinf(score(torch.full((1, 1, 8, 8), 1.7), reference).psnr)
    almost = torch.full((1, 1, 8, 8), 1 - 0.4 / 255)
    assert score(almost, reference).psnr == pytest.approx(20 * math.log10(255 / 0.4), abs=1e-3)
    assert math.isinf(score(almost, reference, "standard").psnr)


def test_small_images_have_no_ssim():
    x = torch.rand(1, 1, 6, 50)
    assert math.isnan(score(x, x / 2).ssim)
    with pytest.raises(InputError, match="7×7"):
        ssim(x, x)


def test_shapes_must_agree():
    with pytest.raises(InputError, match="compare"):
        psnr(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 9))


def test_bands_change_nothing(monkeypatch):
    a, b = torch.rand(2, 3, 40, 23), torch.rand(2, 3, 40, 23)
    whole = psnr(a, b), ssim(a, b)
    for pixels in (1, 500, 1400):
        monkeypatch.setattr(images, "_BAND", pixels)
        torch.testing.assert_close(psnr(a, b), whole[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(ssim(a, b), whole[1], rtol=1e-12, atol=0)
