"""Image files that others write: bits, signs, compressions, colour maps and pictures of a file."""

import struct
import time

import numpy as np
import pytest
from PIL import Image

from csrecon.errors import InputError
from csrecon.io import decoding
from tests import tiffs
from tests.test_images import GRAY, LUMA, RGB, gray_levels, read

LEVELS = np.arange(40 * 63).reshape(40, 63) % 61 / 60


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, tiffs.DEFLATE])
@pytest.mark.parametrize("photometric", [0, 1, 2])
def test_bits_of_a_tiff(tmp_path, bits, order, compression, photometric):
    white = 2**bits - 1
    levels = np.round(LEVELS * white).astype(f"{order}u2")
    samples = 3 if photometric == 2 else 1
    stored = np.dstack([levels] * samples).astype(levels.dtype)
    data = stored.tobytes() if bits == 16 else tiffs.packed(stored, bits)
    tiffs.write(
        tmp_path / "a.tif", data, levels.shape, bits, order, samples, compression,
        photometric=photometric,
    )  # fmt: skip
    shown = gray_levels(tmp_path / "a.tif", white)
    np.testing.assert_allclose(shown, white - levels if photometric == 0 else levels, atol=0.01)
    assert read(tmp_path / "a.tif").format.bit_depth == 16


@pytest.mark.parametrize("kind", ["i1", "i2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [1, tiffs.DEFLATE])
@pytest.mark.parametrize("photometric", [0, 1])
def test_signed_and_floating_point_samples(tmp_path, kind, order, compression, photometric):
    if kind == "i1" and photometric == 0:
        pytest.skip("no decoder has it")
    white = 1 if kind[0] == "f" else 2 ** (8 * int(kind[1]) - 1) - 1
    levels = LEVELS * white if white == 1 else np.round(LEVELS * white)
    facts = {"photometric": photometric, "sample_format": 3 if kind[0] == "f" else 2}
    data = levels.astype(order + kind).tobytes()
    size = 8 * int(kind[1])
    tiffs.write(tmp_path / "a.tif", data, levels.shape, size, order, 1, compression, **facts)
    shown = read(tmp_path / "a.tif").planes[0, 0].numpy()
    expected = levels / white
    np.testing.assert_allclose(shown, 1 - expected if photometric == 0 else expected, atol=1e-6)


@pytest.mark.parametrize(("extra", "shown"), [(0, 0.4), (1, 0.9), (2, 0.7)])
def test_the_fourth_sample_of_sixteen_bit_colour(tmp_path, extra, shown):
    pixels = np.empty((9, 9, 4), "<u2")
    pixels[..., :3], pixels[..., 3] = round(0.4 * 65535), 65535 // 2
    tiffs.write(
        tmp_path / "a.tif", pixels.tobytes(), (9, 9), 16, samples=4, photometric=2, t338=extra
    )
    np.testing.assert_allclose(gray_levels(tmp_path / "a.tif", 1), shown, atol=1e-3)


def test_the_white_that_a_tag_names(tmp_path, caplog):
    levels = np.round(LEVELS * 4095).astype("<u2")
    for named, white in ((4095, 4095), (4000, 65535), (1023, 65535), (65535, 65535)):
        tiffs.write(tmp_path / "a.tif", levels.tobytes(), levels.shape, 16, t281=named)
        np.testing.assert_allclose(gray_levels(tmp_path / "a.tif", white), levels, atol=0.01)
    caplog.set_level("INFO")
    read(tmp_path / "a.tif")
    assert "no value is above 4095" in caplog.text


def test_a_colour_map_of_eight_bits(tmp_path):
    ramp = [*range(0, 256)]
    for factor in (1, 257):
        colours = [factor * value for value in ramp] * 3
        tiffs.write(tmp_path / "a.tif", GRAY.tobytes(), GRAY.shape, 8, photometric=3, t320=colours)
        np.testing.assert_allclose(gray_levels(tmp_path / "a.tif"), GRAY, atol=0.01)


@pytest.mark.parametrize("white", [1023, 4095, 32767, 65535])
def test_white_of_a_pgm(tmp_path, white):
    levels = np.round(LEVELS * white).astype(">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 63 40 %d\n" % white + levels.tobytes())
    np.testing.assert_allclose(gray_levels(tmp_path / "a.pgm", white), levels, atol=0.3)


def test_a_bmp_of_sixteen_bits_a_pixel(tmp_path):
    head = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 70, 0, 66, 40, 2, 1, 1, 16, 3, 4, 0, 0, 0, 0)
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    (tmp_path / "a.bmp").write_bytes(head + masks + struct.pack("<HH", 0xFFFF, 0))
    assert gray_levels(tmp_path / "a.bmp").tolist() == [[255, 0]]


@pytest.mark.parametrize("photometric", [1, 2])
def test_a_tiff_without_some_of_its_strips(tmp_path, photometric):
    pixels = RGB if photometric == 2 else GRAY
    samples = 3 if photometric == 2 else 1
    path = tmp_path / "a.tif"
    facts = {"samples": samples, "photometric": photometric}
    tiffs.write(path, pixels.tobytes(), GRAY.shape, 8, **facts)
    np.testing.assert_allclose(gray_levels(path), LUMA if samples == 3 else GRAY, atol=0.01)
    taller = GRAY.shape[0] * 2, GRAY.shape[1]
    tiffs.write(path, pixels.tobytes(), taller, 8, **facts, t278=GRAY.shape[0])
    with pytest.raises(InputError, match="strips is missing"):
        read(path)


def test_planes_apart(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    planes = np.moveaxis(RGB, -1, 0)
    for rows in (None, 7):
        tifffile.imwrite(
            tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate",
            rowsperstrip=rows,
        )  # fmt: skip
        np.testing.assert_allclose(gray_levels(tmp_path / "a.tif"), LUMA, atol=0.01)
    tifffile.imwrite(tmp_path / "b.tif", np.tile(RGB, (3, 3, 1)), photometric="rgb", tile=(64, 48))
    np.testing.assert_allclose(gray_levels(tmp_path / "b.tif"), np.tile(LUMA, (3, 3)), atol=0.01)


def test_a_progressive_jpeg_of_too_many_scans(tmp_path, monkeypatch):
    for progressive in (False, True):
        Image.fromarray(RGB).save(tmp_path / f"{progressive}.jpg", progressive=progressive)
        read(tmp_path / f"{progressive}.jpg")
    monkeypatch.setattr(decoding, "_MOST_SCANNED", 2 * GRAY.size)
    read(tmp_path / "False.jpg")
    with pytest.raises(InputError, match="scans"):
        read(tmp_path / "True.jpg")


def test_pictures_in_one_file(tmp_path, caplog):
    caplog.set_level("INFO")
    for name, kind in (("a.jpg", "MPO"), ("a.tif", "TIFF"), ("b.png", "PNG"), ("a.gif", "GIF")):
        caplog.clear()
        others = [Image.fromarray(np.full_like(RGB, level)) for level in (0, 99)]
        Image.fromarray(RGB).save(tmp_path / name, kind, save_all=True, append_images=others)
        assert np.abs(gray_levels(tmp_path / name) - LUMA).mean() < 6
        assert "the first is used" in caplog.text


def test_a_tiff_of_very_many_pictures(tmp_path):
    tiffs.write(tmp_path / "one.tif", GRAY.tobytes(), GRAY.shape, 8)
    whole = (tmp_path / "one.tif").read_bytes()
    start = struct.unpack("<I", whole[4:8])[0]
    directory, count = whole[start:-4], 30_000
    following = (start + len(directory) + 4) + (len(directory) + 4) * np.arange(count)
    rest = b"".join(directory + struct.pack("<I", at) for at in (*following.tolist(), 0))
    (tmp_path / "many.tif").write_bytes(whole[:start] + rest)
    began = time.monotonic()
    np.testing.assert_allclose(gray_levels(tmp_path / "many.tif"), GRAY, atol=0.01)
    assert time.monotonic() - began < 3  # half a minute where all of them are counted
