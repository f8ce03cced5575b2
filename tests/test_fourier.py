"""Fourier sampling: a unitary FFT and a mask, for real and complex images."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.sensing import native
from csrecon.sensing.native import Given
from csrecon.sensing.operators import FourierOperator, SamplingOptions, make_operator
from csrecon.sensing.operators.masks import MASKS
from tests.checks import check_operator
from tests.conftest import scene

SHAPES = [(1, 1), (33, 33), (34, 65)]
GRAY = scene(48, 40)[..., 0].astype(np.float32) / 255


def complex_image(height=48, width=40):
    """A magnitude in [0, 1] with a phase that varies slowly."""
    row, column = np.mgrid[:height, :width]
    magnitude = scene(height, width)[..., 0] / 255
    return (magnitude * np.exp(1j * (row / 20 - column / 25))).astype(np.complex64)


def own_mask(shape, share=0.4):
    mask = np.random.Generator(np.random.PCG64(9)).random(shape) < share
    mask[0, 0] = True
    return mask


def operator_of(kind, shape, channels=1, seed=0):
    if kind == "given":
        return make_operator((channels, *shape), SamplingOptions("fourier", mask=own_mask(shape)))
    options = SamplingOptions("fourier", ratio=0.3, mask=kind, seed=seed)
    return make_operator((channels, *shape), options)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", [*MASKS, "given"])
def test_contract(kind, shape, channels):
    operator = operator_of(kind, shape, channels)
    check_operator(operator)
    assert operator.tight == (channels == 2)
    assert operator.complex_data
    assert operator.observed() is None


@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_values_are_those_of_numpy(image):
    mask = own_mask(image.shape)
    m = csrecon.sample(image, kind="fourier", mask=mask)
    expected = np.fft.fft2(image, norm="ortho")[mask]
    values = torch.view_as_complex(m.y)[0].numpy()
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert m.operator.ratio == mask.sum() / mask.size
    spectrum = np.zeros(image.shape, np.complex128)
    spectrum[mask] = expected
    back = np.fft.ifft2(spectrum, norm="ortho")
    x = m.operator.adjoint(m.y)[0].numpy()
    np.testing.assert_allclose(x[0], back.real, atol=1e-5)
    if np.iscomplexobj(image):
        np.testing.assert_allclose(x[1], back.imag, atol=1e-5)
    else:
        assert x.shape == (1, *image.shape)


@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_all_frequencies_keep_the_energy_and_the_image(image):
    m = csrecon.sample(image, 1.0, kind="fourier")
    assert m.operator.mask.all()
    energy = float(m.y.double().square().sum())
    assert energy == pytest.approx(float((np.abs(image).astype(np.float64) ** 2).sum()), rel=1e-5)
    back = m.operator.adjoint(m.y)[0].numpy()
    np.testing.assert_allclose(back[0], image.real, atol=1e-5)


@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_a_drawn_mask_is_drawn_again_from_the_file(tmp_path, image):
    m = csrecon.sample(image, 0.3, kind="fourier", mask="random1d", seed=4, noise_sigma=0.01)
    native.save(m, tmp_path / "y.npy")
    back = native.load(tmp_path / "y.npy")
    assert isinstance(back.operator, FourierOperator)
    assert torch.equal(back.y, m.y)
    assert (back.operator.mask == m.operator.mask).all()
    assert back.operator.spec() == m.operator.spec()
    assert back.operator.domain == m.operator.domain
    assert (back.format, back.noise) == (m.format, m.noise)


def test_a_mask_of_one_s_own_is_packed_or_asked_for(tmp_path):
    mask = own_mask(GRAY.shape)
    m = csrecon.sample(GRAY, kind="fourier", mask=mask)
    native.save(m, tmp_path / "y.npz")
    packed = native.load(tmp_path / "y.npz")
    assert (packed.operator.mask == mask).all()
    assert torch.equal(packed.y, m.y)
    native.save(m, tmp_path / "y.npy")
    with pytest.raises(UsageError, match="--mask"):
        native.load(tmp_path / "y.npy")
    for values in (mask, mask.astype(np.float64)):
        back = native.load(tmp_path / "y.npy", Given(mask=values))
        assert (back.operator.mask == mask).all()
    other = mask.copy()
    other[-1, -1] = ~other[-1, -1]
    other[-2, -2] = ~other[-2, -2]
    for wrong in (other, np.roll(mask, 1, axis=0)):
        with pytest.raises(InputError, match="wrong mask"):
            native.load(tmp_path / "y.npy", Given(mask=wrong))
    with pytest.raises(InputError, match="mask of shape"):
        native.load(tmp_path / "y.npy", Given(mask=mask[1:]))


def test_a_packed_mask_that_was_changed_is_refused(tmp_path):
    m = csrecon.sample(GRAY, 0.3, kind="fourier")
    native.save(m, tmp_path / "y.npz")
    arrays = dict(np.load(tmp_path / "y.npz"))
    arrays["mask"] = np.roll(arrays["mask"], 1)
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(InputError, match="wrong mask"):
        native.load(tmp_path / "y.npz")


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({"mask": np.ones((3, 4))}, InputError, r"expected \(48, 40\)"),
        ({"mask": np.full(GRAY.shape, 0.5)}, InputError, "expected 0"),
        ({"mask": np.full(GRAY.shape, np.nan)}, InputError, "expected 0"),
        ({"mask": np.full(GRAY.shape, 1 + 0j)}, InputError, "expected 0"),
        ({"mask": np.zeros(GRAY.shape)}, InputError, "selects no frequency"),
        ({"mask": "random3d", "ratio": 0.3}, UsageError, "did you mean 'random"),
        ({"mask": own_mask(GRAY.shape), "ratio": 0.3}, UsageError, "no ratio"),
        ({}, UsageError, "needs a number"),
        ({"ratio": 0}, UsageError, "needs a number"),
        ({"ratio": 1.5}, UsageError, "needs a number"),
        ({"ratio": float("nan")}, UsageError, "needs a number"),
        ({"ratio": 0.3, "seed": -1}, UsageError, "non-negative"),
        ({"ratio": 0.3, "m": 5}, UsageError, "no m"),
        ({"ratio": 0.3, "block": 8}, UsageError, "no block"),
        ({"phi": np.eye(4)}, UsageError, "no phi"),
        ({"ratio": 0.3, "photons": 100.0}, UsageError, "counts no photons"),
    ],
)
def test_options_that_cannot_be(said, error, message):
    with pytest.raises(error, match=message):
        csrecon.sample(GRAY, kind="fourier", **said)


def test_a_mask_with_its_centre_in_the_middle_is_noticed(caplog):
    mask = np.zeros(GRAY.shape, bool)
    mask[20:28, 16:24] = True
    csrecon.sample(GRAY, kind="fourier", mask=mask)
    assert "ifftshift" in caplog.text
    caplog.clear()
    csrecon.sample(GRAY, kind="fourier", mask=np.fft.ifftshift(mask))
    assert not caplog.text


@pytest.mark.parametrize("model", ["fista", "tv"])
def test_a_complex_image_comes_back_complex(model):
    image = complex_image(64, 64)
    m = csrecon.sample(image, 0.4, kind="fourier")
    x = csrecon.reconstruct(m, model, device="cpu")
    assert x.dtype == np.complex64
    assert x.shape == image.shape
    start = torch.view_as_complex(m.operator.adjoint(m.y).movedim(1, -1).contiguous())[0].numpy()
    assert np.abs(x - image).mean() < 0.5 * np.abs(start - image).mean()
    assert np.abs(x - image).mean() < 0.05


def test_a_real_image_comes_back_real():
    m = csrecon.sample(GRAY, 0.4, kind="fourier")
    x = csrecon.reconstruct(m, "fista", device="cpu")
    assert x.dtype == np.float32
    start = m.operator.adjoint(m.y)[0, 0].numpy()
    assert np.abs(x - GRAY).mean() < 0.5 * np.abs(start - GRAY).mean()


def test_colour_planes_are_the_batch():
    rgb = scene(40, 30)
    m = csrecon.sample(rgb, 0.5, kind="fourier")
    assert m.y.shape == (3, 600, 2)
    assert csrecon.reconstruct(m, "fista:iterations=3", device="cpu").shape == rgb.shape


def test_a_network_for_real_images_refuses_complex_ones():
    m = csrecon.sample(complex_image(), 0.4, kind="fourier")
    with pytest.raises(UsageError, match=r"1 channel.*complex image.*--model fista"):
        csrecon.reconstruct(m, "rcoast", device="cpu")
    real = csrecon.sample(GRAY, 0.4, kind="fourier")
    assert csrecon.reconstruct(real, "rcoast", 1, device="cpu").shape == GRAY.shape


@pytest.mark.parametrize("kind", ["gaussian", "dct"])
def test_blocks_are_not_measured_of_complex_images(kind):
    with pytest.raises(InputError, match="complex image cannot be measured in blocks"):
        csrecon.sample(complex_image(), 0.3, kind=kind)
