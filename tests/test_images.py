"""Every kind of image file becomes the planes that it shows, and comes back."""

import json
import struct

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from csrecon.errors import InputError, UsageError
from csrecon.io import decoding, images
from tests.conftest import scene

RGB = scene()
GRAY = RGB[..., 0]


def luma(rgb):
    return (rgb.astype(int) @ [299, 587, 114] + 500) // 1000


LUMA = luma(RGB)


def read(path, color="gray"):
    return images.read(path, color)


def gray_levels(path, white=255):
    return read(path).planes[0, 0].numpy() * white


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "1"])
def test_lossless_formats(tmp_path, suffix, mode):
    path = tmp_path / f"a{suffix}"
    image = Image.fromarray(GRAY if mode in ("L", "1") else RGB).convert(mode)
    if suffix == ".webp" and mode == "1":
        image = image.convert("L")
    image.save(path, **({"lossless": True} if suffix == ".webp" else {}))
    shown = np.asarray(image.convert("RGB"))
    np.testing.assert_allclose(gray_levels(path), luma(shown), atol=1e-3)
    rgb = images.to_array(read(path, "rgb").planes, "rgb")
    np.testing.assert_allclose(255 * rgb, shown, atol=1e-3)


def test_jpeg_and_cmyk(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(gray_levels(tmp_path / "a.jpg") - LUMA).mean() < 3
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "b.jpg", quality=95)
    assert np.abs(gray_levels(tmp_path / "b.jpg") - LUMA).mean() < 3


def test_luma_is_rounded_to_the_depth_of_the_file(photo):
    np.testing.assert_allclose(gray_levels(photo), LUMA, atol=1e-4)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_gray(tmp_path, suffix):
    levels = (GRAY.astype(np.uint16) * 257) ^ 3
    Image.fromarray(levels).save(tmp_path / f"a{suffix}")
    picture = read(tmp_path / f"a{suffix}")
    assert picture.format.bit_depth == 16
    np.testing.assert_allclose(gray_levels(tmp_path / f"a{suffix}", 65535), levels, atol=0.01)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_colour(tmp_path, suffix):
    levels = (RGB.astype(np.uint16) * 257) ^ 3
    cv2.imwrite(str(tmp_path / f"a{suffix}"), levels[..., ::-1])
    picture = read(tmp_path / f"a{suffix}", "rgb")
    assert picture.format.bit_depth == 16
    np.testing.assert_allclose(images.to_array(picture.planes, "rgb") * 65535, levels, atol=0.01)
    np.testing.assert_allclose(gray_levels(tmp_path / f"a{suffix}", 65535), luma(levels), atol=0.01)


def test_alpha_is_flattened_onto_white(tmp_path):
    half = np.dstack([RGB, np.full(GRAY.shape, 128, np.uint8)])
    Image.fromarray(half).save(tmp_path / "a.png")
    expected = RGB * (128 / 255) + 255 * (127 / 255)
    rgb = images.to_array(read(tmp_path / "a.png", "rgb").planes, "rgb")
    np.testing.assert_allclose(255 * rgb, expected, atol=1.01)
    deep = np.dstack(
        [RGB[..., ::-1].astype(np.uint16) * 257, np.full(GRAY.shape, 32896, np.uint16)]
    )
    cv2.imwrite(str(tmp_path / "b.png"), deep)
    rgb = images.to_array(read(tmp_path / "b.png", "rgb").planes, "rgb")
    np.testing.assert_allclose(255 * rgb, expected, atol=0.01)


UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.rot90(np.fliplr(a)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.fliplr(a), -1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        *((suffix, kind) for suffix in (".png", ".jpg", ".tif") for kind in ("gray", "rgb")),
        *((".png", "gray16"), (".tif", "gray16"), (".tif", "rgb16")),
    ],
)
def test_exif_orientation(tmp_path, suffix, kind, orientation):
    path = tmp_path / f"a{suffix}"
    pixels = RGB[:24, :40] if "rgb" in kind else GRAY[:24, :40]
    deep = kind.endswith("16")
    if deep and kind == "rgb16":
        tifffile = pytest.importorskip("tifffile")
        extra = [(274, "H", 1, orientation, True)]
        levels = pixels.astype(np.uint16) * 257
        tifffile.imwrite(path, levels, photometric="rgb", extratags=extra)
    else:
        image = Image.fromarray(pixels.astype(np.uint16) * 257 if deep else pixels)
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(path, exif=exif, **({"quality": 95} if suffix == ".jpg" else {}))
    shown = 255 * images.to_array(read(path, "rgb").planes, "rgb")
    expected = UPRIGHT[orientation](pixels if "rgb" in kind else np.dstack([pixels] * 3))
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < (6 if suffix == ".jpg" else 0.01)


