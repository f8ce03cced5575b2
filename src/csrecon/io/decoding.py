"""Image files -> the pixels that they show, as integers or floats, and the value of white.

Files are opened by name of their format only: other decoders of Pillow run interpreters or search
for other files. What Pillow decodes wrongly (samples of 10, 12 or 14 bits, 16-bit colour,
compressed big-endian signed and floating-point TIFF) is decoded by OpenCV.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from csrecon.errors import InputError
from csrecon.io.files import require_file

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF", "PPM")
"""The formats that are read, by Pillow's names; PPM includes PGM, PBM and PFM."""

# What Pillow's and OpenCV's decoders raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_MOST_SCANNED = 10**10  # pixels times scans of a progressive JPEG: about a minute

# EXIF orientation -> the transform that makes the stored array (H, W, ...) upright.
_ORIENTATIONS = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: a.swapaxes(0, 1)[::-1],
}
_EXIF_ORIENTATION = 0x0112

_DEEP_GRAY = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0")  # Pillow has no big-endian BigTIFF
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 262, 277
_LARGEST_VALUE, _PLANES, _COLOUR_MAP, _EXTRA, _SAMPLE_FORMAT = 281, 284, 320, 338, 339
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _SEPARATE = 0, 1, 2, 2
_SIGNED, _FLOAT = 2, 3
_UNSPECIFIED, _PREMULTIPLIED = 0, 1
_CAMERA_WHITES = tuple(2**bits - 1 for bits in range(9, 16))

log = logging.getLogger(__name__)

Pixels = tuple[NDArray[Any], int]
Tags = Mapping[int, Any]


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn what decoders raise on damaged files into an InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
            yield
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not an image that can be read; expected PNG, JPEG, TIFF, BMP, WebP, GIF or "
            "PGM."
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: refused as a decompression bomb ({error}).") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: truncated or damaged image ({error}).") from error


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The image of a file, not decoded yet; what decoding raises becomes an InputError.

    Raises:
        InputError: missing, empty, damaged, too large or not an image.
    """
    require_file(path)
    with (
        _refusing(path),
        path.open("rb") as stream,
        Image.open(stream, formats=FORMATS) as image,
    ):
        _check_scans(path, image)
        yield image


def decode(path: Path) -> Pixels:
    """Pixels (H, W) or (H, W, 3) of an image file, upright, and the value of white.

    Raises:
        InputError: missing, empty, truncated, too large, not an image, or values without a
            meaning as gray levels.
    """
    require_file(path)
    with _refusing(path), path.open("rb") as stream:
        tags = _directory(stream)
        stream.seek(0)
        try:
            image = Image.open(stream, formats=FORMATS)
        except UnidentifiedImageError:
            if not tags:
                raise
            _check_size(path, tags)
            return _decode_deep(path, tags)
        with image:
            if getattr(image, "is_animated", False):
                log.info("%s: several frames; the first is used.", path)
            _check_scans(path, image)
            _check_strips(path, image, tags)
            layout = _tile(image)  # gone after decoding, which reading EXIF may do
            # The decoders apply a TIFF's orientation themselves.
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if not tags else 1
            pixels, white = _decode(path, image, layout, tags)
    if orientation in _ORIENTATIONS:
        pixels = _ORIENTATIONS[orientation](pixels)
    return pixels, white


def _directory(stream: IO[bytes]) -> Tags:
    """The tags of a TIFF's first image; none for other formats."""
    head = stream.read(16)
    if head[:4] not in _TIFF_MAGIC:
        return {}
    found = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
    stream.seek(found.next)
    found.load(stream)
    return found


def _check_size(path: Path, tags: Tags) -> None:
    pixels = int(tags.get(_WIDTH, 0)) * int(tags.get(_HEIGHT, 0))
    if pixels > 2 * (Image.MAX_IMAGE_PIXELS or pixels):
        raise InputError(f"{path}: refused as a decompression bomb ({pixels} pixels).")


def _check_strips(path: Path, image: ImageFile.ImageFile, tags: Tags) -> None:
    """Refuse a TIFF whose strips or tiles leave a part of it undefined."""
    separate = tags.get(_PLANES) == _SEPARATE
    wanted = image.width * image.height * (tags.get(_SAMPLES, 1) if separate else 1)
    covered = 0
    for tile in image.tile:
        left, top, right, below = tile[1] or (0, 0, *image.size)
        covered += (right - left) * (below - top)
    if tags and _tile(image)[0] == "raw" and covered < wanted:
        raise InputError(f"{path}: truncated or damaged image (a part of its strips is missing).")


def _check_scans(path: Path, image: Image.Image) -> None:
    """Refuse a progressive JPEG of so many scans that decoding takes minutes."""
    if not image.info.get("progressive"):
        return
    scans = path.read_bytes().count(b"\xff\xda")
    if scans * image.width * image.height > _MOST_SCANNED:
        raise InputError(f"{path}: refused as a decompression bomb ({scans} scans).")


