"""Faults of lab values: their order, their units, their calibration, and how much they promise."""

import re
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import csrecon
from csrecon.errors import InputError
from csrecon.sensing import native
from csrecon.sensing.lab import Arrangement, measurement
from csrecon.sensing.operators import Phi
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run

LAB = ["--phi", "phi.npy", "--shape", "32x48"]
FAST = ["--model", "fista:iterations=3", "-o", "x.npy"]


@pytest.fixture
def lab():
    """A binary Φ of 40 rows for blocks of 16×16, and what it measures of 2×3 blocks: (6, 40)."""
    phi = (np.random.Generator(np.random.PCG64(1)).random((40, 256)) < 0.5).astype(np.float64)
    np.save("phi.npy", phi)
    pixels = scene(32, 48)[..., 0] / 255
    blocks = pixels.reshape(2, 16, 3, 16).swapaxes(1, 2).reshape(6, 256)
    values = blocks @ phi.T
    np.save("lab.npy", values)
    return phi, values


def imported(*options, source="lab.npy"):
    run("import", source, *LAB, *options, "-o", "made.npz", "--overwrite")
    return native.load(Path("made.npz"))


def reading(m):
    return m.y.reshape(6, -1).numpy()


@pytest.mark.parametrize("first", [False, True])
def test_f58(lab, first):
    """Lab values (gw, gh, m) or (m, gw, gh) of an image with gh×gw blocks
    exit 3; both grids, unless --block-order F says so"""
    turned = lab[1].reshape(2, 3, 40).swapaxes(0, 1)
    given = np.moveaxis(turned, -1, 0) if first else turned
    np.save("lab.npy", given)
    message = "3×2 blocks, and the image has 2×3"
    refused(3, "reconstruct", "lab.npy", *LAB, "--noise", 0.1, message=message)
    np.testing.assert_allclose(reading(imported("--block-order", "F")), lab[1], rtol=1e-6)
    np.save("lab.npy", np.moveaxis(lab[1].reshape(2, 3, 40), -1, 0) if first else lab[1])
    np.testing.assert_allclose(reading(imported("--noise", 0.1)), lab[1], rtol=1e-6)


@pytest.mark.parametrize("grid", [(6, 1), (1, 6), (1, 2, 3)])
def test_f65_axes_of_length_one(lab, grid):
    np.save("lab.npy", lab[1].reshape(*grid, 40))
    np.testing.assert_allclose(reading(imported("--noise", 0.1)), lab[1], rtol=1e-6)


def test_f65_a_list_of_positions_on_several_axes(lab):
    np.save("lab.npy", lab[1].reshape(3, 2, 40))
    np.save("places.npy", [(row, column) for row in (0, 1) for column in (0, 1, 2)])
    refused(3, "import", "lab.npy", *LAB, "--positions", "places.npy", message="as one list")


@pytest.mark.parametrize("offset", [1e6, 1e9])
def test_f59(lab, offset):
    """A large offset, or integers of 64 bits
    removed before the values are rounded to float32"""
    np.save("lab.npy", lab[1] + offset)
    np.testing.assert_allclose(reading(imported("--offset", offset)), lab[1], atol=1e-5)
    pairs = np.stack([lab[1] + offset, np.full((6, 40), offset)], axis=-1).reshape(6, 80)
    np.save("lab.npy", pairs)
    np.testing.assert_allclose(reading(imported("--differential")), lab[1], atol=1e-5)
    np.save("white.npy", lab[0].sum(1) + offset)
    np.save("black.npy", np.full(40, offset))
    np.save("lab.npy", lab[1] + offset)
    scenes = ["--calibrate", "white.npy", "black.npy"]
    np.testing.assert_allclose(reading(imported(*scenes)), lab[1], atol=1e-5)


@pytest.mark.parametrize(("kind", "offset"), [("u8", 2**63), ("i8", -(2**62))])
def test_f66_integers(lab, kind, offset):
    counts = np.round(1000 * lab[1]).astype(np.int64)
    np.save("lab.npy", (counts.astype(object) + offset).astype(kind))
    made = reading(imported("--offset", offset, "--gain", 1000))
    np.testing.assert_allclose(made, counts / 1000, rtol=1e-6)


