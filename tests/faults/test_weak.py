"""Faults of Φ with weak or nearly dependent rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import csrecon
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from tests.conftest import scene
from tests.test_api import psnr
from tests.test_cli import run

IMAGE = scene(96, 128).mean(axis=-1).astype(np.uint8)
ROWS = Phi.make(80, 256, 0).matrix.astype(np.float64)
SIGMA = 0.02


def scaled(*factors):
    """Rows of which the first have other scales."""
    return np.concatenate([np.array(factors)[:, None] * ROWS[: len(factors)], ROWS[len(factors) :]])


def repeated():
    """Eight rows twice; the second as measured, and as given with a calibration error of 0.1 %."""
    true = np.concatenate([ROWS[:-8], ROWS[:8]])
    given = true.copy()
    given[-8:] *= 1 + 1e-3 * np.random.Generator(np.random.PCG64(1)).normal(size=(8, 256))
    return true, given


def nearly_a_sum(share):
    """A row that is the sum of two others, but for a share of its own."""
    rows = ROWS.copy()
    rows[7] = rows[3] + rows[4] + share * rows[7]
    return rows


def measured(true, given=None, sigma=SIGMA, told=0.0, image=IMAGE):
    """What Φ measures of the image, with noise, as a measurement by the Φ that is given."""
    clean = csrecon.sample(image, phi=true.astype(np.float32), block=16)
    draw = np.random.Generator(np.random.PCG64(7))
    y = clean.y + sigma * torch.from_numpy(draw.standard_normal(clean.y.shape)).float()
    phi = Phi.given((true if given is None else given).astype(np.float32))
    operator = BlockOperator(phi, clean.operator.image_shape, (16, 16))
    return replace(Measurement.of(operator, y), noise=told)


def decibels(m, model="tv:iterations=40", image=IMAGE):
    """PSNR of its reconstruction."""
    x = csrecon.reconstruct(m, model, device="cpu", precision="fp32")
    return psnr(x, image / np.float32(255))


@pytest.mark.parametrize("told", [0.0, SIGMA, SIGMA / 10, SIGMA * 10])
@pytest.mark.parametrize("factor", [1e-2, 1e-3, 1e-4])
def test_f53(factor, told):
    """A weak row of Φ, and noise on its value
    discarded, if it tells less than its noise (given or not); a note says so"""
    best = decibels(measured(ROWS, told=told))
    assert decibels(measured(scaled(factor), told=told)) > best - 1


def test_a_weak_row_with_a_network_and_a_note():
    """The network is conditioned on the noise, all through the command line."""
    np.save("phi.npy", scaled(1e-3))
    np.save("y.npy", measured(scaled(1e-3)).y.numpy().reshape(-1, 80))
    lab = ["y.npy", "--phi", "phi.npy", "--shape", "96x128", "--noise", SIGMA]
    result = run("reconstruct", *lab, "--model", "rcoast-noise", "-o", "x.npy")
    assert "1 of 80 components of Φ discarded" in result.stderr
    best = decibels(measured(ROWS, told=SIGMA), "rcoast-noise")
    assert psnr(np.load("x.npy"), IMAGE / np.float32(255)) > best - 1


@pytest.mark.parametrize("sigma", [0.0, SIGMA])
def test_f54(sigma):
    """Patterns that were measured twice, and a Φ with a calibration error of 0.1 %
    what only the error tells apart is discarded"""
    true, given = repeated()
    best = decibels(measured(ROWS[:-8], sigma=sigma))
    assert decibels(measured(true, given, sigma)) > best - 1
    assert decibels(measured(true, given, sigma, told=sigma)) > best - 1


@pytest.mark.parametrize("share", [1e-2, 1e-3])
def test_f55(share):
    """A row of Φ that is nearly the sum of others, and noise
    their difference is discarded, if it tells less than its noise"""
    best = decibels(measured(np.delete(ROWS, 7, axis=0)))
    assert decibels(measured(nearly_a_sum(share))) > best - 1
    assert decibels(measured(nearly_a_sum(share), told=SIGMA)) > best - 1


@pytest.mark.parametrize("told", [0.0, SIGMA])
def test_f56(told):
    """Rows of Φ with scales over three decades, and noise
    as good as the strong rows alone"""
    scales = 10.0 ** (-3 * np.arange(80) / 79)
    best = decibels(measured(scales[:24, None] * ROWS[:24], told=told))
    assert decibels(measured(scales[:, None] * ROWS, told=told)) > best - 1


def test_f57():
    """A row of Φ that is 1e20 times the others
    no other row is discarded for it"""
    np.save("phi.npy", scaled(1e20))
    np.save("y.npy", measured(scaled(1e20), sigma=0.0).y.numpy().reshape(-1, 80))
    model = ["--model", "tv:iterations=40", "--precision", "fp32", "-o", "x.npy"]
    run("reconstruct", "y.npy", "--phi", "phi.npy", "--shape", "96x128", *model)
    best = decibels(measured(ROWS, sigma=0.0))
    assert psnr(np.load("x.npy"), IMAGE / np.float32(255)) > best - 0.1
