"""Image files and arrays <-> float32 planes (C, 1, H, W) in [0, 1].

Colour planes are a batch: a gray image is one plane, `ycbcr` and `rgb` are three. Luma is the
full-range BT.601 plane Y = 0.299 R + 0.587 G + 0.114 B, rounded to the bit depth of the file as
the papers do; Cb and Cr are the JPEG ones, centred on 1/2. Bit depths exist only in this module.
"""

import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.io import arrays, decoding
from csrecon.io.files import read_npy, reading, require_file, write_npy

Color = Literal["gray", "ycbcr", "rgb", "complex"]
BitDepth = Literal[8, 16]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_DEEP_SUFFIXES = (".png", ".tif", ".tiff")  # formats that can hold 16 bits

_TO_YCBCR = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.299 / 1.772, -0.587 / 1.772, 0.886 / 1.772],
        [0.701 / 1.402, -0.587 / 1.402, -0.114 / 1.402],
    ]
)
_FROM_YCBCR = np.linalg.inv(_TO_YCBCR)
_CENTRE = np.array([0.0, 0.5, 0.5])

_LONGEST_SIDE = {".webp": 16383, ".jpg": 65500, ".jpeg": 65500}
_PNG_HEAD = 2**16  # bytes that hold the facts of a PNG
_BAND = 2**20  # pixels per band, computed in float64; whole images keep their own type

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PixelFormat:
    """The format of a stack of planes: its colour space, and the bit depth of the source."""

    color: Color = "gray"
    bit_depth: BitDepth = 8

    @property
    def planes(self) -> int:
        """Number of planes: 3 for ycbcr and rgb, else 1."""
        return 3 if self.color in ("ycbcr", "rgb") else 1

    @property
    def channels(self) -> int:
        """Channels of a plane: 2 (real, imaginary) for complex images, else 1."""
        return 2 if self.color == "complex" else 1


GRAY = PixelFormat()


@dataclass(frozen=True)
class Picture:
    """Planes (P, C, H, W), float32 in [0, 1] (complex ones in the unit disc), and their format."""

    planes: Tensor
    format: PixelFormat


