"""K-space files of scanners: their axes, their centre, and the images that come out."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from csrecon.errors import InputError, UsageError
from csrecon.io import arrays
from csrecon.sensing import coils, kspace
from csrecon.sensing.kspace import Scan
from csrecon.sensing.operators import FourierOperator, SenseOperator
from csrecon.sensing.operators.masks import Origin, draw
from csrecon.sensing.operators.sense import simulated
from tests.test_cli import run
from tests.test_fourier import complex_image

SHAPE = (48, 40)


def centred(image):
    """K-space as scanners store it: the middle of the image and of k-space are the origins."""
    axes = (-2, -1)
    spectrum = np.fft.fft2(np.fft.ifftshift(image, axes=axes), norm="ortho")
    return np.fft.fftshift(spectrum, axes=axes)


def volume(slices=2, shape=SHAPE):
    """Slices (S, H, W), the later ones darker, with a dark margin as of a head in air."""
    image = complex_image(*shape)
    row, column = np.mgrid[: shape[0], : shape[1]]
    inside = np.hypot(row / shape[0] - 0.5, column / shape[1] - 0.5) < 0.42
    return np.stack([image * inside * (1 - 0.3 * index) for index in range(slices)])


def measured(slices=2, several=4, share=0.5, shape=SHAPE):
    """K-space (S, C, H, W) with columns left out, and the mask (W,)."""
    maps = simulated(shape, several)
    rows = draw((shape[1], 1), Origin("equispaced", share, 1, 12))[:, 0]
    mask = np.fft.fftshift(rows)
    seen = centred(maps * volume(slices, shape)[:, None]) * mask
    return (seen * 37).astype(np.complex64), mask


def write_cfl(path, array):
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
    array.ravel(order="F").tofile(path)


def write_all(values, mask):
    """The same k-space in every file format."""
    with h5py.File("a.h5", "w") as file:
        file["kspace"], file["mask"] = values, mask.astype(np.float32)
        file["reconstruction_rss"] = np.zeros((2, *SHAPE), np.float32)
    np.save("a.npy", values)
    turned = values.transpose(2, 3, 1, 0)
    savemat("a.mat", {"k": turned, "tr": 2.5})
    slices, several = values.shape[:2]
    write_cfl(Path("a.cfl"), turned.reshape(*SHAPE, 1, several, *[1] * 9, slices, 1, 1))
    image = np.fft.ifft2(np.fft.ifftshift(values, axes=(2, 3)))
    corner = np.fft.fft2(np.fft.fftshift(image, axes=(2, 3)))
    corner[..., ~np.fft.ifftshift(mask)] = 0
    np.save("corner.npy", corner.astype(np.complex64))
    np.save("axes.npy", values.transpose(1, 2, 0, 3))


def error(found, truth):
    """Relative error of magnitudes, each with its own scale."""
    found = found * (found * truth).sum() / np.square(found).sum()
    return np.linalg.norm(found - truth) / np.linalg.norm(truth)


def test_every_file_format_gives_the_same_images():
    values, mask = measured()
    write_all(values, mask)
    truth = np.abs(volume())
    names = ["a.h5", "a.npy", "a.mat", "a.cfl", "corner.npy", "axes.npy"]
    for name in names:
        axes = ["--axes", "cysx"] if name == "axes.npy" else []
        folder = name.replace(".", "_")
        run("reconstruct", name, *axes, "--model", "tv:iterations=20", "-o", f"{folder}/")
        made = [np.asarray(Image.open(path)) / 255 for path in sorted(Path(folder).iterdir())]
        assert len(made) == 2
        for found, expected in zip(made, truth, strict=True):
            assert error(found, expected) < 0.08
        assert made[1].max() < 0.8 * made[0].max()  # one scale for all slices
        first = Image.open(sorted(Path("a_h5").iterdir())[0])
        assert np.abs(made[0] - np.asarray(first) / 255).max() < 0.03


def test_the_model_is_that_of_the_scan():
    """A of the true image is y, so no phase, turn or shift is missing."""
    values, mask = measured(several=3)
    maps = simulated(SHAPE, 3)
    scan = Scan(values, maps=maps[None])
    for index, image in enumerate(volume()):
        m = scan.measurement(index)
        assert isinstance(m.operator, SenseOperator)
        assert m.operator.ratio == mask.mean()
        pair = np.stack([image.real, image.imag]).astype(np.float32)[None]
        again = m.operator(m.y.new_tensor(pair)) * 37 / m.scale
        np.testing.assert_allclose(again.numpy(), m.y.numpy(), atol=1e-5)
    alone = Scan(centred(volume(1))[:, None]).measurement(0)
    assert type(alone.operator) is FourierOperator
    assert alone.operator.adjoint(alone.y).norm(dim=1).max() == pytest.approx(1 / 1.1, rel=1e-3)


@pytest.mark.parametrize("shape", [(48, 40), (33, 40), (31, 47), (16, 1)])
def test_the_centre_is_found(shape):
    image = complex_image(*shape)
    middle = Scan(centred(image)[None, None])
    corner = Scan(np.fft.fft2(image, norm="ortho")[None, None])
    assert middle.in_the_middle
    assert not corner.in_the_middle or shape == (16, 1)
    found = [scan.measurement(0) for scan in (middle, corner)]
    for m in found:
        x = m.operator.adjoint(m.y)[0].numpy() * m.scale
        np.testing.assert_allclose(x[0] + 1j * x[1], image, atol=1e-4)


def test_what_is_said_of_the_centre_holds_with_a_warning(caplog):
    values, _ = measured()
    assert not Scan(values, centered=False).in_the_middle
    assert "most of the energy is in the middle" in caplog.text
    noise = np.random.default_rng(0).standard_normal((1, 1, 32, 32, 2)).view(np.complex128)[..., 0]
    with pytest.raises(InputError, match="--centered"):
        Scan(noise)
    assert Scan(noise, centered=True).in_the_middle


@pytest.mark.parametrize("given", ["columns", "rows", "whole", "row vector"])
def test_masks_given_with_a_scan(given):
    image = centred(volume(1))[:, None]
    lines = np.zeros(48 if given == "rows" else 40)
    lines[10:30] = 1
    whole = np.zeros(SHAPE)
    whole[:, 10:30] = 1
    choices = {"columns": lines, "rows": lines, "whole": whole, "row vector": lines[None]}
    m = Scan(image, mask=choices[given]).measurement(0)
    assert m.operator.mask.sum() == 20 * (40 if given == "rows" else 48)
    assert m.operator.mask[0, 0]


@pytest.mark.parametrize("several", [1, 2, 8])
def test_estimated_maps_are_those_of_the_scan_up_to_a_phase(several):
    shape = (64, 64)
    maps = simulated(shape, several)
    image = volume(1, shape)[0]
    spectrum = np.fft.fft2(maps * np.abs(image), norm="ortho").astype(np.complex64)
    found = coils.estimate(spectrum, np.ones(shape, bool))
    np.testing.assert_allclose(np.square(np.abs(found)).sum(axis=0), 1, atol=1e-4)
    inside = np.hypot(*(np.mgrid[:64, :64] / 64 - 0.5)) < 0.38
    agreement = np.abs((found.conj() * maps).sum(axis=0))
    assert agreement[inside].min() > 0.97


@pytest.mark.parametrize(
    ("rows", "columns", "box"),
    [(9, 9, (9, 9)), (64, 10, (64, 10)), (7, 20, (7, 20)), (0, 0, (0, 0))],
)
def test_the_calibration_region(rows, columns, box):
    mask = np.zeros((64, 48), bool)
    mask[32 - rows // 2 :, 24 - columns // 2 :][:rows, :columns] = True
    mask[5, ::3] = True
    assert coils.region(mask) == box


@pytest.mark.parametrize(
    ("shape", "order", "axes"),
    [
        ((4, 5), "npy", "yx"),
        ((3, 4, 5), "npy", "cyx"),
        ((3, 4, 5), "h5", "syx"),
        ((4, 5, 3), "mat", "yxc"),
        ((4, 5, 1, 3), "cfl", "yx1c"),
        ((4, 5, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2), "cfl", "yx1c111111111s"),
    ],
)
def test_axes(shape, order, axes):
    assert kspace.axes_of(shape, order) == axes
    values = np.arange(np.prod(shape)).reshape(shape)
    turned = kspace.oriented(values, axes)
    sides = dict(zip(axes, shape, strict=True))
    assert turned.shape == tuple(sides.get(a, 1) for a in "scyx")
    with pytest.raises(UsageError, match="one letter per axis"):
        kspace.oriented(values, "zz")


def test_inspect_names_the_axes_and_the_next_command():
    write_all(*measured())
    said = run("inspect", "a.cfl").stdout
    assert "48 rows × 40 columns × 4 coils × 2 slices; zero frequency in the middle" in said
    assert "next: csrecon reconstruct a.cfl -o slices/" in said
    facts = json.loads(run("inspect", "a.h5", "--json").stdout)["kspace"]
    assert facts["sampled"] == "columns"
    assert facts["calibration"] == [48, 12]
    assert facts["ratio"] == pytest.approx(0.5)
    words = facts["command"].replace("tv", "tv:iterations=3").split()
    run(*words[1:])
    assert [path.name for path in sorted(Path("slices").iterdir())] == ["a_000.png", "a_001.png"]


def test_complex_output_and_slices_in_a_batch_of_files():
    values, mask = measured()
    write_all(values, mask)
    run("reconstruct", "a.h5", "--model", "tv:iterations=5", "-o", "x.npy")
    x = np.load("x_001.npy")
    assert x.dtype == np.complex64
    np.save("bad.npy", np.full((4, 8, 8), np.nan + 0j))
    result = run(
        "reconstruct", "a.npy", "bad.npy", "--model", "tv:iterations=5", "-o", "all/", code=6
    )
    assert "NaN" in result.stderr
    assert len(list(Path("all").iterdir())) == 2


def test_cfl_files():
    array = (np.arange(24) * (1 + 2j)).astype(np.complex64).reshape(2, 3, 1, 4)
    write_cfl(Path("a.cfl"), array)
    np.testing.assert_array_equal(arrays.pick(Path("a.cfl")), array)
    for header in ("", "# Dimensions\n", "# Dimensions\n2 x\n", "# Dimensions\n2 3 1 5\n"):
        Path("a.hdr").write_text(header)
        with pytest.raises(InputError):
            arrays.pick(Path("a.cfl"))
    Path("a.hdr").unlink()
    with pytest.raises(InputError, match=r"a\.hdr: no such file"):
        arrays.pick(Path("a.cfl"))
