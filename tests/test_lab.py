"""A laboratory's values: every order and unit that can be said is undone, the rest refused."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import cbook
from PIL import Image
from scipy.io import savemat

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.reconstructors import calibration
from csrecon.sensing import lab
from csrecon.sensing.lab import Arrangement
from csrecon.sensing.operators import BlockOperator, Phi, make
from tests.conftest import scene
from tests.test_cli import run

SHAPE = (100, 70)  # 4×3 blocks of 32×32, cut at the right and the bottom
BLOCK = (32, 32)


def phi_of(kind="gaussian", m=128):
    return Phi.given(make(kind, m, BLOCK, 3).rows().matrix().numpy())


def image():
    return scene(*SHAPE)[..., 0].astype(np.float32) / 255


def native(phi):
    """What csrecon itself measures: (blocks, m)."""
    operator = BlockOperator(phi, SHAPE, BLOCK)
    return operator(torch.from_numpy(image())[None, None])[0].reshape(12, -1).numpy()


def by_columns(phi):
    """The same Φ, with the pixels of a block column by column, as MATLAB's x(:) has them."""
    rows = [pattern.reshape(BLOCK).ravel(order="F") for pattern in phi.matrix]
    return Phi.given(np.array(rows))


def read(values, phi, **said):
    made, correction = lab.measurement(
        values, phi, SHAPE, Arrangement(**said), BLOCK, estimator=calibration.estimate
    )
    return made.y[0].reshape(12, -1).numpy(), made, correction


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_every_arrangement_is_undone(data):
    phi = phi_of()
    y = native(phi)
    said = {}
    order = np.arange(12)
    if data.draw(st.booleans(), "blocks by columns"):
        said["block_order"] = "F"
        order = np.arange(12).reshape(4, 3).ravel(order="F")
    elif data.draw(st.booleans(), "positions"):
        order = np.array(data.draw(st.permutations(range(12))))
        said["positions"] = np.stack([order // 3, order % 3], axis=1)
    values, used = y[order], phi
    if data.draw(st.booleans(), "pixels by columns"):
        said["pixel_order"] = "F"
        used = by_columns(phi)
    gain = data.draw(st.sampled_from([1.0, -2.5, 4096.0]))
    offset = data.draw(st.sampled_from([None, 7.0]))
    values = gain * values + (offset or 0)
    said |= {"gain": gain, "offset": offset}
    if data.draw(st.booleans(), "measurements first"):
        values = values.T
    got, made, correction = read(values, used, **said)
    np.testing.assert_allclose(got, y, atol=1e-3)
    np.testing.assert_allclose(made.operator.phi.matrix, phi.matrix)
    assert correction == lab.Calibration(gain, offset or 0)


def test_other_shapes_of_the_array():
    phi = phi_of()
    y = native(phi)
    for values in (y.reshape(4, 3, 128), y.T.reshape(128, 4, 3)):
        np.testing.assert_array_equal(read(values, phi)[0], y)
    one, _ = lab.measurement(y[0], phi, (32, 32), Arrangement())
    np.testing.assert_array_equal(one.y[0, 0, 0], y[0])


def test_missing_blocks_are_left_out():
    phi = phi_of()
    y = native(phi)
    kept = [0, 2, 3, 7, 11]
    positions = np.array([(k // 3, k % 3) for k in kept])
    got, made, _ = read(y[kept], phi, positions=positions)
    np.testing.assert_array_equal(got[kept], y[kept])
    assert not got[[k for k in range(12) if k not in kept]].any()
    seen = made.operator.observed()
    assert seen.shape == SHAPE
    assert [bool(seen[32 * (k // 3), 32 * (k % 3)]) for k in range(12)] == [
        k in kept for k in range(12)
    ]
    assert seen[96:, 32:64].sum() == 0  # the last row of blocks is cut
    x = csrecon.reconstruct(made, ipl=1)
    assert np.array_equal(np.isfinite(x), seen.numpy())
    same = csrecon.reconstruct(
        y[kept], ipl=1, phi=phi, shape=SHAPE, arrangement=Arrangement(positions=positions)
    )
    np.testing.assert_array_equal(same, x)
    whole = csrecon.reconstruct(csrecon.sample(image(), phi=phi, block=BLOCK), ipl=1)
    inside = np.s_[2:30, 2:20]
    assert np.abs(x[inside] - whole[inside]).mean() < 0.05


def test_calibration_with_two_scenes():
    phi = phi_of("binary")
    y = native(phi)
    dark = np.linspace(1, 2, 128, dtype=np.float32)
    flat = phi.matrix.sum(axis=1)
    got, _, correction = read(30 * y + dark, phi, white=30 * flat + dark, black=dark)
    np.testing.assert_allclose(got, y, atol=1e-3)
    assert correction.gain == pytest.approx(30)
    per_block = np.tile(30 * flat + dark, (5, 1)), np.tile(dark, (5, 1))
    np.testing.assert_allclose(
        read(30 * y + dark, phi, white=per_block[0], black=per_block[1])[0], y, atol=1e-3
    )


def test_scenes_that_tell_nothing(caplog):
    phi = phi_of("binary")
    y = native(phi)
    zeros = np.zeros(128)
    with pytest.raises(InputError, match="determine no gain"):
        read(y, phi, white=zeros, black=zeros)
    odd = phi.matrix.sum(axis=1) * np.linspace(0, 2, 128)
    read(y, phi, white=odd, black=zeros)
    assert "is not explained by Φ" in caplog.text


@pytest.mark.parametrize("kind", ["gaussian", "binary", "bernoulli", "hadamard"])
@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (420.0, 35.0), (0.003, -0.1)])
def test_unknown_gain_and_offset_are_estimated(kind, gain, offset):
    picture = scene(256, 256)[..., 0].astype(np.float32) / 255
    phi = phi_of(kind)
    operator = BlockOperator(phi, (256, 256), BLOCK)
    y = operator(torch.from_numpy(picture)[None, None])[0].numpy()
    made, correction = lab.measurement(
        gain * y + offset,
        phi,
        (256, 256),
        Arrangement(gain="auto"),
        BLOCK,
        estimator=calibration.estimate,
    )
    assert correction.gain / gain == pytest.approx(np.quantile(picture, 0.99) / 0.97, rel=0.1)
    scale = np.abs(y).mean()
    assert abs(correction.offset / gain - offset / gain) < 0.05 * scale
    assert made.y.abs().mean() == pytest.approx(scale * gain / correction.gain, rel=0.1)


def test_noise_is_known_in_the_units_of_y():
    """The difference of two values has √2 of their noise, and a gain of 4 a quarter of it."""
    phi = phi_of()
    made = read(native(phi), phi, noise=0.1)[1]
    assert made.noise == pytest.approx(0.1)
    pairs = np.repeat(native(phi), 2, axis=1) * np.tile([1, 0], phi.shape[0])
    made = read(4 * pairs, phi, noise=0.1, gain=4.0, differential=True)[1]
    assert made.noise == pytest.approx(0.1 * np.sqrt(2) / 4)


def test_differential_patterns():
    binary = phi_of("binary", 40)
    signs = Phi.given(2 * binary.matrix - 1)
    pairs = np.stack([binary.matrix, 1 - binary.matrix], axis=1).reshape(80, -1)
    both = BlockOperator(Phi.given(pairs), SHAPE, BLOCK)
    raw = both(torch.from_numpy(image())[None, None])[0].reshape(12, 80).numpy() + 5
    for phi in (signs, Phi.given(pairs)):
        got, made, _ = read(raw, phi, differential=True)
        assert made.operator.m == 40
        np.testing.assert_allclose(made.operator.phi.matrix, signs.matrix)
        np.testing.assert_allclose(got, native(signs), atol=1e-2)
    with pytest.raises(InputError, match="expected 12 blocks × 80"):
        read(raw[:, :79], signs, differential=True)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"layout": "rows"}, "layout 'rows': expected auto"),
        ({"pixel_order": "c"}, "pixel_order 'c': expected C, F"),
        ({"gain": 0.0}, "other than 0"),
        ({"gain": float("nan")}, "other than 0"),
        ({"noise": -0.1}, "standard deviation"),
        ({"white": np.ones(3)}, "both"),
        ({"white": np.ones(3), "black": np.ones(3), "gain": "auto"}, "leave those out"),
    ],
)
def test_arrangements_that_cannot_be(said, message):
    with pytest.raises(UsageError, match=message):
        Arrangement(**said)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0, 0], [0, 0]], "twice"),
        ([[0, 0], [4, 0]], "4×3 blocks"),
        ([[0, 0], [0, -1]], "counted from zero"),
        ([[0, 0.5], [1, 1]], "whole numbers"),
        ([0, 1], "expected one line"),
        ([[0, 0]], "expected 1 blocks"),
    ],
)
def test_positions_that_cannot_be(positions, message):
    phi = phi_of()
    with pytest.raises(InputError, match=message):
        read(native(phi)[:2], phi, positions=np.array(positions))


