"""The gain of a camera from an all-white and an all-black scene: white - black = gain · Φ1."""

import logging
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.sensing.operators import BlockOperator

log = logging.getLogger(__name__)

_UNEVEN = 0.1  # largest relative error of a white scene without a warning
_UNRELATED = 0.8  # and that is accepted: the scene is of another Φ, or nothing but noise
_UNLIKE = 0.1  # least contrast of a block of the scenes, relative to their mean
_BALANCED = 1e-6  # row sums of Φ, relative to sums of absolute values, that count as 0


def gain_of(
    white: NDArray[np.floating[Any]], black: NDArray[np.floating[Any]], operator: BlockOperator
) -> float:
    """The gain by least squares, above 0.

    Args:
        white, black: values of the scenes, one for every row of Φ, (m,).
        operator: with the Φ that measured them.

    Raises:
        InputError: scenes that are the same, in the wrong order, or not of this Φ.
    """
    dense = operator.rows.matrix().double().cpu().numpy()
    flat = dense.sum(axis=1)  # the measurements of a white block
    power = float(flat @ flat)
    if balanced(dense):
        raise InputError(
            "all rows of Φ sum to 0, so a white and a black scene give the same values and "
            "determine no gain. Give --gain and --offset."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        contrast = (white - black).astype(np.float64)
        size = float(np.linalg.norm(contrast))
        gain = float(flat @ contrast) / power
        missed = float(np.linalg.norm(contrast - gain * flat)) / size if size else 0.0
    if size == 0:
        raise InputError("the white and the black scene are the same, so they determine no gain.")
    if not missed <= _UNRELATED:
        raise InputError(
            f"{100 * missed:.0f} % of the difference of the white and the black scene is not "
            f"explained by Φ; expected at most {100 * _UNRELATED:.0f} %. Are the scenes of another "
            "Φ or order, or nearly the same?"
        )
    if gain < 0:
        raise InputError(
            f"the white scene is darker than the black one (a gain of {gain:.4g}), which would "
            "give a negative. Give the white scene first: --calibrate WHITE BLACK. For a camera "
            "that inverts, give --gain and --offset."
        )
    if missed > _UNEVEN:
        log.warning(
            "%.0f %% of the white scene is not explained by Φ: another Φ, another order, or "
            "uneven light?",
            100 * missed,
        )
    return gain


def balanced(phi: NDArray[np.float64]) -> bool:
    """Whether all rows of Φ sum to 0, so that a white scene gives the values of a black one."""
    limit = _BALANCED * float(np.linalg.norm(np.abs(phi).sum(axis=1)))
    return float(np.linalg.norm(phi.sum(axis=1))) <= limit


def check_alike(
    white: NDArray[np.floating[Any]], black: NDArray[np.floating[Any]], operator: BlockOperator
) -> None:
    """Refuse scenes of several blocks, (blocks, m), of which some are no scene, as a time is not.

    Raises:
        InputError: a block that has hardly any contrast, unless there is one for every block of the
            image, which uneven light may leave dark.
    """
    if max(len(white), len(black)) == 1:
        return
    flat = operator.rows.matrix().double().cpu().sum(1).numpy()
    dark = black if len(black) == len(white) else black.mean(axis=0)
    gains = (white - dark).astype(np.float64) @ flat
    unlike = int((np.abs(gains) < _UNLIKE * abs(gains.mean())).sum())
    if unlike and (len(white) != math.prod(operator.grid) or len(white) == 2):
        raise InputError(
            f"the white and the black scene have {len(white)} blocks, and {unlike} of them show no "
            "contrast. Is a column a time or a count, or are its decimals written with commas? "
            f"Expected {operator.m} values, or as many for every block."
        )