def _decode(path: Path, image: Image.Image, layout: tuple[str, str], tags: Tags) -> Pixels:
    """Pixels of an opened image, not turned, and the value of white."""
    codec, rawmode = layout
    many = max(tags.get(_BITS, (8,)))
    if tags and max(tags.get(_SAMPLE_FORMAT, (1,))) == _SIGNED and many == 8:
        return _from_signed(path, np.asarray(image).view(np.int8), tags)
    swapped = codec == "libtiff" and rawmode in ("I;16BS", "F;32BF")  # Pillow would swap again
    if image.mode in _DEEP_GRAY and not swapped:
        gray = np.asarray(image)
        if tags and many == 32:
            raise InputError(f"{path}: 32-bit integers; save it with 8 or 16 bits.")
        if tags and rawmode.endswith("S"):
            return _from_signed(path, gray.astype(np.int16), tags)
        gray = gray.astype(np.uint16)
        if "transparency" in image.info:
            gray[gray == image.info["transparency"]] = 65535
        return _from_unsigned(path, gray, tags)
    if image.mode == "F" and not swapped:
        return _from_floats(path, np.asarray(image), tags)
    if (image.format == "PNG" and ";16" in rawmode) or many > 8:
        if "transparency" in image.info:
            raise InputError(
                f"{path}: 16-bit colour with a transparent colour cannot be decoded; save it as "
                "plain 16-bit PNG."
            )
        return _decode_deep(path, tags)
    if image.mode == "P" and 0 < max(tags.get(_COLOUR_MAP, (0,))) < 256:
        image.load()
        image.putpalette(bytes(tags[_COLOUR_MAP]), "RGB;L")  # 8 bits, where TIFF has 16
    if image.mode in ("1", "L") and not image.has_transparency_data:
        return np.asarray(image.convert("L")), 255
    if image.has_transparency_data:
        log.info("%s: transparency is flattened onto white.", path)
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB")), 255


def _tile(image: ImageFile.ImageFile) -> tuple[str, str]:
    """The decoder of the first tile, and the layout of its samples in Pillow's words."""
    if not image.tile:
        return "", ""
    codec, arguments = image.tile[0][0], image.tile[0][3]
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return codec, first if isinstance(first, str) else ""


def _decode_deep(path: Path, tags: Tags) -> Pixels:
    """What OpenCV decodes: more than 8 bits a sample, gray or RGB, alpha flattened onto white."""
    if tags.get(_PLANES) == _SEPARATE and tags.get(_SAMPLES, 1) > 1:
        raise InputError(
            f"{path}: 16-bit colour in separate planes cannot be decoded; save it as plain 16-bit "
            "PNG."
        )
    pixels = _by_opencv(path)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 2 and pixels.dtype == np.int16:
        return _from_signed(path, pixels, tags)
    if pixels.ndim == 2 and pixels.dtype in (np.float32, np.float64):
        return _from_floats(path, pixels, tags)
    bits = max(tags.get(_BITS, (16,)))
    known = tags.get(_PHOTOMETRIC, _RGB) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    if pixels.dtype != np.uint16 or not known or not 8 < bits <= 16:
        raise InputError(f"{path}: samples of a kind that cannot be decoded; save it as PNG.")
    if not (pixels & (1 << 16 - bits) - 1).any():
        pixels = pixels >> (16 - bits)  # OpenCV shifts samples of 10, 12 and 14 bits to 16
    if pixels.ndim == 2:
        return _from_unsigned(path, pixels, tags)
    white = 2**bits - 1
    if pixels.shape[2] in (2, 4):
        extra = tags.get(_EXTRA, (None,))[0]
        alpha = pixels[..., -1:] / white
        pixels = pixels[..., :-1]
        if extra != _UNSPECIFIED:
            log.info("%s: transparency is flattened onto white.", path)
            shown = pixels if extra == _PREMULTIPLIED else pixels * alpha
            flat = np.round(shown + white * (1 - alpha))
            pixels = flat.clip(0, white).astype(np.uint16)
    pixels = pixels[..., ::-1]  # OpenCV keeps blue first
    return (pixels, white) if pixels.shape[2] == 3 else (pixels[..., 0], white)


def _by_opencv(path: Path) -> NDArray[Any]:
    import cv2  # noqa: PLC0415 - takes 100 ms, and few files need it

    encoded = np.frombuffer(path.read_bytes(), np.uint8)
    silent = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    finally:
        cv2.utils.logging.setLogLevel(silent)
    if pixels is None:
        raise InputError(
            f"{path}: truncated, or a 16-bit format that cannot be decoded; save it as PNG."
        )
    return np.asarray(pixels)


def _upright(gray: NDArray[Any], white: int, tags: Tags) -> Pixels:
    """Gray levels that grow with brightness."""
    dark = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return (white - gray if dark else gray), white


def _from_unsigned(path: Path, gray: NDArray[np.uint16], tags: Tags) -> Pixels:
    """Gray levels whose white is that of their bits, or the one that a camera's tag names."""
    bits = max(tags.get(_BITS, (16,)))
    white, largest = 2**bits - 1, int(gray.max())
    named = max(_numbers(tags.get(_LARGEST_VALUE)), default=0)
    if bits == 16 and named in _CAMERA_WHITES and largest <= named:
        log.info("%s: white is %d, as its tag MaxSampleValue says.", path, named)
        white = named
    elif bits == 16 and 255 < largest <= _CAMERA_WHITES[3]:
        log.info(
            "%s: no value is above %d of 65535; if its white is less than 65535, scale it first.",
            path,
            largest,
        )
    return _upright(gray, white, tags)


def _from_signed(path: Path, gray: NDArray[Any], tags: Tags) -> Pixels:
    """Gray levels of signed samples, of which none may be negative."""
    if gray.min() < 0:
        raise InputError(
            f"{path}: signed samples with negative values (down to {gray.min()}), which are no "
            "gray levels; subtract the offset and save it with unsigned samples."
        )
    return _upright(gray, int(np.iinfo(gray.dtype).max), tags)


def _from_floats(path: Path, pixels: NDArray[Any], tags: Tags) -> Pixels:
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError(f"{path}: a floating-point image must lie in [0, 1] and be finite.")
    return _upright(pixels, 1, tags)


def _numbers(value: Any) -> list[int]:
    """The integers of a tag that may be missing, one number or several."""
    several = value if isinstance(value, tuple) else (value,)
    return [number for number in several if isinstance(number, int)]
