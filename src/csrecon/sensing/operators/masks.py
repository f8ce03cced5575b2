"""Kinds of masks: which frequencies of k-space are measured.

A mask is (H, W) bool with the zero frequency in its corner, as the FFT has it. Lines are rows of
k-space. Everything random comes from the raw integers of PCG64, which no library version changes.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import UsageError, nearest

Mask = NDArray[np.bool_]
Shape = tuple[int, int]
_Floats = NDArray[np.float64]
_Indices = NDArray[np.int64]

_CENTRE = 0.1  # share of the samples at the lowest frequencies, which are always measured
_DECAY = 3.0  # exponent of the sampling density over the distance from zero frequency
_GOLDEN = math.pi * (math.sqrt(5) - 1) / 2  # between spokes: 111.25°
_HALVINGS = 20  # of the interval in which the slope of the Poisson disc lies
_ENOUGH = 1.01  # samples of a Poisson disc over those that are wanted
_STENCILS = 4  # discs per pixel of their radius


def _uniform(seed: int, count: int) -> _Floats:
    raw = np.random.PCG64(seed).random_raw(count)
    return np.asarray(((raw >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53)


def _frequencies(side: int) -> _Floats:
    """Absolute frequencies 0..1 of an axis, zero first."""
    return np.asarray(np.abs(np.fft.fftfreq(side)) * 2)


def _distance(shape: Shape) -> _Floats:
    """The distance of every frequency from zero, up to 1 in the corner of a centred k-space."""
    down, across = (_frequencies(side) for side in shape)
    return np.asarray(np.sqrt((down[:, None] ** 2 + across**2) / 2))


def _side(length: int, center: float, share: float) -> int:
    """How many of an axis' lowest frequencies `center` means, a number or a share of it."""
    return min(length, round(center) if center >= 1 else max(1, round(share * length)))