def test_f66_estimated(lab):
    picture = scene(256, 256)[..., 0] / 255
    blocks = picture.reshape(16, 16, 16, 16).swapaxes(1, 2).reshape(256, 256)
    np.save("lab.npy", 420 * blocks @ lab[0].T)
    plain = ["--phi", "phi.npy", "--shape", "256x256", "--gain", "auto"]
    run("import", "lab.npy", *plain, "-o", "plain.npz")
    np.save("lab.npy", 420 * blocks @ lab[0].T + 1e8)
    run("import", "lab.npy", *plain, "-o", "raised.npz")
    made = [native.load(Path(name)).y for name in ("plain.npz", "raised.npz")]
    np.testing.assert_allclose(made[1], made[0], rtol=1e-3, atol=1e-3)


def test_f60(lab):
    """A white and a black scene that are swapped, nearly the same, or of another Φ
    exit 3; the gain, or how much Φ does not explain"""
    phi, values = lab
    dark = np.linspace(1, 2, 40)
    np.save("white.npy", 30 * phi.sum(1) + dark)
    np.save("black.npy", dark)
    np.save("lab.npy", 30 * values + dark)
    swapped = ["--calibrate", "black.npy", "white.npy"]
    refused(3, "import", "lab.npy", *LAB, *swapped, message="a gain of -30")
    made = reading(imported("--calibrate", "white.npy", "black.npy"))
    np.testing.assert_allclose(made, values, atol=1e-4)
    noise = np.random.Generator(np.random.PCG64(2)).normal(size=40)
    np.save("white.npy", dark + 1e-9 * noise)
    right = ["--calibrate", "white.npy", "black.npy"]
    refused(3, "import", "lab.npy", *LAB, *right, message="is not explained by Φ")
    np.save("white.npy", dark * np.nan)
    refused(3, "import", "lab.npy", *LAB, *right, message="white: 40 of 40 values are NaN")


def test_f67_a_signed_phi_and_one_that_sees_no_brightness(lab):
    signed = np.random.Generator(np.random.PCG64(3)).normal(size=(40, 256))
    np.save("phi.npy", signed)
    np.save("white.npy", signed.sum(1))
    np.save("black.npy", np.zeros(40))
    refused(3, "import", "lab.npy", *LAB, "--calibrate", "black.npy", "white.npy", message="of -1")
    run("import", "lab.npy", *LAB, "--calibrate", "white.npy", "black.npy", "-o", "made.npz")
    np.save("phi.npy", signed - signed.mean(1, keepdims=True))
    again = ["--calibrate", "white.npy", "black.npy"]
    refused(3, "import", "lab.npy", *LAB, *again, message="all rows of Φ sum to 0")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--gain", "1e39"], 3, "Check --gain and --offset"),
        (["--gain", "-1e20"], 3, "the image would be black"),
        (["--gain", "1e-39"], 3, "Check --gain and --offset"),
        (["--offset", "1e300"], 2, "offset 1e+300"),
        (["--offset", "nan"], 2, "offset nan"),
        (["--noise", "1e39"], 2, "noise 1e+39"),
        (["--noise", "1", "--gain", "1e-20"], 3, "gain"),
        (["--noise", "1e300", "--gain", "2"], 2, "noise 1e+300"),
    ],
)
def test_f61(lab, options, code, message):
    """A gain, an offset or a noise beyond float32
    exit 2 or 3; which option"""
    if "1e-20" in options:
        np.save("lab.npy", lab[1] * 1e25)
    refused(code, "import", "lab.npy", *LAB, *options, "-o", "x.npz", message=message)
    refused(code, "reconstruct", "lab.npy", *LAB, *options, *FAST, message=message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--noise-sigma", "1e39"], "noise sigma 1e+39"),
        (["--noise-sigma", "1e300"], "noise sigma 1e+300"),
        (["--photons", "1e300"], "photons 1e+300"),
        (["--photons", "1e-300"], "photons 1e-300"),
    ],
)
def test_f62(picture, options, message):
    """Noise or photons that no file holds
    exit 2; the number and the limit"""
    refused(2, "sample", picture, "--ratio", 0.25, *options, message=message)


