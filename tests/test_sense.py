"""Fourier sampling with several coils."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.sensing import native
from csrecon.sensing.native import Given
from csrecon.sensing.operators import FourierOptions, SamplingOptions, SenseOperator, make_operator
from csrecon.sensing.operators.base import Scaled
from csrecon.sensing.operators.masks import MASKS
from csrecon.sensing.operators.sense import simulated
from tests.checks import check_operator
from tests.test_fourier import GRAY, complex_image, own_mask

SHAPE = GRAY.shape


def coils_of(count, shape=SHAPE, kind="random1d", channels=2, ratio=0.4):
    options = SamplingOptions(
        "fourier", ratio=ratio, mask=kind, seed=1, fourier=FourierOptions(coils=count)
    )
    return make_operator((channels, *shape), options)


def other_maps(count=3, shape=SHAPE):
    """Smooth maps whose sum of squares is not constant."""
    return (simulated(shape, count) * np.linspace(0.5, 3, shape[0])[:, None]).astype(np.complex64)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("kind", MASKS)
def test_contract(kind, count, channels):
    operator = coils_of(count, (10, 11), kind, channels)
    assert isinstance(operator, SenseOperator)
    check_operator(operator)
    assert operator.y_shape == (count, int(operator.sampling.mask.sum()), 2)
    assert operator.tight == (count == 1 and channels == 2)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (33, 33)])
def test_contract_of_other_shapes_and_maps(shape, channels):
    check_operator(coils_of(2, shape, channels=channels))
    extra = FourierOptions(sensitivities=other_maps(3, shape))
    options = SamplingOptions("fourier", mask=own_mask(shape), fourier=extra)
    operator = make_operator((channels, *shape), options)
    check_operator(operator)
    assert isinstance(operator.normalized(torch.zeros(1, *operator.y_shape), 0.0)[0], Scaled)


@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_values_are_those_of_numpy(image):
    mask, maps = own_mask(image.shape), other_maps()
    extra = FourierOptions(sensitivities=maps)
    m = csrecon.sample(image, kind="fourier", mask=mask, fourier=extra)
    expected = np.fft.fft2(maps * image, norm="ortho")[:, mask]
    np.testing.assert_allclose(torch.view_as_complex(m.y)[0].numpy(), expected, atol=1e-5)
    spectrum = np.zeros(maps.shape, np.complex128)
    spectrum[:, mask] = expected
    back = (np.fft.ifft2(spectrum, norm="ortho") * maps.conj()).sum(axis=0)
    x = m.operator.adjoint(m.y)[0].numpy()
    np.testing.assert_allclose(x[0], back.real, atol=1e-4)
    assert len(x) == 1 + np.iscomplexobj(image)
    assert m.operator.ratio == mask.sum() / mask.size


@pytest.mark.parametrize("count", [1, 2, 4, 8, 32])
def test_simulated_maps_are_smooth_and_their_squares_sum_to_one(count):
    maps = simulated((64, 48), count)
    np.testing.assert_allclose(np.square(np.abs(maps)).sum(axis=0), 1, atol=1e-5)
    for axis in (1, 2):
        assert np.abs(np.diff(maps, axis=axis)).max() < 0.25
    if count > 1:  # every coil sees best what is near it
        angle = 2 * np.pi * np.arange(count) / count
        row, column = np.mgrid[:64, :48]
        for one, direction in zip(np.abs(maps), angle, strict=True):
            weight = one**4 / (one**4).sum()
            ahead = (weight * (column / 24 - 1)).sum() * np.cos(direction)
            ahead += (weight * (row / 32 - 1)).sum() * np.sin(direction)
            assert ahead > 0.1


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_simulated_coils_come_back_from_the_file(tmp_path, image, suffix):
    extra = FourierOptions(coils=3)
    m = csrecon.sample(image, 0.3, kind="fourier", mask="radial", fourier=extra, noise_sigma=0.01)
    native.save(m, tmp_path / f"y.{suffix}")
    back = native.load(tmp_path / f"y.{suffix}")
    assert torch.equal(back.y, m.y)
    assert back.operator.spec() == m.operator.spec()
    x = torch.rand(1, *m.operator.domain)
    assert torch.equal(back.operator(x), m.operator(x))


def test_given_maps_are_packed_or_asked_for(tmp_path):
    maps = other_maps()
    extra = FourierOptions(sensitivities=maps)
    m = csrecon.sample(GRAY, 0.3, kind="fourier", fourier=extra)
    native.save(m, tmp_path / "y.npz")
    packed = native.load(tmp_path / "y.npz").operator
    assert isinstance(packed, SenseOperator)
    assert torch.equal(packed.maps, m.operator.maps)
    native.save(m, tmp_path / "y.npy")
    with pytest.raises(UsageError, match="--sensitivities FILE"):
        native.load(tmp_path / "y.npy")
    back = native.load(tmp_path / "y.npy", Given(sensitivities=maps)).operator
    assert torch.equal(back.maps, m.operator.maps)
    for wrong in (maps[:2], maps * 1.5):
        with pytest.raises(InputError, match="wrong sensitivities"):
            native.load(tmp_path / "y.npy", Given(sensitivities=wrong))


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ({"coils": 0}, UsageError, "1 to 256"),
        ({"coils": 2, "sensitivities": other_maps()}, UsageError, "either"),
        ({"sensitivities": np.ones((2, *SHAPE))}, InputError, "expected complex"),
        ({"sensitivities": other_maps()[:, 1:]}, InputError, r"expected \(coils, 48, 40\)"),
        ({"sensitivities": 0 * other_maps()}, InputError, "zero everywhere"),
        ({"sensitivities": np.nan * other_maps()}, InputError, "not finite"),
    ],
)
def test_maps_that_cannot_be(extra, error, message):
    with pytest.raises(error, match=message):
        csrecon.sample(GRAY, 0.3, kind="fourier", fourier=FourierOptions(**extra))


def test_blocks_have_no_coils():
    with pytest.raises(UsageError, match="no fourier"):
        csrecon.sample(GRAY, 0.3, fourier=FourierOptions(coils=2))


@pytest.mark.parametrize("model", ["fista", "tv"])
@pytest.mark.parametrize("image", [GRAY, complex_image()], ids=["real", "complex"])
def test_solvers_reconstruct_with_coils(model, image):
    """Better than from one coil with the same mask, and than the start."""
    errors = []
    for coils in (None, 6):
        extra = FourierOptions(coils=coils)
        m = csrecon.sample(image, 0.34, kind="fourier", mask="equispaced", fourier=extra)
        x = csrecon.reconstruct(m, f"{model}:iterations=40", device="cpu")
        assert x.shape == image.shape
        assert np.iscomplexobj(x) == np.iscomplexobj(image)
        errors.append(np.abs(x - image).mean())
    assert errors[1] < 0.6 * errors[0]
    start = m.operator.adjoint(m.y)[0].movedim(0, -1).numpy()
    start = start[..., 0] if start.shape[-1] == 1 else start[..., 0] + 1j * start[..., 1]
    assert errors[1] < 0.3 * np.abs(start - image).mean()


def test_a_network_for_real_images_takes_several_coils():
    m = csrecon.sample(GRAY, 0.3, kind="fourier", fourier=FourierOptions(coils=4))
    x = csrecon.reconstruct(m, "rcoast", 2, device="cpu")
    start = m.operator.adjoint(m.y)[0, 0].numpy()
    assert np.abs(x - GRAY).mean() < 0.6 * np.abs(start - GRAY).mean()