def _low(length: int, count: int) -> Mask:
    """The `count` lowest frequencies of an axis."""
    kept = np.zeros(length, bool)
    kept[(np.arange(count) - count // 2) % length] = True
    return kept


def _centre(distance: _Floats, count: int, center: float | None) -> Mask:
    """The frequencies at the centre that are always measured, of `count` in all.

    `distance` is that of lines (H,) or of frequencies (H, W).
    """
    if center is None:
        nearest_ones = np.argsort(distance.ravel(), kind="stable")[: max(1, round(_CENTRE * count))]
        kept = np.zeros(distance.size, bool)
        kept[nearest_ones] = True
        return kept.reshape(distance.shape)
    share = center ** (1 / distance.ndim)
    low = [_low(length, _side(length, center, share)) for length in distance.shape]
    box = low[0] if distance.ndim == 1 else low[0][:, None] & low[1]
    if box.sum() > count:
        what = "lines" if distance.ndim == 1 else "frequencies"
        raise UsageError(
            f"center {center:g}: {box.sum()} {what} at the centre alone, and the ratio allows "
            f"{count} of {distance.size}. Take a smaller center or a larger ratio."
        )
    return box


def _lowest_first(distance: _Floats, count: int, seed: int, center: float | None) -> Mask:
    """The centre, and others of a density that falls with distance."""
    fixed, flat = _centre(distance, count, center).ravel(), distance.ravel()
    uniform = _uniform(seed, flat.size)
    # Exponential clocks: the first `count` to ring are a weighted sample without replacement.
    clock = -np.log(uniform) / (1 - flat / flat.max() * 0.999) ** _DECAY if flat.max() else uniform
    clock[fixed] = -1
    mask = np.zeros(flat.size, bool)
    mask[np.argsort(clock, kind="stable")[:count]] = True
    return mask.reshape(distance.shape)


def _count(ratio: float, total: int) -> int:
    return max(1, round(ratio * total))


def _lines(rows: Mask, shape: Shape) -> Mask:
    mask = np.zeros(shape, bool)
    mask[rows] = True
    return mask


def random2d(shape: Shape, ratio: float, seed: int, center: float | None = None) -> Mask:
    """Variable-density mask of single frequencies."""
    distance = _distance(shape)
    return _lowest_first(distance, _count(ratio, distance.size), seed, center)


def random1d(shape: Shape, ratio: float, seed: int, center: float | None = None) -> Mask:
    """Variable-density mask of whole lines."""
    chosen = _lowest_first(_frequencies(shape[0]), _count(ratio, shape[0]), seed, center)
    return _lines(chosen, shape)


def equispaced(shape: Shape, ratio: float, seed: int, center: float | None = None) -> Mask:
    """Lines at equal distances, up to rounding, between those of the centre; the seed shifts them.

    The line count is the nearest to the ratio.
    """
    distance = _frequencies(shape[0])
    count = _count(ratio, shape[0])
    rows = _centre(distance, count, center)
    others = np.flatnonzero(~rows)
    wanted = count - int(rows.sum())
    places = (np.arange(wanted) + _uniform(seed, 1)) * len(others) / max(1, wanted)
    rows[others[np.floor(places).astype(np.int64)]] = True
    return _lines(rows, shape)


def radial(shape: Shape, ratio: float, seed: int, center: float | None = None) -> Mask:
    """Spokes through zero at multiples of the golden angle; the seed turns the first one.

    As many spokes as come nearest to the ratio, at least one.

    Source: Winkelmann et al., IEEE TMI 2007.
    """
    height, width = shape
    target = _count(ratio, height * width)
    mask = np.zeros(shape, bool)
    if center is not None:
        mask = _centre(_distance(shape), target, center)
    flat = mask.reshape(-1)
    along = np.linspace(-1, 1, 2 * max(shape) + 1)
    angle = math.pi * float(_uniform(seed, 1)[0])
    while (left := target - int(flat.sum())) > 0:
        down, across = math.sin(angle), math.cos(angle)
        reach = max(abs(down), abs(across))  # to the edge of the rectangle
        rows = np.rint(along * (height // 2) * down / reach).astype(np.int64) % height
        columns = np.rint(along * (width // 2) * across / reach).astype(np.int64) % width
        spoke = np.unique(rows * width + columns)
        if left < target and np.sum(~flat[spoke]) - left > left:
            break
        flat[spoke] = True
        angle += _GOLDEN
    return mask


def poisson(shape: Shape, ratio: float, seed: int, center: float | None = None) -> Mask:
    """Variable-density Poisson disc: no frequency within 1 + s·d of one at distance d from zero.

    The slope s is bisected for the ratio, and the last samples beyond it are left out.

    Source: Bridson, SIGGRAPH 2007, for the disc; Vasanawala et al., ISBI 2011, for MRI.
    """
    distance = np.fft.fftshift(_distance(shape))
    count = _count(ratio, distance.size)
    fixed = np.fft.fftshift(_centre(_distance(shape), count, center))
    turn = _uniform(seed, distance.size)
    turn[fixed.ravel()] = -1
    order = np.argsort(turn, kind="stable")
    first = int(fixed.sum())
    few, most, chosen = 0.0, float(max(shape)), order
    for _ in range(_HALVINGS):
        slope = (few + most) / 2
        found = _apart(distance, order, first, slope)
        if len(found) < count:
            most = slope
        else:
            few, chosen = slope, found
            if len(found) <= _ENOUGH * count:
                break
    mask = np.zeros(distance.size, bool)
    mask[chosen[:count]] = True
    return np.asarray(np.fft.ifftshift(mask.reshape(shape)))


def _apart(distance: _Floats, order: _Indices, first: int, slope: float) -> _Indices:
    """The frequencies that are far enough from those before them in `order`.

    The `first` ones are always taken.
    """
    radius = np.floor((1 + slope * distance) * _STENCILS).astype(np.int64).ravel()
    width = distance.shape[1]
    free = np.ones((distance.shape[0], width), bool)
    flat = free.reshape(-1)
    discs: dict[int, Mask] = {}
    taken = []
    for place, index in enumerate(order.tolist()):
        if not flat[index] and place >= first:
            continue
        taken.append(index)
        size = int(radius[index])
        disc = discs.get(size)
        if disc is None:
            disc = discs[size] = _outside(size / _STENCILS)
        reach = len(disc) // 2
        row, column = divmod(index, width)
        top, left = max(0, row - reach), max(0, column - reach)
        part = free[top : row + reach + 1, left : column + reach + 1]
        across = disc[top - row + reach :, left - column + reach :]
        part &= across[: part.shape[0], : part.shape[1]]
    return np.array(taken, np.int64)


def _outside(radius: float) -> Mask:
    """False within the radius of the middle."""
    reach = math.ceil(radius) - 1
    square = np.arange(-reach, reach + 1) ** 2
    return np.asarray(square[:, None] + square >= radius**2)


MASKS: dict[str, Callable[[Shape, float, int, float | None], Mask]] = {
    "random2d": random2d,
    "random1d": random1d,
    "radial": radial,
    "poisson": poisson,
    "equispaced": equispaced,
}
"""Kind of mask -> function of (shape, ratio, seed, center)."""


class Origin(NamedTuple):
    """How a mask was generated; its digest alone is its identity."""

    kind: str
    ratio: float
    seed: int = 0
    center: float | None = None


def draw(shape: Shape, origin: Origin) -> Mask:
    """A mask of a kind.

    Args:
        shape: (H, W).
        origin: `kind` is a name of MASKS. `ratio` is m/n in (0, 1]: `radial` has the nearest number
            of spokes, `random1d` and `equispaced` of lines, the others of frequencies. `center`
            is measured completely at the lowest frequencies: a share of all lines (of all
            frequencies, as a box, for masks that have no lines), or from 1 on the number of lines
            (the side of the box); None for a tenth of the samples, for `radial` what all spokes
            have in common.

    Raises:
        UsageError: an unknown kind, a negative seed, a center out of range, or one that alone
            exceeds the ratio.
    """
    kind, ratio, seed, center = origin
    if kind not in MASKS:
        raise UsageError(f"kind of mask {kind!r}: {nearest(kind, MASKS)}")
    if seed < 0:
        raise UsageError(f"seed {seed}: expected a non-negative integer.")
    if center is not None and not (0 < center < 1 or (center >= 1 and center == round(center))):
        raise UsageError(
            f"center {center:g}: expected a share between 0 and 1, or a whole number from 1 on."
        )
    return MASKS[kind](shape, ratio, seed, center)
