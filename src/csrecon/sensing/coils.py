"""Coil sensitivities from the calibration region: the centre of k-space, if all of it was measured.

The images of its frequencies alone, windowed, have low resolution, as sensitivities are smooth.
Divided by their root sum of squares they are maps with Σ|S|² = 1, whose phase has that of the image
in it.

Source: McKenzie et al., MRM 2002 (self-calibrating parallel imaging).
"""

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.sensing.operators.masks import Mask

LEAST = 6
"""Frequencies of a side of a calibration region."""

_MOST = 32

_Complex = NDArray[np.complex64]


def region(mask: Mask) -> tuple[int, int]:
    """Sides of the largest measured box round the middle of a mask with zero frequency there.

    First the largest square, then the axis along which it grows further.
    """
    height, width = mask.shape
    side = 0
    while side < max(mask.shape) and _whole(mask, min(side + 1, height), min(side + 1, width)):
        side += 1
    rows, columns = min(side, height), min(side, width)
    while rows and rows < height and _whole(mask, rows + 1, columns):
        rows += 1
    while columns and columns < width and _whole(mask, rows, columns + 1):
        columns += 1
    return rows, columns


def _box(mask_shape: tuple[int, ...], sides: tuple[int, int]) -> tuple[slice, slice]:
    (top, rows), (left, columns) = (
        (length // 2 - side // 2, side) for length, side in zip(mask_shape, sides, strict=True)
    )
    return slice(top, top + rows), slice(left, left + columns)


def _whole(mask: Mask, rows: int, columns: int) -> bool:
    return bool(mask[_box(mask.shape, (rows, columns))].all())


def estimate(values: _Complex, mask: Mask, label: str = "k-space") -> _Complex:
    """Maps (coils, H, W) of k-space (coils, H, W) with zero frequency in the corner.

    Raises:
        InputError: no calibration region of at least 6×6 frequencies.
    """
    shifted = np.fft.fftshift(mask)
    rows, columns = region(shifted)
    least = tuple(min(LEAST, side) for side in mask.shape)
    if rows < least[0] or columns < least[1]:
        raise InputError(
            f"{label}: no calibration region: the measured box round zero frequency has "
            f"{rows}×{columns} frequencies, and sensitivities need {least[0]}×{least[1]}. Give "
            "them with --sensitivities FILE."
        )
    sides = min(rows, _MOST), min(columns, _MOST)
    window = np.zeros(mask.shape, np.float32)
    window[_box(mask.shape, sides)] = (
        np.hanning(sides[0] + 2)[1:-1, None] * (np.hanning(sides[1] + 2)[1:-1])
    )
    images = np.fft.ifft2(values * np.fft.ifftshift(window), norm="ortho")
    total = np.sqrt(np.square(np.abs(images)).sum(axis=0))
    flat = np.full_like(images, len(images) ** -0.5)  # where there is no signal at all
    np.divide(images, total, out=flat, where=total > 0)
    return np.asarray(flat, np.complex64)
