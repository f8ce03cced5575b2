"""K-space of a scanner, (slices, coils, H, W) complex -> measurements, one a slice.

Frequencies that are zero in every coil were not measured. A k-space with its zero frequency in the
middle belongs to an image with its origin in the middle: x = fftshift F⁻¹ ifftshift k. Both shifts
become one turn of the phases, so that A is the plain FFT.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.io.images import PixelFormat
from csrecon.sensing import coils
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator, LinearOperator, SenseOperator
from csrecon.sensing.operators.masks import Mask

log = logging.getLogger(__name__)

AXES = "scyx"
"""Letters of the axes in their order here: slices, coils, rows, columns."""

_NAMES = {"s": "slices", "c": "coils", "y": "rows", "x": "columns"}
_DEFAULT = {
    "h5": {2: "yx", 3: "syx", 4: "scyx"},
    "npy": {2: "yx", 3: "cyx", 4: "scyx"},
    "mat": {2: "yx", 3: "yxc", 4: "yxcs"},
}
_BART = {0: "y", 1: "x", 3: "c", 13: "s"}
_WINDOW = 8  # the centre and the corner whose energies are compared are 1/8 of every side
_SURE = 4.0  # times the energy of the other
_SMALL = 32  # pixels: an image with a shorter side has fewer coils and slices than that
_HEADROOM = 1.1  # of an image over its zero-filled one
_DEAD = 0.05  # share of the measured frequencies that a coil may have as exact zeros

Order = Literal["h5", "npy", "mat", "cfl"]
_Complex = NDArray[np.complex64]


def axes_of(shape: tuple[int, ...], order: Order) -> str:
    """The usual meaning of the axes in a kind of file, one letter each; `1` is an axis to drop.

    Raises:
        InputError: a number of axes without a usual meaning, or sides with which it is implausible.
    """
    axes = _usual(shape, order)
    sides = dict(zip(axes, shape, strict=True))
    smallest = min(sides["y"], sides["x"])
    if smallest < min(_SMALL, max(sides.get("c", 1), sides.get("s", 1))):
        raise InputError(
            f"k-space of shape {shape}: this would be {in_words(shape, axes)}, a very small image. "
            "Say which axis is which with --axes: one letter each, of s (slices), c (coils), y "
            "(rows) and x (columns)."
        )
    return axes


def _usual(shape: tuple[int, ...], order: Order) -> str:
    if order == "cfl":
        other = [axis for axis, side in enumerate(shape) if side > 1 and axis not in _BART]
        if other:
            raise InputError(
                f"k-space of shape {shape}: axis {other[0]} has length {shape[other[0]]}; expected "
                "rows, columns, coils (axis 3) and slices (axis 13). Transform along z first."
            )
        return "".join(_BART[a] if a in (0, 1) or side > 1 else "1" for a, side in enumerate(shape))
    if len(shape) not in _DEFAULT[order]:
        raise InputError(
            f"k-space of shape {shape}: expected 2 to 4 axes: slices, coils, rows, columns."
        )
    return _DEFAULT[order][len(shape)]


def oriented(values: NDArray[Any], axes: str) -> NDArray[Any]:
    """An array with axes as (slices, coils, H, W).

    Raises:
        UsageError: letters that do not name the array's axes.
    """
    letters = axes.replace("1", "")
    known = set(letters) <= set(AXES) and {"y", "x"} <= set(letters)
    if not known or len(set(letters)) < len(letters) or len(axes) != values.ndim:
        raise UsageError(
            f"axes {axes!r} for shape {values.shape}: expected one letter per axis, of s (slices), "
            "c (coils), y (rows) and x (columns), each once, y and x among them."
        )
    if any(side > 1 for letter, side in zip(axes, values.shape, strict=True) if letter == "1"):
        raise UsageError(f"axes {axes!r}: an axis 1 has length 1, and the shape is {values.shape}.")
    kept = values.reshape([s for a, s in zip(axes, values.shape, strict=True) if a != "1"])
    present = [letter for letter in AXES if letter in letters]
    kept = kept.transpose([letters.index(letter) for letter in present])
    return kept[tuple(slice(None) if a in letters else None for a in AXES)]


def in_words(shape: tuple[int, ...], axes: str) -> str:
    """`16 slices × 8 coils × 256 rows × 256 columns`, in the order of the file."""
    pairs = zip(axes, shape, strict=True)
    return " × ".join(f"{side} {_NAMES[letter]}" for letter, side in pairs if letter != "1")


def is_centered(power: NDArray[np.floating[Any]]) -> bool | None:
    """Whether zero frequency is in the middle of |k|² (H, W), or its corner; None if unclear."""
    middle, corner = (_low(p) for p in (power, np.fft.fftshift(power)))
    if max(middle, corner) < _SURE * min(middle, corner):
        return None
    return middle > corner


def _low(power: NDArray[np.floating[Any]]) -> float:
    """The energy round the middle."""
    part = []
    for side in power.shape:
        half = max(1, side // (2 * _WINDOW))
        part.append(slice(max(0, side // 2 - half), side // 2 + half))
    return float(power[tuple(part)].sum())


@dataclass(frozen=True, eq=False)
class Scan:
    """K-space, with what its file or the user says of it.

    Attributes:
        values: (slices, coils, H, W) complex.
        mask: (H, W), or (W,) or (H,) for lines; in the order of `values`. None for where they are
            not zero.
        maps: sensitivities (slices or 1, coils, H, W); None to estimate them.
        centered: whether zero frequency is in the middle; None to detect it.
        label: name in messages.
        estimate: how maps are estimated, a name of coils.ESTIMATES.

    Raises:
        UsageError: an unknown estimate, or one that needs a package.
        InputError: real, or not finite, or all zero; a mask or maps that do not fit; a centre that
            cannot be told.
    """

    values: NDArray[Any]
    mask: NDArray[Any] | None = None
    maps: NDArray[Any] | None = None
    centered: bool | None = None
    label: str = "k-space"
    estimate: str = "image"

    def __post_init__(self) -> None:
        """Check everything, so that a slice cannot fail for what all have in common."""
        coils.check_estimate(self.estimate)
        check_complex(self.values, self.label)
        _check_finite(self.values, self.label)
        if not self.values.any():
            raise InputError(f"{self.label}: every value is zero: no frequency was measured.")
        if self.maps is not None:
            self._check_maps(self.maps)
        _ = self.given_mask, self.in_the_middle

    def __len__(self) -> int:
        """The number of slices."""
        return len(self.values)

    def _check_maps(self, maps: NDArray[Any]) -> None:
        count, several, *shape = self.values.shape
        if maps.dtype.kind != "c":
            raise InputError(
                f"{self.label}: sensitivities of type {maps.dtype}; expected complex numbers."
            )
        if maps.ndim != 4 or [*maps.shape[2:]] != shape or maps.shape[0] not in (1, count):
            raise InputError(
                f"{self.label}: sensitivities of shape {maps.shape} (slices, coils, rows, columns) "
                f"for a k-space of shape {self.values.shape}."
            )
        if maps.shape[1] != several:
            raise InputError(
                f"{self.label}: {several} coils in the k-space, and {maps.shape[1]} in the "
                "sensitivities: are these of the same scan?"
            )

    @cached_property
    def given_mask(self) -> Mask | None:
        """The given mask as (H, W).

        Raises:
            InputError: another shape, other values than 0 and 1, or no frequency.
        """
        if self.mask is None:
            return None
        height, width = self.values.shape[2:]
        given = np.squeeze(np.asarray(self.mask))
        if given.shape == (width,):
            given = np.broadcast_to(given, (height, width))
        elif given.shape == (height,):
            given = np.broadcast_to(given[:, None], (height, width))
        if given.shape != (height, width):
            raise InputError(
                f"{self.label}: mask of shape {self.mask.shape}: expected {(height, width)}, or "
                f"one value per column ({width}) or row ({height})."
            )
        if given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all() or not given.any():
            raise InputError(f"{self.label}: mask: expected 0, and 1 for measured frequencies.")
        return np.asarray(given != 0)

    @cached_property
    def in_the_middle(self) -> bool:
        """Whether zero frequency is in the middle, as given or detected; a contradiction is said.

        Raises:
            InputError: it cannot be told.
        """
        power = sum(np.square(np.abs(part)).sum(axis=0) for part in self.values)
        found = is_centered(np.asarray(power))
        words = {True: "in the middle", False: "in the corner"}
        if self.centered is None:
            if found is None:
                raise InputError(
                    f"{self.label}: neither the middle nor the corner of k-space has most of its "
                    "energy. Say --centered if zero frequency is in the middle, else "
                    "--no-centered."
                )
            log.info("%s: zero frequency is %s, where the energy is.", self.label, words[found])
            return found
        if found is not None and found != self.centered:
            log.warning(
                "%s: zero frequency %s, as said, and most of the energy is %s: is "
                "--centered/--no-centered right?",
                self.label,
                words[self.centered],
                words[found],
            )
        return self.centered

    def masked(self, index: int) -> Mask:
        """Which frequencies of a slice were measured, (H, W), in the order of `values`.

        Raises:
            InputError: none, or other ones in one coil than in the others.
        """
        present = self.values[index] != 0
        mask: Mask = present.any(axis=0)
        if self.given_mask is not None:
            mask = mask & self.given_mask
        if not mask.any():
            raise InputError(f"{self.label}: slice {index} has no measured frequency.")
        missing = (mask & ~present).sum(axis=(1, 2))
        if missing.max() > _DEAD * mask.sum():
            raise InputError(
                f"{self.label}: the coils disagree: coil {missing.argmax()} of slice {index} is "
                f"zero at {missing.max()} of the {mask.sum()} frequencies that others measured. "
                "Leave it out."
            )
        return mask

    def _corner(self, index: int) -> tuple[_Complex, Mask]:
        """K-space of a slice (coils, H, W) and its mask, for the plain FFT of the upright image."""
        mask = self.masked(index)
        values = np.where(mask, self.values[index], 0).astype(np.complex64)
        if not self.in_the_middle:
            return values, mask
        turn = 1.0
        for axis, side in enumerate(mask.shape):
            steps = np.fft.fftfreq(side) * (side // 2)
            turn = turn * np.exp(-2j * np.pi * steps.reshape((-1, 1) if axis == 0 else (1, -1)))
        values, mask = np.fft.ifftshift(values, axes=(1, 2)), np.fft.ifftshift(mask)
        return (values * turn).astype(np.complex64), mask

    @cached_property
    def scale(self) -> float:
        """1.1 times the largest root sum of squares over the coils of the zero-filled images."""
        largest = 0.0
        for part in self.values:
            power = np.zeros(part.shape[1:])
            for coil in part:
                power += np.square(np.abs(np.fft.ifft2(coil, norm="ortho")))
            largest = max(largest, float(np.sqrt(power.max())))
        return _HEADROOM * largest

    def measurement(self, index: int) -> Measurement:
        """The measurement of a slice, divided by `scale`, so that images lie about in [0, 1].

        Several coils without maps have them estimated.

        Raises:
            InputError: as in `masked`; no calibration region, and no maps.
        """
        values, mask = self._corner(index)
        sampling = FourierOperator(mask, channels=2)
        operator: LinearOperator = sampling
        kept = values[:, mask]
        if len(values) > 1 or self.maps is not None:
            operator = SenseOperator(sampling, self._maps(index, values, mask))
        else:
            kept = kept[0]
        y = torch.from_numpy(np.ascontiguousarray(kept / np.float32(self.scale)))
        made = Measurement.of(operator, y[None], PixelFormat("complex"))
        return Measurement(made.operator, made.y, made.format, scale=self.scale)

    def _maps(self, index: int, values: _Complex, mask: Mask) -> _Complex:
        """The given maps of a slice (coils, H, W), or else the estimated ones."""
        if self.maps is not None:
            return np.asarray(self.maps[index % len(self.maps)], np.complex64)
        return coils.ESTIMATES[self.estimate](values, mask, f"{self.label}, slice {index}")


def check_complex(values: NDArray[Any], label: str) -> None:
    """Raise InputError for k-space of real numbers."""
    if values.dtype.kind == "c":
        return
    pairs = ", such as k[..., 0] + 1j * k[..., 1]" if values.shape[-1:] == (2,) else ""
    raise InputError(
        f"{label}: k-space of type {values.dtype}, and complex numbers are needed. Nothing is cast "
        f"silently: save real + 1j·imaginary{pairs}."
    )


def _check_finite(values: NDArray[Any], label: str) -> None:
    bad = ~np.isfinite(values)
    if not bad.any():
        return
    part, coil, row, column = (int(i) for i in np.argwhere(bad)[0])
    rows, columns = (int(bad.any(axis=axes).sum()) for axes in ((0, 1, 3), (0, 1, 2)))
    raise InputError(
        f"{label}: {int(bad.sum())} values are NaN or infinite, in {rows} rows and {columns} "
        f"columns; the first in slice {part}, coil {coil}, row {row}, column {column}. Set lines "
        "that were not measured to 0."
    )


def described(scan: Scan) -> Mapping[str, Any]:
    """Facts of a scan, of its first slice where slices differ."""
    mask = scan.masked(0)
    rows, columns = ((mask.any(axis=a) == mask.all(axis=a)).all() for a in (1, 0))
    whole = "all" if mask.all() else "rows" if rows else "columns" if columns else "points"
    shifted = mask if scan.in_the_middle else np.fft.fftshift(mask)
    return {
        "centered": scan.in_the_middle,
        "ratio": float(mask.mean()),
        "sampled": whole,
        "calibration": list(coils.region(shifted)),
        "maps": scan.maps is not None,
    }
