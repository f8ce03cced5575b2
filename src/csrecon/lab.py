"""A laboratory's own measurements: bare values, in the order and the units of its camera.

The camera is taken to give gain · Φx + offset for every block. What lies in which order is said
by an Arrangement; where the shapes leave only one reading it needs not be said.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.images import PixelFormat
from csrecon.measurement import Measurement
from csrecon.measurement_file import as_values
from csrecon.operators import BlockOperator, Phi
from csrecon.solvers.tv import TotalVariation

log = logging.getLogger(__name__)

Layout = Literal["auto", "blocks-first", "measurements-first"]
Order = Literal["C", "F"]

# Where `auto` puts the brightest hundredth of an estimate: networks do best where an image fills
# [0, 1], and fail where it exceeds it.
_BRIGHT = 0.97
_ESTIMATE = TotalVariation(iterations=40)
_TELLING = 1e-3  # relative spread of the sums of Φ's rows that tells an offset from a level
_UNEVEN = 0.1  # share of a white scene that may not follow Φ


@dataclass(frozen=True)
class Arrangement:
    """How values lie in their array, and what the camera made of them.

    Attributes:
        layout: (blocks, m) or (m, blocks); `auto` tells by m.
        pixel_order: of a block's pixels in the columns of Φ: C row by row, F column by column
            (MATLAB's).
        block_order: of the blocks: C row by row, F column by column.
        positions: (blocks, 2) zero-based row and column of every block in the grid of blocks; the
            others were not measured. None for all blocks, in their order.
        gain: what the camera multiplied by; `auto` estimates gain and offset.
        offset: what it added to every value; None for 0, or for what `auto` finds.
        white, black: values of an all-white (x = 1) and an all-black scene, (m,) or one row a
            block; they give gain and offset.
        differential: every pattern was followed by its complement; their difference counts.
        noise: standard deviation of the noise on a value, as far as it is known.
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
        """Raise UsageError for unknown words, contradictions, a gain of 0, or negative noise."""
        for name, kind in (("layout", Layout), ("pixel_order", Order), ("block_order", Order)):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(
                    f"{name} {getattr(self, name)!r}: expected {', '.join(get_args(kind))}."
                )
        if (self.white is None) != (self.black is None):
            raise UsageError("calibration needs a white and a black scene, both.")
        if self.white is not None and (self.gain != 1.0 or self.offset is not None):
            raise UsageError("a white and a black scene give gain and offset: leave those out.")
        if self.gain != "auto" and not (np.isfinite(self.gain) and self.gain != 0):
            raise UsageError(f"gain {self.gain}: expected a number other than 0, or auto.")
        if not (np.isfinite(self.noise) and self.noise >= 0):
            raise UsageError(f"noise {self.noise}: expected a standard deviation, from 0 on.")


_Ordered = Callable[[NDArray[np.float32], int, str], NDArray[np.float32]]
"""Brings values of so many blocks, called so, into the order (blocks, m)."""


@dataclass(frozen=True)
class Calibration:
    """The gain and the mean offset that were removed from the values."""

    gain: float
    offset: float


def _by_rows(phi: Phi, block: tuple[int, int]) -> Phi:
    """Φ for blocks read row by row, from a Φ for blocks read column by column."""
    turned = phi.matrix.reshape(-1, block[1], block[0]).swapaxes(1, 2).reshape(phi.shape)
    return Phi(np.ascontiguousarray(turned))


def _rows_last(
    values: NDArray[np.float32], m: int, blocks: int, layout: Layout, label: str
) -> NDArray[np.float32]:
    """(blocks, m) from a block of its own, (blocks, m), (m, blocks), (gh, gw, m) or (m, gh, gw)."""
    if values.ndim == 1:
        values = values[None] if layout != "measurements-first" else values[:, None]
    first = values.shape[0] == m and values[0].size == blocks
    final = values.shape[-1] == m and values[..., 0].size == blocks
    if layout == "auto" and first and final and blocks > 1:
        raise UsageError(
            f"{label} of shape {values.shape}: {m} is both the number of blocks and of "
            "measurements a block; say --layout blocks-first or measurements-first."
        )
    if final and layout != "measurements-first":
        return values.reshape(blocks, m)
    if first and layout != "blocks-first":
        return np.ascontiguousarray(values.reshape(m, blocks).T)
    raise InputError(
        f"{label} of shape {values.shape}: expected {blocks} blocks × {m} measurements"
        f"{'' if layout == 'auto' else f' in the layout {layout}'}. Is Φ the right one, and the "
        "image's size? With blocks missing, say where the others are (--positions)."
    )


def _places(
    arrangement: Arrangement, grid: tuple[int, int], label: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row and column in the grid of every block, in the order of the values."""
    gh, gw = grid
    if arrangement.positions is None:
        index = np.arange(gh * gw)
        if arrangement.block_order == "F":
            return index % gh, index // gh
        return index // gw, index % gw
    given = np.asarray(arrangement.positions)
    if given.ndim != 2 or given.shape[1] != 2 or not (given == np.floor(given)).all():
        raise InputError(
            f"{label}: positions of shape {given.shape}; expected a line row,column a block, in "
            "whole numbers from zero."
        )
    row, column = given.astype(np.int64).T
    if row.min() < 0 or column.min() < 0 or row.max() >= gh or column.max() >= gw:
        raise InputError(
            f"{label}: positions up to row {row.max()} and column {column.max()}; the image has "
            f"{gh}×{gw} blocks, counted from zero."
        )
    if len(np.unique(row * gw + column)) < len(row):
        raise InputError(f"{label}: a position is there twice.")
    return row, column


def measurement(
    values: NDArray[Any],
    phi: Phi,
    shape: tuple[int, int],
    arrangement: Arrangement,
    block: tuple[int, int] | None = None,
    label: str = "y",
) -> tuple[Measurement, Calibration]:
    """The gray measurement of a laboratory's values.

    Args:
        values: finite real numbers, as `arrangement` says.
        phi: what measured; with `differential` the Φ of the differences, or of all patterns.
        shape: (H, W) of the image in pixels.
        arrangement: orders and units.
        block: (bh, bw); None for square blocks.
        label: what to call the values in messages.

    Raises:
        InputError: values, positions or scenes that do not fit Φ and the shape.
        UsageError: a layout that only the caller can know.
    """
    given = as_values(values, label)
    if arrangement.differential and phi.shape[0] in given.shape and phi.shape[0] % 2 == 0:
        phi = Phi.given(phi.matrix[0::2] - phi.matrix[1::2])
    plain = BlockOperator(phi, shape, block)
    if arrangement.pixel_order == "F":
        phi = _by_rows(phi, plain.block)
    gh, gw = plain.grid
    row, column = _places(arrangement, plain.grid, label)
    values_each = 2 if arrangement.differential else 1
    rows = plain.m * values_each

    def ordered(array: NDArray[np.float32], blocks: int, name: str) -> NDArray[np.float32]:
        ready = _rows_last(array, rows, blocks, arrangement.layout, name)
        return ready[:, 0::2] - ready[:, 1::2] if arrangement.differential else ready

    y = np.zeros((1, gh, gw, plain.m), np.float32)
    y[0, row, column] = ordered(given, len(row), label)
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
    gain, offset = _calibrated(arrangement, y, operator, scenes)
    y = (y - offset.astype(np.float32)) / np.float32(gain) * present[..., None]
    m = Measurement.of(operator, torch.from_numpy(y), PixelFormat("gray"))
    noise = arrangement.noise * math.sqrt(values_each) / abs(gain)
    return replace(m, noise=noise), Calibration(gain, float(offset.mean()))


def _scene(scene: NDArray[Any], rows: int, name: str, ordered: _Ordered) -> NDArray[np.float64]:
    values = as_values(scene, name)
    blocks = values.size // rows
    if blocks < 1 or values.size % rows:
        raise InputError(f"{name} of shape {values.shape}: expected {rows} values a block.")
    mean: NDArray[np.float64] = ordered(values, blocks, name).astype(np.float64).mean(axis=0)
    return mean


def _calibrated(
    arrangement: Arrangement,
    y: NDArray[np.float32],
    operator: BlockOperator,
    scenes: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
) -> tuple[float, NDArray[np.float64]]:
    """The gain, and the offset of every row of Φ."""
    ones = torch.ones(1, operator.n)
    flat = operator.rows(ones)[0].double().numpy()  # what a white block gives
    if scenes is not None:
        white, black = scenes
        contrast = white - black
        gain = float(flat @ contrast / max(flat @ flat, 1e-12))
        if gain == 0:
            raise InputError("the white and the black scene tell no gain: they are the same.")
        missed = np.linalg.norm(contrast - gain * flat) / np.linalg.norm(contrast)
        if missed > _UNEVEN:
            log.warning(
                "%.0f %% of the white scene does not follow Φ: another Φ, another order, or uneven "
                "light?",
                100 * missed,
            )
        return gain, black
    if arrangement.gain != "auto":
        return float(arrangement.gain), np.full(operator.m, arrangement.offset or 0.0)
    return _estimated(arrangement.offset, y, operator, flat)


def _estimated(
    offset: float | None, y: NDArray[np.float32], operator: BlockOperator, flat: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Gain and offset without any calibration.

    The mean block of a scene is nearly flat, so the mean of y over the blocks is nearly
    level · Φ1 + offset: a regression gives both. The gain then puts the brightest hundredth of
    a first estimate of the image at 0.97.
    """
    present = y[0].any(axis=-1) if operator.present is None else operator.present.numpy() > 0
    mean = y[0, present].astype(np.float64).mean(axis=0)
    if offset is None:
        if operator.m < 3 or np.std(flat) < _TELLING * np.abs(flat).max():
            raise InputError(
                "--gain auto cannot tell the offset here: every row of Φ sums to about the same. "
                "Give --offset, or --calibrate with a white and a black scene."
            )
        columns = np.stack([flat, np.ones_like(flat)], axis=1)
        (level, offset), *_ = np.linalg.lstsq(columns, mean, rcond=None)
    else:
        level = flat @ (mean - offset) / (flat @ flat)
    if not level:
        raise InputError("--gain auto: the values are 0 everywhere.")
    around = (y - np.float32(offset)) / np.float32(2 * level) * present[..., None]
    ready = Measurement.of(operator, torch.from_numpy(around.astype(np.float32))).whiten()
    estimate = _ESTIMATE(ready)[0, 0]
    seen = operator.seen()
    pixels = estimate.ravel() if seen is None else estimate[seen]
    bright = float(np.quantile(pixels.numpy(), 0.99))
    gain = 2 * float(level) * bright / _BRIGHT
    log.info("gain %.6g and offset %.6g, estimated from the values.", gain, offset)
    return gain, np.full(operator.m, float(offset))
