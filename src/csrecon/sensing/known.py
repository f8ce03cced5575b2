"""Known images and their measurements: pairs of files of one stem, and their blocks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.io import arrays, folders
from csrecon.io.images import SUFFIXES, Picture
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi

Array = NDArray[np.float64]

_FEWEST = 4  # blocks
_LARGEST = 4096  # of min(N, n): fitted in about two minutes


@dataclass(frozen=True, eq=False)
class Known:
    """Known blocks and their values.

    Attributes:
        pixels: X, float64 (N, n), in the order of the columns of Φ.
        values: Y, float64 (N, m).
        image: number of the image that a block is of, (N,).
    """

    pixels: Array
    values: Array
    image: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Raise InputError for values that are not finite, and for blocks that determine no Φ."""
        count = len(self.pixels)
        if not count == len(self.values) == len(self.image):
            raise InputError(
                f"{count} known blocks, {len(self.values)} blocks of values and "
                f"{len(self.image)} numbers of images: expected as many of each."
            )
        if not (np.isfinite(self.pixels).all() and np.isfinite(self.values).all()):
            raise InputError("known pixels or values are NaN or infinite; expected finite numbers.")
        if count < _FEWEST:
            raise InputError(
                f"{count} known blocks: expected at least {_FEWEST}, because some are held out. "
                "Add images."
            )
        if (self.pixels == self.pixels[:, :1]).all():
            raise InputError(
                "all known blocks are constant. They determine the sum of each row of Φ, and "
                "nothing else of it. Add images with detail."
            )
        if min(self.pixels.shape) > _LARGEST:
            raise InputError(
                f"{count} known blocks of {self.pixels.shape[1]} pixels: too large to fit; "
                f"expected at most {_LARGEST} blocks, or blocks of {_LARGEST} pixels."
            )

    @property
    def images(self) -> int:
        """How many images the blocks are of."""
        return len(np.unique(self.image))


@dataclass(frozen=True)
class Pair:
    """The files of a known image and of its measurement."""

    image: Path
    values: Path


def find(folder: Path, images: Path | None = None, apart: Iterable[Path] = ()) -> list[Pair]:
    """The pairs of a folder: scene1.png and scene1.npy.

    Args:
        folder: of the measurements, and of the images.
        images: another folder of the images, which may be .npy there.
        apart: files that are no measurements of an image.

    Raises:
        InputError: no pair, an image without a measurement, or two files of one stem.
    """
    other = {path.resolve() for path in apart}
    suffixes = SUFFIXES if images is None else (*SUFFIXES, ".npy")
    pictures = _by_stem(folders.listed(images or folder, suffixes))
    listed = folders.listed(folder, tuple(arrays.READERS))
    values = _by_stem(path for path in listed if path.resolve() not in other)
    missing = [path for stem, path in pictures.items() if stem not in values]
    if missing and len(missing) < len(pictures):
        raise InputError(
            f"{missing[0]}: no measurement of it in {folder}; expected {missing[0].stem}.npy, or "
            f"another of {', '.join(arrays.READERS)}. Add it, or move the image away."
        )
    if missing or not pictures:
        raise InputError(
            f"{folder}: no pair of an image and its measurement. Expected files of one stem, as "
            "scene1.png and scene1.npy; give a folder of images with --images (images=)."
        )
    return [Pair(path, values[stem]) for stem, path in pictures.items()]


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if (other := found.setdefault(path.stem, path)) != path:
            raise InputError(f"{other} and {path}: expected one file of this stem. Move one away.")
    return found


@dataclass(frozen=True, eq=False)
class Camera:
    """What the measurements of one camera have in common: the nominal Φ, and the block."""

    phi: Phi
    block: tuple[int, int]


def gathered(measured: Sequence[tuple[str, Picture, Measurement]]) -> tuple[Known, Camera]:
    """The blocks of images and of their measurements.

    Args:
        measured: label, image, and measurement, whose operator has the nominal Φ.

    Raises:
        InputError: another size or colour than the image's, another Φ than that of the first
            measurement, other operators than blocks, or blocks that determine no Φ.
    """
    camera: Camera | None = None
    pixels: list[Array] = []
    values: list[Array] = []
    image: list[NDArray[np.int64]] = []
    for number, (label, picture, m) in enumerate(measured):
        x, y, own = _blocks(label, picture, m)
        camera = camera or own
        if own.phi.shape != camera.phi.shape or own.block != camera.block:
            raise InputError(
                f"{label}: {own.phi.shape[0]} values per block of {own.block} pixels, and the "
                f"first measurement has {camera.phi.shape[0]} per block of {camera.block}: "
                "expected measurements of one camera."
            )
        if own.phi.sha256 != camera.phi.sha256:
            raise InputError(
                f"{label}: measured with another Φ than the first measurement. Give the nominal Φ "
                "of all of them with --phi (phi=)."
            )
        pixels.append(x)
        values.append(y)
        image.append(np.full(len(x), number))
    if camera is None:
        raise InputError("no measurement of a known image: expected at least one.")
    return Known(np.concatenate(pixels), np.concatenate(values), np.concatenate(image)), camera


def _blocks(label: str, picture: Picture, m: Measurement) -> tuple[Array, Array, Camera]:
    """The pixels and values of the observed blocks, and the camera."""
    operator = m.operator
    if not isinstance(operator, BlockOperator):
        raise InputError(f"{label}: not measured in blocks, so it has no Φ to be fitted.")
    given = tuple(picture.planes.shape[2:])
    if given != operator.image_shape or len(picture.planes) != len(m.y):
        raise InputError(
            f"{label}: a measurement of {len(m.y)} plane(s) of {operator.image_shape} pixels, and "
            f"the image has {len(picture.planes)} of {given}. Is it of this image?"
        )
    x = operator.blocks(picture.planes)
    there = slice(None) if operator.present is None else operator.present > 0
    rows = operator.phi if isinstance(operator.phi, Phi) else Phi(operator.rows.matrix().numpy())
    return (
        x[:, there].reshape(-1, operator.n).double().numpy(),
        m.y[:, there].reshape(-1, operator.m).double().numpy(),
        Camera(rows, operator.block),
    )
