"""Gain and offset of a camera nobody calibrated: as sure as they are said to be, or refused."""

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image

import csrecon
from csrecon.errors import InputError
from csrecon.reconstructors import calibration
from csrecon.reconstructors.calibration import estimate, rough_image
from csrecon.sensing import lab
from csrecon.sensing.lab import Arrangement
from csrecon.sensing.operators import BlockOperator, Phi, make
from tests.test_lab import error_in_db

SIDE = 16


def portrait(height, width):
    with cbook.get_sample_data("grace_hopper.jpg") as stream:
        whole = Image.open(stream).convert("L").crop((100, 0, 400, 300))
    return np.array(whole.resize((width, height)), np.float32) / 255


def phi_of(kind, ratio=0.25, side=SIDE):
    n = side * side
    if kind == "normal":
        return Phi.given(np.random.default_rng(5).normal(size=(int(ratio * n), n)))
    return Phi.given(make(kind, int(ratio * n), (side, side), 5).rows().matrix().numpy())


def taken(picture, phi, gain=1.0, offset=0.0, noise=0.0, missing=0.0):
    """Values y, the operator, the offset in units of y, and the true pixels that were seen.

    Offset and noise are given relative to the rms of Φx.
    """
    rng = np.random.default_rng(3)
    grid = BlockOperator(phi, picture.shape).grid
    present = torch.from_numpy((rng.random(grid) >= missing).astype(np.float32))
    operator = BlockOperator(phi, picture.shape, None, None, present)
    clean = operator(torch.from_numpy(picture)[None, None]).double()
    rms = float(clean[clean != 0].square().mean().sqrt())
    noisy = clean + noise * rms * torch.from_numpy(rng.normal(size=clean.shape))
    y = operator.masked(gain * (noisy + offset * rms)).float()
    return y, operator, gain * offset * rms, picture[operator.observed().numpy()]


def agrees(found, gain, offset, seen):
    """Whether gain and offset lie within three of their errors, and an offset's is small."""
    bright = calibration.bright_end(seen.astype(np.float64), seen.size)
    expected = gain * bright / calibration.BRIGHT
    assert abs(found.gain / expected - 1) < 3 * found.gain_error
    assert found.gain_error <= calibration.LARGEST_ERROR
    assert abs(found.offset - offset) < 4 * found.offset_error + 1e-5 * abs(offset)
    return True


