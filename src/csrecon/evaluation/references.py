"""Reference images: which original belongs to a measurement, and the score of a result."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon import metrics
from csrecon.errors import InputError
from csrecon.io import images
from csrecon.io.images import Color
from csrecon.zoo.datasets import list_images


@dataclass(frozen=True)
class Originals:
    """The originals of measurements: an image, or a folder that is listed once.

    Attributes:
        place: the image or the folder.
        many: whether there are several measurements.
    """

    place: Path
    many: bool

    def of(self, stem: str) -> Path:
        """The original of a measurement: the image, or the one of its name, without suffix.

        Raises:
            InputError: several measurements and one image, or no image or several of that name.
        """
        label = f"--ref {self.place}"
        if not self.place.is_dir():
            if self.many:
                raise InputError(f"{label}: several measurements need a folder of originals.")
            return self.place
        named = self._by_stem.get(stem, [])
        if not named:
            raise InputError(f"{label}: no image named {stem}.* in it.")
        if len(named) > 1:
            names = " and ".join(path.name for path in named)
            raise InputError(f"{label}: {names} have one name; which is the original?")
        return named[0]

    @functools.cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        found: dict[str, list[Path]] = {}
        for path in list_images(self.place):
            found.setdefault(path.stem, []).append(path)
        return found


def find(reference: Path, stem: str, many: bool) -> Path:
    """The original of one measurement, as `Originals.of`."""
    return Originals(reference, many).of(stem)


def read(path: Path, color: Color, shape: tuple[int, int]) -> NDArray[np.float32]:
    """An original in the colours of a measurement, (H, W) or (H, W, 3); magnitudes if complex.

    Raises:
        InputError: unreadable, or of another size than `shape`.
    """
    if color == "complex":
        found = images.read(path)
        original = images.to_array(found.planes, found.format.color)
    else:
        original = images.to_array(images.read(path, color).planes, color)
    if original.shape[:2] != shape:
        raise InputError(
            f"--ref {path}: it is {original.shape[0]}×{original.shape[1]}, and "
            f"{shape[0]}×{shape[1]} was measured; is this the original?"
        )
    return np.abs(original) if np.iscomplexobj(original) else original


def score(
    pixels: NDArray[np.generic],
    original: NDArray[np.float32],
    observed: NDArray[np.bool_] | None = None,
) -> dict[str, float]:
    """PSNR in dB and SSIM by the papers' protocol; for a masked image the PSNR of observed pixels.

    Args:
        pixels: the result, (H, W), (H, W, 3), or complex (H, W), whose magnitude is scored.
        original: real, of the same shape.
        observed: mask (H, W) of the pixels that are scored; None for all.
    """
    shown = np.abs(pixels) if np.iscomplexobj(pixels) else pixels
    if observed is None:
        found = metrics.score(_planes(shown), _planes(original))
        return {"psnr": found.psnr, "ssim": found.ssim}
    there = np.array(shown)
    there[~observed] = original[~observed]
    found = metrics.score(_planes(there), _planes(original))
    return {"psnr": found.psnr + 10 * math.log10(observed.mean())}


def _planes(pixels: NDArray[np.generic]) -> Tensor:
    stack = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
    return stack[None, None] if stack.ndim == 2 else stack.permute(2, 0, 1)[:, None]
