"""Faults of k-space, masks and coils."""

import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from csrecon.sensing import coils
from tests.faults.checks import refused
from tests.test_cli import run
from tests.test_kspace import SHAPE, measured

ASKED = ("--model", "tv:iterations=2", "-o", "x.png")


@pytest.fixture
def scan():
    """K-space of one slice and four coils."""
    values, _ = measured(1)
    return values[0]


def test_f155(scan):
    """A mask of another shape than the image or the k-space
    exit 3; both shapes"""
    Image.fromarray(np.zeros((8, 9), np.uint8)).save("img.png")
    np.save("mask.npy", np.ones((9, 8)))
    asked = ("sample", "img.png", "--kind", "fourier", "--mask", "mask.npy")
    refused(3, *asked, message="(8, 9)")
    refused(3, *asked, "-o", "a.npy", message="(8, 9)")
    np.save("k.npy", scan)
    refused(3, "reconstruct", "k.npy", "--mask", "mask.npy", *ASKED, message="(9, 8)")


def test_f156(scan):
    """K-space whose energy is not where --centered says, or nowhere
    a warning, and what is said holds; exit 3 if nothing is said and no place has it"""
    np.save("k.npy", scan[:1])
    result = run("reconstruct", "k.npy", "--no-centered", *ASKED)
    assert "most of the energy is in the middle" in " ".join(result.stderr.split())
    noise = np.random.default_rng(0).standard_normal((2, 1, *SHAPE))
    np.save("noise.npy", noise[0] + 1j * noise[1])
    refused(3, "reconstruct", "noise.npy", *ASKED[:-1], "n.png", message="--no-centered")


def test_f157(scan):
    """Several coils without maps and without a calibration region
    exit 3; how large it is, and --sensitivities"""
    scan[:, :, 19:22:2] = 0
    np.save("k.npy", scan)
    refused(3, "reconstruct", "k.npy", *ASKED, message="no calibration region")
    assert "--sensitivities FILE" in run("inspect", "k.npy").stdout


def test_f158(scan):
    """Coils that disagree: a dead one, or more of them in the maps than in the k-space
    exit 3; which coil, or both numbers"""
    dead = scan.copy()
    dead[2] = 0
    np.save("dead.npy", dead)
    refused(3, "reconstruct", "dead.npy", *ASKED, message="coil 2 of slice 0")
    with h5py.File("k.h5", "w") as file:
        file["kspace"] = scan[None]
        file["sensitivity_maps"] = np.ones((5, *SHAPE), np.complex64)
    refused(3, "reconstruct", "k.h5", *ASKED, message="4 coils in the k-space, and 5")


def test_f159(scan):
    """Lines of k-space that are NaN
    exit 3; how many lines, and where the first is"""
    scan[1, :, 4] = np.nan
    np.save("k.npy", scan)
    refused(3, "reconstruct", "k.npy", *ASKED, message="slice 0, coil 1, row 0, column 4")
    refused(3, "inspect", "k.npy", message="in 48 rows and 1 columns")


@pytest.mark.parametrize("mask", ["random1d", "equispaced", "random2d", "poisson", "radial"])
def test_f160(mask):
    """A centre of the mask that alone exceeds the ratio, or --ratio beside --acceleration
    exit 2; how many lines or frequencies the centre has"""
    Image.fromarray(np.zeros((32, 32), np.uint8)).save("img.png")
    asked = ("sample", "img.png", "--kind", "fourier", "--mask", mask)
    refused(2, *asked, "--ratio", 0.2, "--center", 0.5, message="at the centre alone")
    refused(2, *asked, "--ratio", 0.2, "--acceleration", 5, message="give one of them")


def test_f161(scan):
    """A real array where k-space or sensitivities need complex numbers
    exit 3; nothing is cast"""
    with h5py.File("k.h5", "w") as file:
        file["kspace"] = scan.real
    refused(3, "reconstruct", "k.h5", *ASKED, message="complex numbers are needed")
    np.save("real.npy", np.stack([scan.real, scan.imag], axis=-1))
    asked = ("reconstruct", "real.npy", "--axes", "cyx")
    refused(3, *asked, *ASKED, message="k[..., 0] + 1j * k[..., 1]")
    np.save("maps.npy", np.ones((4, *SHAPE)))
    np.save("k.npy", scan)
    asked = ("reconstruct", "k.npy", "--sensitivities", "maps.npy")
    refused(3, *asked, *ASKED, message="expected complex numbers")
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save("img.png")
    asked = ("sample", "img.png", "--kind", "fourier", "--ratio", 0.3)
    refused(3, *asked, "--sensitivities", "maps.npy", message="expected complex numbers")