def in_field(share, background, field=(112, 144)):
    side = [round(size * share**0.5) for size in field]
    canvas = np.full(field, background, np.float32)
    top, left = (size - part for size, part in zip(field, side, strict=True))
    canvas[top // 2 : top // 2 + side[0], left // 3 : left // 3 + side[1]] = portrait(*side)
    return canvas


@pytest.mark.parametrize("share", [0.05, 0.25, 1.0])
@pytest.mark.parametrize("background", [0.0, 0.5])
def test_scenes_of_every_size(share, background):
    y, operator, offset, seen = taken(
        in_field(share, background), phi_of("gaussian"), gain=850, offset=1.0, missing=0.3
    )
    found = estimate(y, operator, None, rough_image)
    assert agrees(found, 850, offset, seen)
    assert found.gain_error < 0.3


@pytest.mark.parametrize("kind", ["gaussian", "normal", "bernoulli", "binary"])
@pytest.mark.parametrize(
    ("gain", "offset", "noise"),
    [(1e5, 10.0, 0.0), (850, -3.0, 0.005), (-1e-3, 0.0, 0.0)],
)
def test_every_camera(kind, gain, offset, noise):
    y, operator, zero, seen = taken(in_field(0.5, 0.1), phi_of(kind), gain, offset, noise)
    assert agrees(estimate(y, operator, None, rough_image), gain, zero, seen)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_noisy_values(noise):
    y, operator, zero, seen = taken(in_field(0.5, 0.1), phi_of("normal", 0.5), 7, 2, noise)
    assert agrees(estimate(y, operator, None, rough_image), 7, zero, seen)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_too_few_values_are_refused_with_what_they_give(noise):
    """12 rows for 256 pixels: the gain is said with its error, for the user to decide."""
    y, operator, _, _ = taken(in_field(0.5, 0.1), phi_of("normal", 0.05), 7, 2, noise)
    with pytest.raises(InputError, match=r"a gain of \S+ ± \d+ % .* a number for --gain"):
        estimate(y, operator, None, rough_image)


def test_noise_makes_it_less_sure():
    found = [
        estimate(
            *taken(in_field(1.0, 0.0), phi_of("normal", 0.5), 7, 2, noise)[:2], None, rough_image
        )
        for noise in (0.0, 0.1)
    ]
    assert 1.5 * found[0].gain_error < found[1].gain_error
    assert 2 * found[0].offset_error < found[1].offset_error


def test_a_known_offset_is_kept():
    y, operator, offset, seen = taken(in_field(0.5, 0.1), phi_of("binary"), 850, 2.0)
    found = estimate(y, operator, offset, rough_image)
    assert (found.offset, found.offset_error) == (offset, 0)
    assert agrees(found, 850, offset, seen)


def test_it_follows_the_units_and_repeats():
    y, operator, _, _ = taken(in_field(0.5, 0.0), phi_of("gaussian"), 1.0, 1.0)
    found = estimate(y, operator, None, rough_image)
    assert estimate(y, operator, None, rough_image) == found
    other = estimate(1024 * y, operator, None, rough_image)
    assert other.gain == pytest.approx(1024 * found.gain, rel=1e-3)
    assert other.offset == pytest.approx(1024 * found.offset, rel=1e-3)
    assert other.gain_error == pytest.approx(found.gain_error, rel=0.05)


def test_a_bright_scene_in_a_dark_field():
    """Less than half of the blocks measured: most of the scene used to come out white."""
    picture = np.zeros((231, 330), np.float32)
    picture[66:165, 99:198] = np.clip(portrait(99, 99) * 0.6 + 0.4, 0, 1)
    phi = phi_of("gaussian", 0.1, 33)
    y, operator, offset, _ = taken(picture, phi, 850, 0.3, 0.0, missing=0.53)
    seen = operator.observed().numpy()
    positions = np.argwhere(operator.present.numpy() > 0)
    values = y[0].numpy()[operator.present.numpy() > 0]

    def psnr(**said):
        x = csrecon.reconstruct(
            values,
            ipl=1,
            phi=phi,
            shape=picture.shape,
            arrangement=Arrangement(positions=positions, **said),
        )
        lit = x[seen & (picture > 0)]
        return error_in_db(x.clip(0, 1), picture, seen), np.mean(lit >= 1)

    known, _ = psnr(gain=850.0, offset=offset)
    auto, white = psnr(gain="auto")
    assert auto > known - 0.5
    assert white < 0.05


def test_the_bright_end():
    assert calibration.bright_end(np.full(100, 0.5), 100) == pytest.approx(0.5 / 1.001)
    star = np.zeros(10_000)
    star[7] = 1.0  # (1 - t)² / 10⁴ = (0.001 t)²
    assert calibration.bright_end(star, 10_000) == pytest.approx(1 / 1.1, rel=1e-6)
    assert calibration.bright_end(star[:100], 10_000) == pytest.approx(1 / 1.1, rel=1e-6)
    assert calibration.bright_end(-star, 10_000) == 0


def refused(message, values, phi, offset=None):
    operator = BlockOperator(phi, (96, 96))
    y = torch.as_tensor(values, dtype=torch.float32).expand(1, *operator.y_shape)
    with pytest.raises(InputError, match=message) as error:
        estimate(y, operator, offset, rough_image)
    assert "--gain auto" in str(error.value)


def test_what_cannot_be_known_is_refused():
    phi = phi_of("gaussian")
    m, n = phi.shape
    noise = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 6, 6, m)))
    refused("0 everywhere", 0.0, phi)
    refused("all rows of Φ have about the same sum", noise, Phi.given(np.eye(m, n)))
    refused("clearly above or below 0", 12 + noise, phi)
    refused("clearly above or below 0", 12.0, phi, offset=12.0)
    refused("expected at least 6", noise[..., :5], Phi.given(phi.matrix[:5]))
    dark = Phi.given(phi.matrix - phi.matrix.mean(axis=1, keepdims=True))
    refused("all rows of Φ sum to 0", noise, dark, offset=0.0)


@pytest.mark.parametrize("kind", ["binary", "bernoulli"])
def test_a_gain_lost_in_noise_is_refused(kind):
    y, operator, _, _ = taken(in_field(0.05, 0.0), phi_of(kind, 0.1), 850, 3.0, noise=1.0)
    with pytest.raises(InputError, match=r"--gain auto: .* expected .* --calibrate"):
        estimate(y, operator, None, rough_image)


def test_the_measurement_says_how_sure():
    phi = phi_of("gaussian")
    y, operator, offset, _ = taken(in_field(0.5, 0.0), phi, 850, 0.5)
    shape = operator.image_shape
    values = y[0].numpy()
    _, removed = lab.measurement(values, phi, shape, Arrangement(gain="auto"), estimator=estimate)
    found = estimate(y, operator, None, rough_image)
    assert removed.gain == pytest.approx(found.gain)
    assert removed.gain_error == pytest.approx(found.gain_error, rel=1e-3)
    _, removed = lab.measurement(values, phi, shape, Arrangement(gain=850.0, offset=offset))
    assert (removed.gain_error, removed.offset_error) == (None, None)
