"""Faults of images."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from tests import tiffs
from tests.conftest import scene
from tests.faults.checks import refused, sampled
from tests.test_cli import run


def test_f01(picture):
    """A truncated image
    exit 3; copy it again"""
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    refused(3, "sample", picture, "--ratio", 0.1, message="img.png")


def test_f02():
    """A file that is not an image
    exit 3"""
    Path("img.png").write_text("hello")
    refused(3, "sample", "img.png", "--ratio", 0.1, message="img.png")


def test_f03(picture, monkeypatch):
    """A decompression bomb
    exit 3 before any pixel is decoded"""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(3, "sample", picture, "--ratio", 0.1, message="decompression bomb")


def test_f04():
    """A 16-bit image
    16 bits in, 16 bits out"""
    levels = (scene()[..., 0].astype(np.uint16) * 257 + 13).clip(0, 65535)
    Image.fromarray(levels).save("deep.png")
    run("sample", "deep.png", "--ratio", 1, "--block", 8)
    run("reconstruct", "y.npy", "--ipl", 1)
    back = np.asarray(Image.open("y.png")).astype(int)
    assert abs(back - levels.astype(int)).max() <= 2


def test_f05():
    """A palette, or an alpha channel
    the visible colours; transparent pixels are flattened onto white"""
    Image.fromarray(scene()).quantize(64).save("palette.png")
    shown = np.asarray(Image.open("palette.png").convert("L")) / 255
    np.testing.assert_allclose(sampled("palette.png"), shown, atol=0.01)
    clear = Image.fromarray(scene()).convert("RGBA")
    clear.putalpha(0)
    clear.save("clear.png")
    Path("whole.npz").unlink()
    np.testing.assert_allclose(sampled("clear.png"), 1, atol=1e-3)


def test_f06():
    """A CMYK image
    its luma"""
    Image.fromarray(scene()).convert("CMYK").save("cmyk.tif")
    shown = np.asarray(Image.fromarray(scene()).convert("L")) / 255
    assert abs(sampled("cmyk.tif") - shown).mean() < 0.05


def test_f07():
    """An animation
    its first frame"""
    frames = [Image.fromarray(np.full((40, 40), v, np.uint8)) for v in (200, 10)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(sampled("a.gif"), 200 / 255, atol=0.01)


def test_f08():
    """A photo with an EXIF rotation
    upright"""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(40, 60)).save("turned.png", exif=exif)
    assert sampled("turned.png").shape == (60, 40)


def test_f09():
    """An image smaller than a block
    padded for measuring, cropped in the result"""
    Image.fromarray(scene(3, 5)).save("tiny.png")
    run("sample", "tiny.png", "--ratio", 0.5)
    run("reconstruct", "y.npy")
    assert Image.open("y.png").size == (5, 3)


def test_f10():
    """An empty or a missing file
    exit 3"""
    Path("empty.png").touch()
    refused(3, "sample", "empty.png", "--ratio", 0.1, message="empty")
    refused(3, "sample", "none.png", "--ratio", 0.1, message="no such file")


def test_f73():
    """A TIFF of signed samples with negative values
    exit 3; subtract the offset. Without negative values, the scale of signed samples"""
    levels = np.arange(64, dtype="<i2").reshape(8, 8) * 500
    for bits, kind in ((16, "<i2"), (8, "<i1")):
        data = (levels // (1 if bits == 16 else 256) - 3).astype(kind).tobytes()
        tiffs.write(Path("signed.tif"), data, (8, 8), bits, sample_format=2)
        refused(3, "sample", "signed.tif", "--ratio", 0.5, message="negative values (down to -3)")
    tiffs.write(Path("signed.tif"), levels.tobytes(), (8, 8), 16, sample_format=2)
    np.testing.assert_allclose(sampled("signed.tif"), levels / 32767, atol=1e-4)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_f74(bits):
    """A TIFF of 10, 12 or 14 bits
    its own white, not that of 16 bits"""
    levels = np.arange(64).reshape(8, 8) * (2**bits - 1) // 63
    tiffs.write(Path("deep.tif"), tiffs.packed(levels, bits), (8, 8), bits)
    np.testing.assert_allclose(sampled("deep.tif"), levels / (2**bits - 1), atol=1e-4)


def test_f75():
    """A compressed big-endian TIFF of floats, whose bytes Pillow swaps twice
    the values that were written"""
    levels = np.linspace(0.2, 0.3, 64, dtype=">f4").reshape(8, 8)
    tiffs.write(
        Path("float.tif"), levels.tobytes(), (8, 8), 32, ">", 1, tiffs.DEFLATE, sample_format=3
    )
    np.testing.assert_allclose(sampled("float.tif"), levels, atol=1e-4)


def test_f76(monkeypatch):
    """PostScript under the name of an image
    exit 3; no interpreter is started"""
    Path("gs").write_text("#!/bin/sh\ntouch started\nexit 1\n")
    Path("gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path.cwd()}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # what it found before
    box = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    Path("img.png").write_text(box)
    refused(3, "sample", "img.png", "--ratio", 0.1, message="not an image")
    assert not Path("started").exists()


def test_f83():
    """A decompression bomb in a set that is verified
    exit 7; it is named, and not decoded"""
    Path("set").mkdir()
    Image.fromarray(scene()).save("set/t1.png")
    whole = bytearray(Path("set/t1.png").read_bytes())
    for side in (20_000, 12_000):  # Pillow refuses the first, and decodes the second
        whole[16:24] = struct.pack(">II", side, side)
        whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
        Path("set/t1.png").write_bytes(whole)
        result = run("data", "verify", "t91", "set", code=7)
        assert "t1.png: other content than the published file" in result.stdout
