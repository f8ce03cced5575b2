"""Coil sensitivities from the calibration region: the centre of k-space, if all of it was measured.

* `image`: the images of its frequencies alone, windowed, have low resolution, as sensitivities are
  smooth. Divided by their root sum of squares they are maps with Σ|S|² = 1, whose phase has that of
  the image in it.
* `espirit`: the eigenvectors, in every pixel, of the projection onto k-space that is consistent
  with the region, with Σ|S|² = 1, and zero where the eigenvalue is not 1: where no signal is.

Source: McKenzie et al., MRM 2002 (self-calibrating parallel imaging); Uecker et al., MRM 2014
(ESPIRiT).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError, nearest
from csrecon.sensing.operators.masks import Mask

LEAST = 6
"""Frequencies of a side of a calibration region."""

_MOST = 32
_LEAST_ESPIRIT, _CALIBRATED = 16, 24  # frequencies of a side that ESPIRiT needs, and takes

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


def _calibration(mask: Mask, least: int, label: str) -> tuple[int, int]:
    """Sides of the calibration region of a mask with zero frequency in the corner.

    Raises:
        InputError: it has fewer than `least` frequencies of a side.
    """
    rows, columns = region(np.fft.fftshift(mask))
    needed = tuple(min(least, side) for side in mask.shape)
    if rows < needed[0] or columns < needed[1]:
        raise InputError(
            f"{label}: no calibration region: the measured box round zero frequency has "
            f"{rows}×{columns} frequencies, and sensitivities need {needed[0]}×{needed[1]}. Give "
            "them with --sensitivities FILE."
        )
    return rows, columns


def estimate(values: _Complex, mask: Mask, label: str = "k-space") -> _Complex:
    """Maps (coils, H, W) of k-space (coils, H, W) with zero frequency in the corner.

    Raises:
        InputError: no calibration region of at least 6×6 frequencies.
    """
    rows, columns = _calibration(mask, LEAST, label)
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


def _espirit_app() -> Any:
    """SigPy's class for ESPIRiT.

    Raises:
        UsageError: SigPy is missing.
    """
    try:
        from sigpy.mri.app import EspiritCalib  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("estimate espirit needs SigPy: pip install 'csrecon[espirit]'.") from error
    return EspiritCalib


def espirit(values: _Complex, mask: Mask, label: str = "k-space") -> _Complex:
    """Maps as `estimate`, by ESPIRiT: where k-space is not explained by them, they are zero.

    Raises:
        UsageError: SigPy is missing.
        InputError: no calibration region of at least 16×16 frequencies.
    """
    app = _espirit_app()
    width = min(*_calibration(mask, _LEAST_ESPIRIT, label), _CALIBRATED)
    images = np.fft.ifftshift(np.fft.ifft2(values, norm="ortho"), axes=(1, 2))
    centred = np.fft.fftshift(np.fft.fft2(images, norm="ortho"), axes=(1, 2)).astype(np.complex64)
    made = app(centred, calib_width=width, show_pbar=False).run()
    return np.asarray(made, np.complex64)


def check_estimate(name: str) -> None:
    """Raise UsageError for an unknown estimate, or one whose package is missing."""
    if name not in ESTIMATES:
        raise UsageError(f"estimate {name!r}: {nearest(name, ESTIMATES)}")
    if name == "espirit":
        _espirit_app()


ESTIMATES: dict[str, Callable[[_Complex, Mask, str], _Complex]] = {
    "image": estimate,
    "espirit": espirit,
}
"""How maps (coils, H, W) are estimated from k-space (coils, H, W), its mask, and its name."""
