"""Notices images that hardly any scene gives: nearly black, or far outside of [0, 1].

Another Φ, order, gain or offset of lab values, which nothing else reveals, mostly gives them.
"""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.sensing.measurement import Measurement

log = logging.getLogger(__name__)

_BLACK = 0.01  # the brightest pixel of an image of which an 8-bit file shows hardly anything
_BEYOND = 0.1  # how far outside of black and white noise rarely leads
_FEW = 0.02  # pixels that may lie there


def notice(pixels: NDArray[Any], m: Measurement, label: str = "the image") -> None:
    """Warn of a result that is nearly black, or of which many pixels are far outside of [0, 1].

    Args:
        pixels: (H, W), (H, W, 3), or complex (H, W), whose magnitude counts.
        m: the measurement; pixels that it did not observe do not count.
        label: name of the image in the warning.
    """
    shown = np.abs(pixels) if np.iscomplexobj(pixels) else pixels
    observed = m.operator.observed()
    values = shown if observed is None else shown[observed.numpy()]
    low, high = float(values.min()), float(values.max())
    if high < _BLACK and bool(m.y.any()):
        log.warning(
            "%s: nearly black: its brightest pixel is %.2g, and white is 1. Does y (or Φ) have "
            "another scale, such as 0..255, or another sign? --gain G or --gain auto adapts it.",
            label,
            high,
        )
        return
    beyond = float(((values < -_BEYOND) | (values > 1 + _BEYOND)).mean())
    if beyond > _FEW:
        log.warning(
            "%s: %.0f %% of the pixels lie far outside of black 0 and white 1 (from %.3g to %.3g). "
            "Without strong noise this means another Φ, order, image size, gain or offset.",
            label,
            100 * beyond,
            low,
            high,
        )