def test_f162(scan):
    """A .cfl whose .hdr is missing, damaged, or of another scan
    exit 3; both sizes"""
    scan.ravel(order="F").tofile("k.cfl")
    refused(3, "reconstruct", "k.cfl", *ASKED, message="k.hdr: no such file")
    with open("k.hdr", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("# Dimensions\n48 40 1 5\n")
    refused(3, "reconstruct", "k.cfl", *ASKED, message="(48, 40, 1, 5)")


def test_f163(scan):
    """Letters of --axes that do not name the axes of the array
    exit 2; the letters and the shape"""
    np.save("k.npy", scan)
    for axes in ("scyx", "cyy", "abc", "c"):
        refused(2, "reconstruct", "k.npy", "--axes", axes, *ASKED, message="one letter per axis")


def test_f164(scan):
    """ISMRMRD raw data that are not Cartesian, 3-D, of several images per slice, or of EPI
    exit 3; which, and what to do"""
    raw = pytest.importorskip("tests.test_ismrmrd", reason="writes its files with ismrmrd")
    k, mask = scan[None], raw.row_mask()
    spiral, volume = (raw.header(40, 40, *said) for said in (("spiral",), ("cartesian", 16)))
    raw.write("k.h5", spiral, raw.readouts(k, mask))
    refused(3, "reconstruct", "k.h5", *ASKED, message="only Cartesian k-space is read")
    raw.write("k.h5", volume, raw.readouts(k, mask))
    refused(3, "inspect", "k.h5", message="3-D k-space (encoded matrix 40×48×16)")
    several = [*raw.readouts(k, mask), *raw.readouts(k, mask, repetition=1)]
    raw.write("k.h5", raw.header(40, 40), several)
    refused(3, "inspect", "k.h5", message="2 values of `repetition`")


def test_f165(scan):
    """An ISMRMRD readout that does not fit the encoded matrix, or a damaged XML header
    exit 3; which readout, and both sizes"""
    raw = pytest.importorskip("tests.test_ismrmrd", reason="writes its files with ismrmrd")
    lines = raw.readouts(scan[None], raw.row_mask())
    raw.write("k.h5", raw.header(32, 32), lines)
    refused(3, "inspect", "k.h5", message="readout 0: 40 samples")
    raw.write("k.h5", b"<ismrmrdHeader>", lines)
    refused(3, "inspect", "k.h5", message="XML header of ISMRMRD is damaged")


def test_f166(scan, monkeypatch):
    """An unknown --estimate, one whose package is missing, or a region too small for it
    exit 2, or 3 for the region; the nearest name, what to install, or both sizes"""
    np.save("k.npy", scan)
    asked = ("reconstruct", "k.npy", *ASKED, "--estimate")
    refused(2, *asked, "espirt", message="did you mean 'espirit'?")
    monkeypatch.setitem(sys.modules, "sigpy.mri.app", None)
    refused(2, *asked, "espirit", message="pip install 'csrecon[espirit]'")
    monkeypatch.setattr(coils, "_espirit_app", lambda: None)
    refused(3, *asked, "espirit", message="48×12 frequencies, and sensitivities need 16×16")


def test_f167(scan):
    """A phase of a real image, or in a format that cannot hold it
    exit 2; the formats"""
    np.save("k.npy", scan)
    for name in ("x.npy", "x.jpg"):
        asked = ("reconstruct", "k.npy", "--model", "adjoint", "-o", name)
        refused(2, *asked, "--phase-image", message="is written as .png, .tif or .nii.gz")
    Image.fromarray(np.zeros((16, 16), np.uint8)).save("img.png")
    run("sample", "img.png", "--kind", "fourier", "--ratio", 0.5)
    asked = ("reconstruct", "y.npy", "--model", "adjoint", "--phase-image")
    refused(2, *asked, message="of complex images, and this is real")


def test_f168(scan, monkeypatch):
    """One volume of several scans, of slices of several sizes, or without nibabel
    exit 2, or 3 for the sizes; nothing is written"""
    pytest.importorskip("nibabel", reason="needs the extra mri")
    np.save("a.npy", scan)
    np.save("b.npy", scan)
    asked = ("--model", "adjoint", "-o", "x.nii.gz")
    refused(2, "reconstruct", "a.npy", "b.npy", *asked, message="a scale of its own")
    for side in (16, 17):
        Image.fromarray(np.full((16, side), 9, np.uint8)).save(f"{side}.png")
        run("sample", f"{side}.png", "--kind", "fourier", "--ratio", 0.5, "-o", f"y{side}.npy")
    sizes = ("reconstruct", "y16.npy", "y17.npy", *asked)
    refused(3, *sizes, message="slices of one size")
    refused(2, "reconstruct", "y16.npy", *asked, "--check", message="not of a volume")
    monkeypatch.setitem(sys.modules, "nibabel", None)
    refused(2, "reconstruct", "a.npy", *asked, message="pip install 'csrecon[mri]'")


def test_f169(scan):
    """K-space whose axes lie in another order than its kind of file has them
    exit 3 where the image would be implausibly small; what each axis would be, and --axes"""
    np.save("k.npy", scan.transpose(1, 2, 0))
    refused(3, "reconstruct", "k.npy", *ASKED, message="48 coils × 40 rows × 4 columns")
    with h5py.File("k.h5", "w") as file:
        file["kspace"] = scan.transpose(1, 2, 0)
    refused(3, "inspect", "k.h5", message="48 slices × 40 rows × 4 columns")
    asked = ("reconstruct", "k.npy", "--model", "tv:iterations=2", "--axes", "yxc", "-o", "k.png")
    assert run(*asked).exit_code == 0