def _bands(height: int, width: int) -> Iterator[slice]:
    """Row slices that cut an image into bands."""
    step = max(1, _BAND // width)
    for top in range(0, height, step):
        yield slice(top, top + step)


def _luma(pixels: NDArray[Any]) -> NDArray[Any]:
    """Luma of RGB pixels (H, W, 3); integers are rounded half up, without rounding errors."""
    if np.issubdtype(pixels.dtype, np.integer):
        return np.asarray(pixels.astype(np.int64) @ [299, 587, 114] + 500) // 1000
    return np.asarray(pixels @ _TO_YCBCR[0])


def _picture(pixels: NDArray[Any], white: int, color: Color | None) -> Picture:
    """Pixels (H, W) or (H, W, 3) with the value of white -> planes."""
    color = color or ("gray" if pixels.ndim == 2 else "rgb")
    kept = PixelFormat(color, 16 if white > 255 else 8)
    stack = np.empty((kept.planes, *pixels.shape[:2]), np.float32)
    for rows in _bands(*pixels.shape[:2]):
        band = pixels[rows]
        if color == "gray":
            stack[0, rows] = (_luma(band) if band.ndim == 3 else band) / white
        else:
            rgb = (np.dstack([band] * 3) if band.ndim == 2 else band) / white
            values = rgb if color == "rgb" else rgb @ _TO_YCBCR.T + _CENTRE
            stack[:, rows] = np.moveaxis(values, -1, 0)
    return Picture(torch.from_numpy(stack)[:, None], kept)


def check_color(color: str) -> Color:
    """Return `color` if it is one of gray, ycbcr, rgb; else raise UsageError."""
    known = [name for name in get_args(Color) if name != "complex"]
    if color not in known:
        raise UsageError(f"color {color!r}: expected one of {', '.join(known)}.")
    return cast(Color, color)


def read(path: Path, color: Color | None = "gray") -> Picture:
    """Read an image file: 8 or 16 bits, palette, alpha, CMYK, EXIF rotation applied; or .npy.

    Args:
        path: PNG, JPEG, TIFF, BMP, WebP, GIF or PGM/PPM; the first frame of an animation.
            Transparency is flattened onto white.
        color: `gray` keeps the luma rounded to the file's bit depth (the papers' protocol),
            `ycbcr` and `rgb` keep three planes; None is `gray` or `rgb`, as the file.

    Raises:
        InputError: missing, empty, truncated, too large or not an image.
    """
    require_file(path)
    if path.suffix.lower() == ".npy":
        try:
            return from_array(read_npy(path), color)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    return _picture(*decoding.decode(path), color)


def as_numpy(array: NDArray[Any] | Tensor) -> NDArray[Any]:
    """A NumPy array of the same values, whatever the device, layout and float type.

    Raises:
        InputError: a masked array with masked values, which would be used as if they were valid.
    """
    if not isinstance(array, Tensor):
        return arrays.unmasked(array)
    dense = array.detach().to_dense().cpu()
    return (dense.float() if dense.dtype == torch.bfloat16 else dense).numpy()


def from_array(image: NDArray[Any] | Tensor, color: Color | None = None) -> Picture:
    """Make a picture of an array.

    Args:
        image: (H, W) or (H, W, 3); uint8, uint16, or floating point in [0, 1], not rounded; or
            complex (H, W) in the unit disc, one plane of two channels.
        color: None keeps what is given: gray for (H, W), rgb for (H, W, 3).

    Raises:
        InputError: another shape or type, values outside [0, 1], NaN or infinity.
        UsageError: an unknown colour.
    """
    array = as_numpy(image)
    if array.dtype.kind == "c":
        return _complex_picture(array, color)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise InputError(f"image of shape {array.shape}: expected (H, W) or (H, W, 3).")
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        white = int(np.iinfo(array.dtype).max)
    elif np.issubdtype(array.dtype, np.floating):
        white = 1
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError("a floating-point image must be finite and lie in [0, 1].")
    else:
        raise InputError(f"image of type {array.dtype}: expected uint8, uint16 or floating point.")
    return _picture(array, white, check_color(color) if color else None)


def _complex_picture(array: NDArray[Any], color: Color | None) -> Picture:
    if array.ndim != 2 or 0 in array.shape or color not in (None, "gray"):
        raise InputError(f"complex image of shape {array.shape}: expected one plane (H, W).")
    if not (np.isfinite(array).all() and np.abs(array).max() <= 1 + 1e-6):
        raise InputError("a complex image must be finite, with magnitudes up to 1.")
    channels = np.stack([array.real, array.imag]).astype(np.float32)
    return Picture(torch.from_numpy(channels)[None], PixelFormat("complex"))


def to_array(planes: Tensor, color: Color) -> NDArray[Any]:
    """Planes (P, C, H, W) -> float32 (H, W), RGB (H, W, 3) or complex64 (H, W); not clipped."""
    if color == "complex":
        real, imaginary = planes.detach()[0].float().cpu().numpy()
        return np.asarray(real + 1j * imaginary, dtype=np.complex64)
    stack = planes.detach()[:, 0].float().cpu().numpy()
    if color == "gray":
        return np.array(stack[0])
    pixels = np.empty((*stack.shape[1:], 3), np.float32)
    for rows in _bands(*stack.shape[1:]):
        band = np.moveaxis(stack[:, rows].astype(np.float64), 0, -1)
        pixels[rows] = (band - _CENTRE) @ _FROM_YCBCR.T if color == "ycbcr" else band
    return pixels


def error_weights(color: Color) -> tuple[float, ...]:
    """Weights of the planes' squared errors in that of the picture, if they are independent."""
    if color == "ycbcr":
        return tuple(float(w) for w in np.square(_FROM_YCBCR).sum(axis=0) / 3)
    return (1 / 3,) * 3 if color == "rgb" else (1.0,)


def encode(
    path: Path,
    pixels: NDArray[Any],
    bit_depth: BitDepth,
    observed: NDArray[np.bool_] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write (H, W) or RGB (H, W, 3) pixels, clipped to [0, 1], in the format of the suffix.

    PNG and TIFF keep 16 bits; other formats hold 8, and a warning is logged. `.npy` keeps the
    float32 or complex64 values, unclipped; other formats hold the magnitude of complex ones. Pixels
    that are not `observed` (H, W) are transparent in PNG and TIFF, NaN in .npy, and black in other
    formats. `facts` about the image are written as JSON into the text metadata of PNG (key
    "csrecon"), TIFF (description) and JPEG (comment), except for 16-bit colour.

    Raises:
        UsageError: a suffix that is not an image format, or an image too large for its format.
    """
    check_suffix(path)
    suffix = path.suffix.lower()
    longest = _LONGEST_SIDE.get(suffix)
    if longest and max(pixels.shape[:2]) > longest:
        raise UsageError(
            f"{suffix} holds at most {longest} pixels per side, and the image is "
            f"{pixels.shape[0]}×{pixels.shape[1]}; use .png or .tif."
        )
    if np.iscomplexobj(pixels) and suffix != ".npy":
        pixels = np.abs(pixels)
    if observed is not None:
        pixels = np.where(observed if pixels.ndim == 2 else observed[..., None], pixels, 0)
        if suffix in _DEEP_SUFFIXES:
            color = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
            pixels = np.dstack([color, observed.astype(np.float32)])
        elif suffix == ".npy":
            pixels[~observed] = np.nan
    if suffix == ".npy":
        write_npy(path, pixels.astype("<c8" if np.iscomplexobj(pixels) else "<f4"))
        return
    if bit_depth == 16 and suffix not in _DEEP_SUFFIXES:
        log.warning("%s holds 8 bits per channel; use .png or .tif to keep 16.", suffix)
        bit_depth = 8
    white = 255 if bit_depth == 8 else 65535
    whole: NDArray[Any] = np.empty(pixels.shape, np.uint8 if bit_depth == 8 else np.uint16)
    for rows in _bands(*pixels.shape[:2]):
        whole[rows] = np.round(np.clip(pixels[rows], 0, 1).astype(np.float64) * white)
    if bit_depth == 16 and whole.ndim == 3:
        import cv2  # noqa: PLC0415

        order = [2, 1, 0, 3][: whole.shape[2]]  # OpenCV keeps blue first
        try:
            made, encoded = cv2.imencode(suffix, whole[..., order])
        except cv2.error as error:
            raise ResourceError(f"{suffix}: OpenCV cannot encode the image ({error}).") from error
        if not made:
            raise ResourceError(f"{suffix}: OpenCV cannot encode an image of {whole.shape}.")
        path.write_bytes(encoded.data)
        return
    options: dict[str, Any] = {"quality": 95} if suffix in (".jpg", ".jpeg", ".webp") else {}
    if facts:
        options |= _as_text(suffix, json.dumps(facts))
    content = io.BytesIO()  # into a file, Pillow does not notice if the disk is full at its end
    Image.fromarray(whole).save(content, Image.registered_extensions()[suffix], **options)
    path.write_bytes(content.getbuffer())


def _as_text(suffix: str, text: str) -> dict[str, Any]:
    """The Pillow option that stores a text; empty for formats without text metadata."""
    if suffix == ".png":
        chunks = PngInfo()
        chunks.add_text("csrecon", text)
        return {"pnginfo": chunks}
    places = {".tif": "description", ".tiff": "description", ".jpg": "comment", ".jpeg": "comment"}
    return {places[suffix]: text} if suffix in places else {}


def phase(pixels: NDArray[Any]) -> NDArray[Any]:
    """The phase of complex pixels, −π…π as 0…1."""
    return np.asarray(np.angle(pixels) / (2 * np.pi) + 0.5)


def refuse_other(target: Path) -> None:
    """Raise UsageError if a PNG is there that `encode` has not written with its facts.

    Those of 16-bit colour have no facts, and pass.
    """
    if not target.is_file():
        return
    with reading(target), target.open("rb") as stream:
        head = stream.read(_PNG_HEAD)
    deep_colour = head[:8] == b"\x89PNG\r\n\x1a\n" and head[24:26] in (b"\x10\x02", b"\x10\x06")
    if not (deep_colour or b"tEXtcsrecon\0" in head or b"iTXtcsrecon\0" in head):
        raise UsageError(
            f"{target}: was not written by csrecon; is it the original? It is kept, with "
            "--overwrite too. Give another output with -o, or this one by its name."
        )


def check_suffix(path: Path) -> None:
    """Raise UsageError unless `encode` knows the suffix of `path`."""
    if path.suffix.lower() not in (*SUFFIXES, ".npy"):
        raise UsageError(
            f"{path}: cannot tell the image format from {path.suffix!r}; "
            f"use one of {', '.join(SUFFIXES)} or .npy for float32."
        )
