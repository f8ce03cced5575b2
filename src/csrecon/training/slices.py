"""Slices of MR volumes (NIfTI): those to train on, and those that are held out.

The held-out slices are axial ones of a slab in the upper part of the volume. No slice to train on
shows a voxel of the slab: axial ones lie outside it, coronal and sagittal ones end below it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csrecon.io import volumes

_SLAB = (0.62, 0.75)  # of the height
_BRIGHT = 99.9  # percentile that becomes white
_LEAST = 0.1  # share of the pixels of a slice that are tissue
_TISSUE = 0.1  # of white

Plane = NDArray[np.uint8]


def training(path: Path) -> list[Plane]:
    """The slices of a volume to train on, in all three orientations, without nearly empty ones.

    Raises:
        InputError: not a volume that can be read.
        UsageError: nibabel is not installed.
    """
    volume = _volume(path)
    low, high = _slab(volume)
    axial = np.concatenate([volume[..., :low], volume[..., high:]], axis=-1)
    below = volume[..., :low]
    found = [*np.moveaxis(axial, 2, 0), *below, *np.moveaxis(below, 1, 0)]
    return [np.ascontiguousarray(plane) for plane in found if _is_full(plane)]


def held_out(path: Path, count: int) -> list[Plane]:
    """Some axial slices of the slab, evenly spaced.

    Raises:
        InputError, UsageError: as in `training`.
    """
    volume = _volume(path)
    inner = np.linspace(*_slab(volume), count + 2)[1:-1].astype(int)
    return [np.ascontiguousarray(volume[..., index]) for index in inner]


def _slab(volume: Plane) -> tuple[int, int]:
    low, high = (round(share * volume.shape[2]) for share in _SLAB)
    return low, high


def _is_full(plane: Plane) -> bool:
    return bool((plane > 255 * _TISSUE).mean() > _LEAST)


def _volume(path: Path) -> Plane:
    """A volume as 8-bit gray, axes to the right, to the front and up; the brightest are white."""
    values = volumes.canonical(path)
    values = values - values.min()
    white = max(float(np.percentile(values, _BRIGHT)), 1e-12)
    gray: Plane = np.round(255 * np.clip(values / white, 0, 1)).astype(np.uint8)
    return gray
