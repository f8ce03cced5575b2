"""What comes out of k-space: volumes, phases, and networks for complex images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import csrecon
from csrecon.io import volumes
from csrecon.reconstructors import blueprint
from csrecon.reconstructors.base import State
from csrecon.reconstructors.nets import BLOCKS
from csrecon.reconstructors.unfolding import ProxBlock
from csrecon.sensing import coils
from csrecon.sensing.kspace import Scan
from csrecon.sensing.operators.sense import simulated
from csrecon.zoo import weights_file
from tests.test_cli import names, run
from tests.test_kspace import SHAPE, centred, error, measured, volume, write_all

TV = ("--model", "tv:iterations=20")


@pytest.fixture
def scan():
    """K-space of two slices and four coils, as a.h5 and in the other formats."""
    write_all(*measured())
    return Path("a.h5")


def slices_of(path):
    """The slices (S, H, W) of a NIfTI file, as they were measured."""
    nibabel = pytest.importorskip("nibabel", reason="needs the extra mri")
    return np.asarray(nibabel.load(path).dataobj).transpose(2, 1, 0)[:, ::-1]


# --- Volumes ---


def test_all_slices_are_one_volume(scan):
    said = run("reconstruct", scan, *TV, "-o", "x.nii.gz").stdout
    assert "-> x.nii.gz (2 slices, 48×40, complex): tv" in said
    made = slices_of("x.nii.gz")
    assert made.dtype == np.float32
    run("reconstruct", scan, *TV, "-o", "x.npy")
    for index, found in enumerate(made):
        np.testing.assert_allclose(found, np.abs(np.load(f"x_{index:03}.npy")), atol=1e-6)
        assert error(found, np.abs(volume())[index]) < 0.08
    np.testing.assert_array_equal(volumes.read(Path("x.nii.gz")), made / made.max())


def test_the_header_says_what_is_known(scan):
    nibabel = pytest.importorskip("nibabel", reason="needs the extra mri")
    run("reconstruct", scan, *TV, "-o", "x.nii")
    header = nibabel.load("x.nii").header
    np.testing.assert_array_equal(nibabel.load("x.nii").affine, np.eye(4))
    assert header.get_xyzt_units()[0] == "mm"
    assert b"tv:iterations=20" in header["descrip"].tobytes()


def test_a_volume_of_one_slice_is_turned_with_its_voxels():
    values, _ = measured(1)
    np.save("k.npy", values[0])
    run("reconstruct", "k.npy", *TV, "-o", "x.nii.gz")
    run("reconstruct", "k.npy", *TV, "-o", "turned.nii.gz", "--rotate", 90)
    upright, turned = slices_of("x.nii.gz"), slices_of("turned.nii.gz")
    assert upright.shape == (1, *SHAPE)
    np.testing.assert_array_equal(np.rot90(upright[0], -1), turned[0])


def test_an_existing_volume_is_kept(scan):
    Path("x.nii.gz").write_bytes(b"mine")
    assert "exists already" in run("reconstruct", scan, *TV, "-o", "x.nii.gz", code=2).stderr
    assert Path("x.nii.gz").read_bytes() == b"mine"
    run("reconstruct", scan, *TV, "-o", "x.nii.gz", "--overwrite")
    assert slices_of("x.nii.gz").shape == (2, *SHAPE)


def test_measured_slices_become_a_volume_with_scores():
    pytest.importorskip("nibabel", reason="needs the extra mri")
    truth = np.abs(volume(3)).astype(np.float32)
    volumes.write(Path("head.nii.gz"), truth)
    asked = ("sample", "head.nii.gz", "--kind", "fourier", "--ratio", 0.6, "-o", "y/")
    run(*asked)
    Path("ref").mkdir()
    for index, image in enumerate(truth / truth.max()):
        Image.fromarray(np.round(255 * image).astype(np.uint8)).save(f"ref/head_{index:03}.png")
    result = run("reconstruct", "y/", *TV, "-o", "x.nii.gz", "--ref", "ref", "--json")
    (facts,) = json.loads(result.stdout)
    assert facts["slices"] == 3
    assert facts["measurement"].endswith("and 2 more")
    assert facts["psnr"] > 25
    for found, expected in zip(slices_of("x.nii.gz"), truth, strict=True):
        assert error(found, expected) < 0.1


# --- Phases ---


def test_the_phase_is_written_beside_the_magnitude():
    image = volume(1)[0]
    np.save("k.npy", centred(image))
    run("reconstruct", "k.npy", "--model", "adjoint", "-o", "x.png", "--phase-image")
    assert {"x.png", "x_phase.png"} <= names(".")
    phase = np.asarray(Image.open("x_phase.png")) / 255 * 2 * np.pi - np.pi
    bright = np.abs(image) > 0.1 * np.abs(image).max()
    apart = np.angle(np.exp(1j * (phase - np.angle(image))))
    assert np.abs(apart[bright]).max() < 1.01 * np.pi / 255
    run("reconstruct", "k.npy", "--model", "adjoint", "-o", "x.tif", "--phase-image")
    assert "x_phase.tif" in names(".")


def test_phases_of_a_volume_are_radians(scan):
    result = run("reconstruct", scan, *TV, "-o", "x.nii.gz", "--phase-image", "--json")
    (facts,) = json.loads(result.stdout)
    assert facts["phase"] == "x_phase.nii.gz"
    assert "relative to that of the estimated sensitivities" in " ".join(result.stderr.split())
    run("reconstruct", scan, *TV, "-o", "x.npy")
    phase = slices_of("x_phase.nii.gz")
    np.testing.assert_allclose(phase[1], np.angle(np.load("x_001.npy")), atol=1e-4)


# --- ESPIRiT ---


@pytest.mark.parametrize("sides", [(64, 64), (63, 48)])
def test_espirit_finds_the_maps_of_the_scan_up_to_a_phase(sides):
    pytest.importorskip("sigpy", reason="needs the extra espirit")
    maps, image = simulated(sides, 4), volume(1, sides)[0]
    mask = np.zeros(sides, bool)
    mask[:, sides[1] // 2 - 10 :][:, :20] = True
    mask = np.fft.ifftshift(mask)
    spectrum = np.fft.fft2(maps * image, norm="ortho").astype(np.complex64) * mask
    found = coils.espirit(spectrum, mask)
    weight = np.square(np.abs(found)).sum(axis=0)
    assert ((np.abs(weight - 1) < 1e-3) | (weight == 0)).all()
    inside = np.abs(image) > 0.1 * np.abs(image).max()
    agreement = np.abs((found.conj() * maps).sum(axis=0))
    assert agreement[inside].min() > 0.97


# --- Networks for complex images ---


class TwoChannels(ProxBlock):
    """A block of 2 channels, whose convolution sees both."""

    channels = 2
    reach = 1

    def __init__(self, features: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def prox(self, state, gradient, gain):
        r = self.descend(state, gradient)
        return State(r + 1e-3 * self.conv(r)), r.new_zeros(())


@pytest.fixture
def network(monkeypatch):
    """A weights file of a network for complex images, of random weights."""
    monkeypatch.setitem(BLOCKS, "two", TwoChannels)
    made = blueprint.Blueprint.model_validate(
        {
            "version": 2,
            "task": "mri",
            "block": {"name": "two"},
            "modulation": {"name": "none"},
            "start": {"name": "adjoint"},
            "recursion": {"schedule": [4]},
            "trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.05, 1]},
        }
    )
    torch.manual_seed(0)
    weights_file.save(made.build(), made, Path("complex.safetensors"))
    return Path("complex.safetensors")


@pytest.mark.parametrize("options", [(), ("--ipl", "9")])
def test_a_network_reconstructs_a_volume_of_several_coils(scan, network, options):
    result = run("reconstruct", scan, "--model", network, *options, "-o", "slices/", "--json")
    facts = json.loads(result.stdout)
    assert [one["iterations"] for one in facts] == [9 if "--ipl" in options else 4] * 2
    filled = run("reconstruct", scan, "--model", "adjoint", "-o", "filled/")
    assert filled
    for index, truth in enumerate(np.abs(volume())):
        found, zero = (
            np.asarray(Image.open(f"{folder}/a_{index:03}.png")) / 255
            for folder in ("slices", "filled")
        )
        assert error(found, truth) < error(zero, truth)


def test_tiles_of_a_complex_image_change_nothing(network):
    values, _ = measured(1, shape=(96, 80))
    np.save("k.npy", values[0])
    asked = ("reconstruct", "k.npy", "--model", network, "--precision", "fp32")
    for tile in ("64", "off"):
        run(*asked, "--tile", tile, "-o", f"{tile}.npy")
    np.testing.assert_allclose(np.load("64.npy"), np.load("off.npy"), atol=1e-6)


def test_slices_of_one_coil_are_one_batch(network):
    values = centred(volume(3))[:, None].astype(np.complex64)
    np.save("k.npy", values)
    asked = ("reconstruct", "k.npy", "--model", network, "--precision", "fp32", "-o", "x.npy")
    facts = json.loads(run(*asked, "--json").stdout)
    assert len({one["seconds"] for one in facts}) == 1  # an equal share of the batch
    for index in range(3):
        m = Scan(values).measurement(index)
        alone = csrecon.reconstruct(m, network, precision="fp32")
        np.testing.assert_allclose(np.load(f"x_{index:03}.npy"), alone, atol=1e-5)


def test_a_network_for_real_images_says_what_to_do(scan):
    for model in ("frcoast", "rcoast"):
        said = run("reconstruct", scan, "--model", model, "-o", "x/", code=6).stderr
        assert "images of 1 channel(s)" in said
        assert "--model fista" in said
