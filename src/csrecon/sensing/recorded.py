"""Notices values that are not what the scene gave: saturated, or never written."""

import logging
from typing import Any

from numpy.typing import NDArray

log = logging.getLogger(__name__)

_FULL_SCALES = {2**bits - 1 for bits in range(8, 17)}  # of an analogue-to-digital converter
_SEVERAL = 4  # values of a block that are the same by no chance


def notice_saturated(array: NDArray[Any], label: str) -> None:
    """Warn of integers of which several have the largest value of a converter of 8 to 16 bits."""
    if array.dtype.kind not in "iu":
        return
    peak = int(array.max())
    many = int((array == peak).sum())
    if peak in _FULL_SCALES and many > 1:
        log.warning(
            "%s: %d of %d values are %d, the largest of %d bits: are they saturated? A saturated "
            "value is smaller than what the scene gave.",
            label,
            many,
            array.size,
            peak,
            peak.bit_length(),
        )


def notice_unwritten(values: NDArray[Any], label: str) -> None:
    """Warn of blocks, (..., m), of which all values are the same, where others differ.

    An array is often filled with zeros before a measurement, which may then be interrupted.
    """
    m = values.shape[-1]
    if m < _SEVERAL:
        return
    flat = values.reshape(-1, m)
    same = int((flat == flat[:, :1]).all(axis=1).sum())
    if 0 < same < len(flat):
        log.warning(
            "%s: in %d of %d blocks all values are the same: were they never written? Then leave "
            "them out, and give the positions of the others.",
            label,
            same,
            len(flat),
        )