def test_what_the_shapes_do_not_say():
    phi = Phi.given(make("gaussian", 12, BLOCK, 0).matrix)
    y = native(phi)
    with pytest.raises(UsageError, match="say --layout"):
        read(y, phi)
    np.testing.assert_array_equal(read(y, phi, layout="blocks-first")[0], y)
    np.testing.assert_array_equal(read(y.T, phi, layout="measurements-first")[0], y)
    with pytest.raises(InputError, match=r"expected 12 blocks × 128"):
        read(y, phi_of())
    with pytest.raises(InputError, match="NaN or infinite"):
        read(y * np.nan, phi, layout="blocks-first")


def test_auto_without_anything_to_go_by():
    flat = Phi.given(np.eye(40, 1024))
    y = native(flat)
    with pytest.raises(InputError, match="cannot tell the offset"):
        read(y, flat, gain="auto")
    assert read(3 * y + 2, flat, gain="auto", offset=2.0)[2].gain == pytest.approx(3, rel=0.6)


def camera(folder, gain=850.0, offset=120.0):
    """A .mat file as a MATLAB camera might leave it: Φ of its own by columns, two blocks missing.

    Returns the image and csrecon's own measurement of it.
    """
    with cbook.get_sample_data("grace_hopper.jpg") as stream:
        picture = np.array(Image.open(stream).convert("L"))[40:200, 180:310]
    phi = np.random.Generator(np.random.PCG64(0)).normal(size=(400, 1024))
    grid = [(row, column) for column in range(5) for row in range(5)]
    there = [place for place in grid if place not in [(1, 2), (4, 4)]]
    canvas = np.zeros((160, 160))
    canvas[:, :130] = picture / 255
    blocks = [canvas[32 * r : 32 * r + 32, 32 * c : 32 * c + 32].ravel(order="F") for r, c in there]
    savemat(
        folder / "camera.mat", {"y": gain * (phi @ np.stack(blocks, axis=1)) + offset, "Phi": phi}
    )
    np.savetxt(folder / "positions.csv", there, fmt="%d", delimiter=",")
    Image.fromarray(picture).save(folder / "scene.png")
    by_rows = phi.reshape(400, 32, 32).swapaxes(1, 2).reshape(400, 1024)
    return picture / 255, csrecon.sample(picture, phi=by_rows)