def test_transparent_colours_are_white(tmp_path):
    gray = GRAY.copy()
    gray[:9] = 7
    Image.fromarray(gray).save(tmp_path / "a.png", transparency=7)
    assert gray_levels(tmp_path / "a.png")[:9].min() == 255
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "b.png", transparency=7 * 257)
    assert gray_levels(tmp_path / "b.png")[:9].min() == 255


def test_kinds_of_tiff_that_cannot_be_trusted(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    deep = RGB.astype(np.uint16) * 257
    tifffile.imwrite(
        tmp_path / "planes.tif",
        np.moveaxis(deep, -1, 0),
        photometric="rgb",
        planarconfig="separate",
    )
    with pytest.raises(InputError, match="separate planes"):
        read(tmp_path / "planes.tif")
    tifffile.imwrite(tmp_path / "long.tif", GRAY.astype(np.int32))
    with pytest.raises(InputError, match="32-bit"):
        read(tmp_path / "long.tif")
    tifffile.imwrite(tmp_path / "negative.tif", 65535 - deep[..., 0], photometric="miniswhite")
    np.testing.assert_allclose(gray_levels(tmp_path / "negative.tif"), GRAY, atol=0.01)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (10, 200)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert gray_levels(tmp_path / "a.webp").max() < 20


def test_floating_point_tiff(tmp_path):
    Image.fromarray((GRAY / 255).astype(np.float32)).save(tmp_path / "a.tif")
    np.testing.assert_allclose(gray_levels(tmp_path / "a.tif"), GRAY, atol=1e-3)
    Image.fromarray(GRAY.astype(np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        read(tmp_path / "b.tif")


def test_broken_files(tmp_path, photo):
    whole = photo.read_bytes()
    faults = {
        "cut.png": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.png": b"not an image at all",
        "head.png": whole[:20],
    }
    for name, content in faults.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read(tmp_path / name)
    with pytest.raises(InputError, match="no such file"):
        read(tmp_path / "missing.png")


@pytest.mark.parametrize("fault", [TypeError, KeyError, ZeroDivisionError, struct.error])
def test_whatever_a_decoder_raises_is_bad_input(photo, monkeypatch, fault):
    def broken(*_):
        raise fault("planted")

    monkeypatch.setattr(decoding, "_decode", broken)
    with pytest.raises(InputError, match="truncated or damaged"):
        read(photo)


def test_decompression_bomb(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="bomb"):
        read(photo)


@pytest.mark.parametrize("color", ["gray", "rgb", "ycbcr"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_written_files_come_back(tmp_path, photo, color, suffix):
    picture = read(photo, color)
    images.encode(tmp_path / f"b{suffix}", images.to_array(picture.planes, color), 8)
    again = read(tmp_path / f"b{suffix}", color)
    torch.testing.assert_close(again.planes, picture.planes, atol=1e-5, rtol=0)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("color", ["gray", "rgb"])
def test_written_sixteen_bits_come_back(tmp_path, suffix, color):
    pixels = np.linspace(0, 1, 6000, dtype=np.float32).reshape(40, 50, 3)
    pixels = pixels if color == "rgb" else pixels[..., 0]
    images.encode(tmp_path / f"a{suffix}", pixels, 16)
    back = images.to_array(read(tmp_path / f"a{suffix}", color).planes, color)
    np.testing.assert_allclose(back, pixels, atol=0.51 / 65535)


def test_written_values_are_clipped(tmp_path):
    images.encode(tmp_path / "a.png", np.array([[-1, 2], [0.5, 1]], np.float32), 8)
    np.testing.assert_allclose(gray_levels(tmp_path / "a.png"), [[0, 255], [128, 255]], atol=1e-3)


def test_npy_keeps_what_is_computed(tmp_path):
    pixels = np.array([[-0.5, 1.5]], np.float32)
    images.encode(tmp_path / "a.npy", pixels, 8)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), pixels)


def test_sixteen_bits_into_jpeg_is_said(tmp_path, caplog):
    images.encode(tmp_path / "a.jpg", np.zeros((9, 9), np.float32), 16)
    assert "8 bits" in caplog.text


MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_damage_does_worse_than_an_input_error(tmp_path_factory, suffix, data):
    path = tmp_path_factory.mktemp("fuzz") / f"a{suffix}"
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    mode = data.draw(st.sampled_from(MODES))
    try:
        deep = np.arange(height * width, dtype=np.uint16).reshape(height, width)
        whole = Image.fromarray(scene(height, width)).convert("L" if mode == "I;16" else mode)
        (Image.fromarray(deep) if mode == "I;16" else whole).save(path)
    except (OSError, ValueError):  # a mode that the format does not have
        return
    planes = read(path).planes
    assert planes.shape == (1, 1, height, width)
    assert 0 <= float(planes.min()) <= float(planes.max()) <= 1
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        planes = read(path).planes
    except InputError:
        return
    assert bool(torch.isfinite(planes).all())


FACTS = {"model": "rcoast", "gain": 850.5}


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_facts_are_kept_as_text(tmp_path, bit_depth):
    pixels = np.zeros((9, 9), np.float32)
    for name in ("a.png", "a.tif", "a.jpg", "a.bmp", "a.npy"):
        images.encode(tmp_path / name, pixels, bit_depth, facts=FACTS)
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.tif") as tif:
        assert json.loads(png.text["csrecon"]) == FACTS
        assert json.loads(tif.tag_v2[270]) == FACTS
    with Image.open(tmp_path / "a.jpg") as jpeg:
        assert json.loads(jpeg.info["comment"]) == FACTS


def test_a_side_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(UsageError, match="16383"):
        images.encode(tmp_path / "a.webp", np.zeros((1, 16384), np.float32), 8)
    assert not (tmp_path / "a.webp").exists()


def test_unknown_colours_are_refused():
    with pytest.raises(UsageError, match="RGB"):
        images.from_array(RGB, "RGB")


@pytest.mark.parametrize("color", ["gray", "ycbcr", "rgb"])
@pytest.mark.parametrize("bit_depth", [8, 16])
def test_bands_change_nothing(tmp_path, monkeypatch, color, bit_depth):
    white = 2**bit_depth - 1
    pixels = scene(41, 30).astype(np.uint8 if bit_depth == 8 else np.uint16) * (white // 255)
    whole = images.from_array(pixels, color)
    shown = images.to_array(whole.planes, color)
    images.encode(tmp_path / "whole.png", shown, bit_depth)
    monkeypatch.setattr(images, "_BAND", 70)
    banded = images.from_array(pixels, color)
    assert torch.equal(banded.planes, whole.planes)
    assert np.array_equal(images.to_array(banded.planes, color), shown)
    images.encode(tmp_path / "banded.png", shown, bit_depth)
    assert (tmp_path / "banded.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_arrays_of_every_memory_layout():
    for array in (RGB[::-1, ::2], np.asfortranarray(RGB), RGB.astype(">u2"), RGB.astype("<u2")):
        picture = images.from_array(array)
        white = 255 if array.dtype == np.uint8 else 65535
        back = images.to_array(picture.planes, "rgb") * white
        np.testing.assert_allclose(back, array, atol=0.01)
    half = torch.from_numpy(RGB / 255).to(torch.bfloat16).requires_grad_()
    assert images.from_array(half).planes.dtype == torch.float32


def test_unknown_suffix(tmp_path):
    with pytest.raises(UsageError, match="image format"):
        images.check_suffix(tmp_path / "a.xyz")


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy])
def test_arrays(make):
    for array, planes in ((GRAY, 1), (RGB, 3)):
        picture = images.from_array(make(array.copy()))
        assert picture.planes.shape == (planes, 1, *array.shape[:2])
        back = images.to_array(picture.planes, picture.format.color)
        np.testing.assert_allclose(255 * back, array, atol=1e-4)
    floats = images.from_array(make((RGB / 255).astype(np.float32)), "gray")
    np.testing.assert_allclose(floats.planes[0, 0] * 255, RGB @ [0.299, 0.587, 0.114], atol=1e-3)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4, 4), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.zeros((4, 4), np.int32),
        np.full((4, 4), 1.5),
        np.full((4, 4), -0.5),
        np.full((4, 4), np.nan),
    ],
    ids=lambda a: f"{a.shape}{a.dtype}",
)
def test_arrays_that_are_no_images(array):
    with pytest.raises(InputError):
        images.from_array(array)
