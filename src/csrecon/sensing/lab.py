"""Lab measurements: bare values, in the order and the units of a camera.

The camera is modelled as gain · Φx + offset for every block. An Arrangement describes the order of
the values; an order that the shapes determine may be left out.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon.errors import InputError, UsageError
from csrecon.io.arrays import unmasked
from csrecon.io.images import PixelFormat
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.native import as_single, as_values
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.sensing.operators.base import check_extent
from csrecon.sensing.recorded import notice_unwritten
from csrecon.sensing.scenes import check_alike, gain_of
from csrecon.sensing.sidecar import LARGEST

log = logging.getLogger(__name__)

Layout = Literal["auto", "blocks-first", "measurements-first"]
Order = Literal["C", "F"]

_MOST_BLOCKS = 2**15  # along a side of the grid
_DARK = 1e-7  # RMS of the values, relative to the rows of Φ, that no image format shows
_Values = NDArray[np.floating[Any]]


def _check_number(name: str, value: Any, word: str | int | None) -> None:
    """Raise UsageError for anything but one real number, of whatever type, or the word."""
    try:
        if value is not word and (not isinstance(value, str) or value != word):
            float("" if isinstance(value, str) else value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} {value!r}: expected a number.") from error


@dataclass(frozen=True)
class Arrangement:
    """The order of the values in their array, and the calibration of the camera.

    Attributes:
        layout: (blocks, m) or (m, blocks); `auto` decides by m.
        pixel_order: of a block's pixels in the columns of Φ: C row by row, F column by column
            (MATLAB's).
        block_order: of the blocks: C row by row, F column by column.
        positions: (blocks, 2) zero-based row and column of every block in the grid of blocks; the
            other blocks are masked. None for all blocks, in `block_order`.
        gain: of the camera; `auto` estimates gain and offset.
        offset: of every value; None for 0, or for the estimate of `auto`.
        white, black: values of an all-white (x = 1) and an all-black scene, (m,) or one row per
            block; gain and offset are computed from them.
        differential: every pattern was followed by its complement; y is their difference.
        noise: standard deviation of the noise on a value; 0 if unknown.
    """

    layout: Layout = "auto"
    pixel_order: Order = "C"
    block_order: Order = "C"
    positions: NDArray[Any] | None = None
    gain: float | Literal["auto"] = 1.0
    offset: float | None = None
    white: NDArray[Any] | None = None
    black: NDArray[Any] | None = None
    differential: bool = False
    noise: float = 0.0

    def __post_init__(self) -> None:
        """Raise UsageError for unknown names, contradictions, a gain of 0, or negative noise."""
        for name, kind in (("layout", Layout), ("pixel_order", Order), ("block_order", Order)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(
                    f"{name} {getattr(self, name)!r}: expected {', '.join(get_args(kind))}."
                )
        for name, word in (("gain", "auto"), ("offset", None), ("noise", 0)):
            _check_number(name, getattr(self, name), word)
        if (self.white is None) != (self.black is None):
            raise UsageError("calibration needs both a white and a black scene.")
        if self.white is not None and (self.gain != 1.0 or self.offset is not None):
            raise UsageError(
                "a white and a black scene determine gain and offset: leave those out."
            )
        if self.gain != "auto" and not (np.isfinite(self.gain) and self.gain != 0):
            raise UsageError(f"gain {self.gain}: expected a number other than 0, or auto.")
        if self.offset is not None and not abs(self.offset) <= float(np.finfo(np.float32).max):
            raise UsageError(f"offset {self.offset}: expected a finite number of float32.")
        if self.differential and self.offset:
            raise UsageError(
                f"offset {self.offset:g} with differential: it cancels in the difference of a "
                "pattern and its complement; leave it out."
            )
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"noise {self.noise}: expected a standard deviation, from 0 on.")


Estimator = Callable[[Tensor, BlockOperator, float | None], "Calibration"]
"""Estimates gain and offset of block values (1, gh, gw, m), float64; the offset may be given."""
_Ordered = Callable[[_Values, int, str, tuple[int, ...] | None], _Values]
"""Maps (values, number of blocks, label, axes of the blocks) to values in the order (blocks, m)."""


@dataclass(frozen=True)
class Calibration:
    """The gain and the mean offset that were removed from the values.

    Attributes:
        gain, offset: the values were gain · Φx + offset.
        gain_error: relative standard error of an estimated gain; None if nothing was estimated.
        offset_error: standard error of the offset in units of the values; 0 for a given offset
            with an estimated gain, None if nothing was estimated.
    """

    gain: float
    offset: float
    gain_error: float | None = None
    offset_error: float | None = None


def by_rows(phi: Phi, block: tuple[int, int]) -> Phi:
    """Φ for blocks read row by row, from a Φ for blocks read column by column.

    With (bw, bh) instead of (bh, bw) it does the reverse.
    """
    turned = phi.matrix.reshape(-1, block[1], block[0]).swapaxes(1, 2).reshape(phi.shape)
    return Phi(np.ascontiguousarray(turned))


def _rows_last(
    values: _Values,
    m: int,
    blocks: int,
    layout: Layout,
    label: str,
    axes: tuple[int, ...] | None = None,
) -> _Values:
    """Values as (blocks, m), from (m,), (blocks, m), (m, blocks), (gh, gw, m) or (m, gh, gw).

    Several axes of blocks must be `axes`, axes of length 1 aside; None allows any.
    """
    if values.ndim == 1:
        values = values[None] if layout != "measurements-first" else values[:, None]
    first = values.shape[0] == m and values[0].size == blocks
    final = values.shape[-1] == m and values[..., 0].size == blocks
    if layout == "auto" and first and final and blocks > 1:
        raise UsageError(
            f"{label} of shape {values.shape}: {m} is both the number of blocks and of "
            "measurements per block; say --layout blocks-first or measurements-first."
        )
    if final and layout != "measurements-first":
        _check_axes(values.shape[:-1], axes, values.shape, label)
        return values.reshape(blocks, m)
    if first and layout != "blocks-first":
        _check_axes(values.shape[1:], axes, values.shape, label)
        return np.ascontiguousarray(values.reshape(m, blocks).T)
    raise InputError(
        f"{label} of shape {values.shape}: expected {blocks} blocks × {m} measurements"
        f"{'' if layout == 'auto' else f' in the layout {layout}'}. Check Φ and the image "
        "size. If blocks are missing, give the positions of the others (--positions)."
    )


def _check_axes(
    given: tuple[int, ...], axes: tuple[int, ...] | None, shape: tuple[int, ...], label: str
) -> None:
    """Refuse values whose blocks lie on other axes than those of the grid, as if transposed."""
    given = tuple(side for side in given if side > 1)
    if len(given) < 2 or axes is None or given == tuple(side for side in axes if side > 1):
        return
    if len(axes) < 2:
        raise InputError(
            f"{label} of shape {shape}: {'×'.join(map(str, given))} blocks, and the positions are "
            f"a list of {axes[0]}; expected the values as one list, blocks × measurements."
        )
    raise InputError(
        f"{label} of shape {shape}: {'×'.join(map(str, given))} blocks, and the image has "
        f"{'×'.join(map(str, axes))}, in this order. Check --shape HxW; --block-order F is for "
        "blocks column by column."
    )


def _checked(positions: NDArray[Any], label: str) -> NDArray[np.int64]:
    """Positions (blocks, 2) as integers; InputError for anything else."""
    given = unmasked(positions, f"{label}: positions")
    whole = given.dtype.kind in "iuf" and given.ndim == 2 and given.shape[1] == 2 and given.size
    if not whole or not (np.isfinite(given) & (given == np.floor(given))).all():
        raise InputError(
            f"{label}: positions of shape {given.shape} and type {given.dtype}; expected one line "
            "row,column per block, in whole numbers from zero."
        )
    if given.min() < 0 or given.max() >= _MOST_BLOCKS:
        raise InputError(
            f"{label}: positions from {given.min():g} to {given.max():g}; expected rows and "
            f"columns counted from zero, up to {_MOST_BLOCKS - 1}."
        )
    return given.astype(np.int64)


def _places(
    arrangement: Arrangement, grid: tuple[int, int], label: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Grid row and column of every block, in the order of the values."""
    gh, gw = grid
    if arrangement.positions is None:
        index = np.arange(gh * gw)
        if arrangement.block_order == "F":
            return index % gh, index // gh
        return index // gw, index % gw
    row, column = _checked(arrangement.positions, label).T
    if row.max() >= gh or column.max() >= gw:
        raise InputError(
            f"{label}: positions up to row {row.max()} and column {column.max()}; the image has "
            f"{gh}×{gw} blocks, counted from zero."
        )
    if row.min() > 0 and column.min() > 0:
        log.warning(
            "%s: no position is in row 0 or column 0, and both are counted from zero; are these "
            "counted from one?",
            label,
        )
    if len(np.unique(row * gw + column)) < len(row):
        raise InputError(f"{label}: a position is given twice.")
    return row, column


def _spanned(
    phi: Phi, arrangement: Arrangement, block: tuple[int, int] | None, label: str
) -> tuple[int, int]:
    """The image size (H, W) whose grid of blocks the positions span."""
    if arrangement.positions is None:
        raise UsageError(f"{label}: needs --shape HxW (shape=), the size of the image.")
    bh, bw = BlockOperator(phi, (1, 1), block).block
    given = _checked(arrangement.positions, label)
    rows, columns = (int(largest) + 1 for largest in given.max(axis=0))
    shape = rows * bh, columns * bw
    log.info(
        "%s: the positions span %d×%d blocks, so the image is taken as %d×%d pixels; --shape sets "
        "another size.",
        label,
        rows,
        columns,
        *shape,
    )
    return shape


def measurement(
    values: NDArray[Any],
    phi: Phi,
    shape: tuple[int, int] | None,
    arrangement: Arrangement,
    block: tuple[int, int] | None = None,
    label: str = "y",
    estimator: Estimator | None = None,
) -> tuple[Measurement, Calibration]:
    """Make a gray measurement of lab values.

    Args:
        values: finite real numbers, ordered as in `arrangement`.
        phi: the sampling matrix Φ; with `differential` that of the differences, or of all patterns.
        shape: (H, W) of the image in pixels; None for the grid that the positions span.
        arrangement: order and calibration of the values.
        block: (bh, bw); None for square blocks.
        label: name of the values in messages.
        estimator: estimates gain and offset for the gain `auto`.

    Raises:
        InputError: values, positions or scenes that do not fit Φ and the shape; an estimated gain
            or offset that is too uncertain.
        UsageError: an ambiguous layout, or no image size.
    """
    given = as_values(values, label)
    plain = BlockOperator(phi, shape or _spanned(phi, arrangement, block, label), block)
    shape = plain.image_shape
    check_extent(math.prod(plain.grid) * plain.n, given.size)
    row, column = _places(arrangement, plain.grid, label)
    if arrangement.differential and given.size == len(row) * plain.m:  # Φ has all patterns
        phi = _differences(phi)
        plain = BlockOperator(phi, shape, plain.block)
    if arrangement.pixel_order == "F":
        phi = by_rows(phi, plain.block)
    gh, gw = plain.grid
    axes = (gw, gh) if arrangement.block_order == "F" else (gh, gw)
    values_each = 2 if arrangement.differential else 1
    rows = plain.m * values_each

    def ordered(
        array: _Values, blocks: int, name: str, axes: tuple[int, ...] | None = None
    ) -> _Values:
        ready = _rows_last(array, rows, blocks, arrangement.layout, name, axes)
        return ready[:, 0::2] - ready[:, 1::2] if arrangement.differential else ready

    y = np.zeros((1, gh, gw, plain.m), given.dtype)
    y[0, row, column] = ordered(
        given, len(row), label, axes if arrangement.positions is None else (len(row),)
    )
    notice_unwritten(y[0, row, column], label)
    present = np.zeros((gh, gw), np.float32)
    present[row, column] = 1
    complete = bool(present.all())
    operator = BlockOperator(
        phi, shape, plain.block, None, None if complete else torch.from_numpy(present)
    )
    scenes = None
    if arrangement.white is not None and arrangement.black is not None:
        white, black = (
            _scene(scene, rows, name, ordered)
            for name, scene in (("white", arrangement.white), ("black", arrangement.black))
        )
        scenes = white, black
    removed, offset = _calibrated(arrangement, y, operator, scenes, estimator)
    single = _without(y - offset, present, removed, phi, label)
    m = Measurement.of(operator, torch.from_numpy(single), PixelFormat("gray"))
    noise = arrangement.noise / abs(removed.gain) * math.sqrt(values_each)
    if not noise <= LARGEST:
        raise UsageError(
            f"noise {arrangement.noise:g} with a gain of {removed.gain:g}: a σ of {noise:.3g} in "
            f"the units of Φx; expected at most {LARGEST:g}."
        )
    return replace(m, noise=noise, scale=removed.gain), removed


def _differences(phi: Phi) -> Phi:
    """Φ of the differences, from a Φ whose patterns are each followed by their complement."""
    if phi.shape[0] % 2:
        raise InputError(
            f"differential: Φ has {phi.shape[0]} rows and the values have as many per block; "
            "expected an even number, every pattern followed by its complement."
        )
    return Phi.given(phi.matrix[0::2] - phi.matrix[1::2])


def _without(
    y: _Values, present: NDArray[np.float32], removed: Calibration, phi: Phi, label: str
) -> NDArray[np.float32]:
    """Values (1, gh, gw, m) without the gain, in float32, where the blocks are present.

    Raises:
        InputError: values that float32 cannot hold, or a gain that makes every image black.
    """
    with np.errstate(over="ignore", under="ignore"):
        scaled = y / removed.gain * present[..., None]
    name = f"{label}, without the offset {removed.offset:g} and the gain {removed.gain:g}"
    remedy = "Check --gain and --offset; --gain auto estimates both."
    single = as_single(scaled, name, remedy)
    level = math.sqrt(float(np.square(single, dtype=np.float64).mean()))
    if removed.gain != 1 and 0 < level < _DARK * phi.scale():
        raise InputError(
            f"{name}: values of {level:.3g}, and Φ gives about {phi.scale():.3g} for a white "
            f"scene: the image would be black. {remedy}"
        )
    return single


def _scene(scene: NDArray[Any], rows: int, name: str, ordered: _Ordered) -> _Values:
    """The values of a white or a black scene, (blocks, m); one block or several."""
    values = as_values(scene, name)
    blocks = values.size // rows
    if blocks < 1 or values.size % rows:
        raise InputError(f"{name} of shape {values.shape}: expected {rows} values per block.")
    return ordered(values, blocks, name, None)


def _calibrated(
    arrangement: Arrangement,
    y: _Values,
    operator: BlockOperator,
    scenes: tuple[_Values, _Values] | None,
    estimator: Estimator | None,
) -> tuple[Calibration, _Values]:
    """The calibration (gain, mean offset), and the offset of every row of Φ, (m,)."""
    if scenes is not None:
        check_alike(*scenes, operator)
        white, black = (scene.mean(axis=0) for scene in scenes)
        return Calibration(gain_of(white, black, operator), float(black.mean())), black
    if arrangement.gain != "auto":
        given = arrangement.offset or 0.0
        return Calibration(float(arrangement.gain), given), np.full(operator.m, given)
    if estimator is None:
        raise UsageError("gain auto: needs an estimator; csrecon.reconstruct passes one.")
    found = estimator(torch.from_numpy(y.astype(np.float64)), operator, arrangement.offset)
    return found, np.full(operator.m, found.offset)