def error_in_db(x, picture, seen):
    """PSNR over the pixels seen, after the gain and offset that no camera without them can know."""
    columns = np.stack([x[seen], np.ones(seen.sum())], axis=1)
    fit, *_ = np.linalg.lstsq(columns, picture[seen], rcond=None)
    return -10 * np.log10(np.mean((columns @ fit - picture[seen]) ** 2))


CAMERA = ["camera.mat", "--var", "y", "--phi", "camera.mat:Phi", "--shape", "160x130"]
ORDER = ["--pixel-order", "F", "--positions", "positions.csv"]


@pytest.mark.parametrize("units", [["--gain", "850", "--offset", "120"], ["--gain", "auto"]])
def test_a_camera_in_one_command(tmp_path, monkeypatch, units):
    monkeypatch.chdir(tmp_path)
    picture, own = camera(tmp_path)
    run("reconstruct", *CAMERA, *ORDER, *units, "-o", "x.npy")
    x = np.load("x.npy")
    seen = np.isfinite(x)
    assert (~seen).sum() == 32 * 32 + 32 * 2
    native = csrecon.reconstruct(own)
    allowed = 0.5 if "auto" in units else 0.3  # dB that an estimate of the gain may cost
    assert error_in_db(x, picture, seen) > error_in_db(native, picture, seen) - allowed