@pytest.mark.parametrize(
    "other", [np.arange(5.0), np.array('{"format": "other"}'), np.array("text"), np.array(3)]
)
def test_f63(lab, other):
    """A .npz of another program with an array named `metadata`
    read as lab values"""
    np.savez("lab.npz", y=lab[1], metadata=other, mask=np.ones(3))
    run("inspect", "lab.npz")
    made = imported("--var", "y", source="lab.npz")
    np.testing.assert_allclose(reading(made), lab[1], rtol=1e-6)
    run("reconstruct", "lab.npz", *LAB, *FAST)
    np.savez("lab.npz", metadata=lab[1])
    made = imported("--var", "metadata", source="lab.npz")
    np.testing.assert_allclose(reading(made), lab[1], rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--seed", 0, "--shape", "9999999x9999999", "--block", 9999], 3, "Is the shape right?"),
        (["--seed", 0, "--shape", "9999999x9999999", "--block", 9999999], 3, "for 9999"),
        (["--phi", "phi.npy", "--shape", "9999999x9999999", "--positions", "p.npy"], 3, "values"),
        (["--phi", "phi.npy", "--positions", "far.npy"], 3, "values for"),
    ],
)
def test_f66(lab, words, code, message):
    """A size given by hand that is far beyond the values
    exit 3 before memory is allocated"""
    np.save("lab.npy", lab[1][:2])
    if 9999999 in words:
        np.save("lab.npy", lab[1][:1, None, :1])
    np.save("p.npy", [(0, 0), (0, 1)])
    np.save("far.npy", [(0, 0), (32767, 32767)])
    refused(code, "import", "lab.npy", *words, "-o", "x.npz", message=message)


def test_f67(lab):
    """--differential with as many blocks as rows of Φ
    told apart by the number of values"""
    phi, values = lab[0][:6], lab[1][:, :6]
    np.save("phi.npy", phi)
    dark = np.full((6, 6), 7.0)
    pairs = np.stack([values + dark, dark], axis=-1).reshape(6, 12)
    np.save("lab.npy", pairs)
    np.testing.assert_allclose(reading(imported("--differential")), values, atol=1e-4)
    np.save("phi.npy", lab[0][:12])
    np.save("lab.npy", lab[1][:, :12])
    made = imported("--differential")
    np.testing.assert_allclose(reading(made), lab[1][:, 0:12:2] - lab[1][:, 1:12:2], atol=1e-4)
    np.save("phi.npy", phi)
    np.save("lab.npy", lab[1][:, :6])
    refused(2, "import", "lab.npy", *LAB, "--differential", message="say --layout")
    np.save("phi.npy", lab[0][:7])
    np.save("lab.npy", lab[1][:, :7])
    refused(3, "import", "lab.npy", *LAB, "--differential", message="Φ has 7 rows")


@pytest.mark.parametrize(
    "places",
    [
        np.zeros((0, 2)),
        np.full((6, 2), np.nan),
        np.full((6, 2), np.inf),
        np.full((6, 2), 1e300),
        np.full((6, 2), 2**63, np.uint64),
        np.ones((6, 2), bool),
        np.full((6, 2), 1j),
        np.full((6, 2), -1),
        np.full((6, 2), 0.5),
    ],
)
def test_f68(lab, places):
    """Positions that are none: none at all, NaN, infinite, complex, negative, or fractions
    exit 3; what is expected"""
    phi = Phi.given(lab[0])
    with pytest.raises(InputError, match="positions"):
        measurement(lab[1], phi, (32, 48), Arrangement(positions=places))
    with pytest.raises(InputError, match="positions"):
        measurement(lab[1], phi, None, Arrangement(positions=places))


def test_f71(lab):
    """A text or one complex number among the arrays that `inspect` shows
    shown as no numbers"""
    np.savez("lab.npz", y=lab[1], note=np.array("of a text"), z=np.array(1j), flags=lab[1] > 1)
    shown = run("inspect", "lab.npz").stdout
    assert re.search(r"note .*no numbers", shown)
    assert re.search(r"z .*complex", shown)
    with h5py.File("lab.h5", "w") as file:
        file["y"], file["z"] = lab[1], np.complex64(1j)
    run("inspect", "lab.h5")


def test_a_sampled_measurement_beyond_float32_is_not_written(tmp_path):
    m = csrecon.sample(scene()[..., 0], 0.1)
    for changed in ({"y": m.y * np.inf}, {"noise": 1e300}, {"scale": np.nan}):
        with pytest.raises(InputError, match="not written"):
            native.save(replace(m, **changed), tmp_path / "y.npz")
        assert not (tmp_path / "y.npz").exists()


def test_f72(lab):
    """A .npy of values with as many blocks as measurements
    exit 2; say --layout"""
    np.save("phi.npy", lab[0][:6])
    np.save("lab.npy", lab[1][:, :6].T)
    refused(2, "import", "lab.npy", *LAB, message="say --layout")
    made = imported("--layout", "measurements-first")
    np.testing.assert_allclose(reading(made), lab[1][:, :6], rtol=1e-6)