def test_what_was_removed_is_written_into_the_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camera(tmp_path)
    result = run(
        "reconstruct", *CAMERA, *ORDER, "--gain", "auto", "--ipl", 1, "-o", "x.png", "--json"
    )
    said = json.loads(result.stdout)[0]
    with Image.open("x.png") as image:
        written = json.loads(image.text["csrecon"])
    removed = ("gain", "offset", "gain_error", "offset_error")
    assert [written[name] for name in removed] == [said[name] for name in removed]
    assert 0 < said["gain_error"] < 0.2
    assert abs(said["offset"] - 120) < 4 * said["offset_error"]
    assert (written["model"], written["iterations"]) == ("frcoast", 1)


def test_a_camera_is_imported_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camera(tmp_path)
    before = (tmp_path / "camera.mat").read_bytes()
    result = run("import", *CAMERA, *ORDER, "--gain", "850", "--offset", "120", "--json")
    assert json.loads(result.stdout)["gain"] == 850
    assert "gain_error" not in json.loads(result.stdout)
    said = run("import", *CAMERA, *ORDER, "--gain", "auto", "-o", "auto.npz").stdout
    said = " ".join(said.split())
    assert re.search(r"gain [89]\S+ ± \S+ % and offset 12\S+ ± \S+, both estimated; removed", said)
    assert (tmp_path / "camera.mat").read_bytes() == before
    facts = json.loads(run("inspect", "camera.npz", "--json").stdout)
    assert (facts["m"], facts["missing_blocks"], facts["orthonormal"]) == (400, 2, False)
    result = run("reconstruct", "camera.npz", "--ipl", 1, "--ref", "scene.png", "--json")
    facts = json.loads(result.stdout)[0]
    assert facts["missing_pixels"] == 32 * 32 + 32 * 2
    assert facts["psnr"] > 20
    with Image.open("camera.png") as image:
        assert image.mode == "RGBA"
        assert image.getpixel((70, 40))[3] == 0
        assert image.getpixel((0, 0))[3] == 255
    run("reconstruct", "camera.npz", "--ipl", 1, "--rotate", 90, "-o", "turned.png")
    with Image.open("turned.png") as image:
        assert image.size == (160, 130)
        assert image.getpixel((159 - 40, 70))[3] == 0
    result = run("reconstruct", "camera.npz", "--gain", 2, "-o", "x.png", code=2)
    assert "with its order and units" in result.stderr


def test_inspect_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    camera(tmp_path)
    said = run("inspect", "camera.mat").stdout
    assert "32×32 blocks, ratio 0.391, not orthonormal" in said
    assert "y: 23 blocks × 400 measurements (measurements-first)" in said
    assert "csrecon reconstruct camera.mat --var y --phi camera.mat:Phi --shape HxW" in said
    np.save("other.npy", np.zeros((7, 1024)))
    assert "not measured with this Φ" in run("inspect", "camera.mat", "--phi", "other.npy").stdout
    result = run("reconstruct", *CAMERA[:3], code=2)
    assert "csrecon inspect camera.mat" in result.stderr
