"""What a file of arrays holds: which array may be Φ, and which were measured with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.sensing.operators import Phi

_MOST_PRODUCTS = 10**12  # about half a minute


@dataclass(frozen=True)
class Content:
    """What is known of an array.

    Attributes:
        shape, type: as NumPy says them.
        finite: whether all its values are finite real numbers.
        range: its least and largest value, as text.
        phi: block, ratio and rows if it may be Φ, as text; else empty.
    """

    shape: tuple[int, ...]
    type: str
    finite: bool
    range: str
    phi: str


def describe(value: NDArray[Any]) -> Content:
    """What an array may be."""
    number = value.dtype.kind in "biuf"
    nothing = "complex" if value.dtype.kind == "c" else "no numbers"
    finite = value[np.isfinite(value)] if number else np.empty(0)
    whole = number and finite.size == value.size
    return Content(
        shape=value.shape,
        type=str(value.dtype),
        finite=whole,
        range=f"{finite.min():.4g} to {finite.max():.4g}" if finite.size else nothing,
        phi=_as_phi(value) if whole else "",
    )


def _as_phi(value: NDArray[Any]) -> str:
    """Block, ratio and rows of a matrix if it is Φ."""
    if value.ndim != 2 or min(value.shape) < 2 or value.shape[0] >= value.shape[1]:
        return ""
    m, n = value.shape
    side = math.isqrt(n)
    shape = f"{side}×{side} blocks" if side * side == n else "no square block"
    rows = "too large to examine its rows"
    if m * m * n <= _MOST_PRODUCTS:
        try:
            orthonormal = Phi.given(value).rows().orthonormal
        except InputError:  # values that float32 does not have
            return ""
        rows = f"{'' if orthonormal else 'not '}orthonormal"
    return f"{shape}, ratio {m / n:.3f}, {rows}"


def likely_phi(found: Mapping[str, Content]) -> str | None:
    """The name of the array that may be Φ, one of square blocks if there is any."""
    candidates = [name for name, content in found.items() if content.phi]
    square = [name for name in candidates if "no square" not in found[name].phi]
    return next(iter(square or candidates), None)


def advice(
    file: str, found: Mapping[str, Content], phi: str | None = None, sampling: Phi | None = None
) -> list[str]:
    """Which arrays fit Φ, and the next command.

    Args:
        file: name of the file.
        found: its arrays.
        phi, sampling: Φ of another file: its name, and itself. None looks for it in the file.
    """
    if sampling is None:
        name = likely_phi(found)
        if len(found) == 1 or name is None:
            return [f"next: csrecon inspect {file} --phi FILE, with the Φ of the measurement."]
        phi, m = f"{file}:{name}", found[name].shape[0]
    else:
        name, m = "", sampling.shape[0]
    lines = []
    for other, content in found.items():
        if other == name or not content.finite:
            continue
        shape = content.shape
        if m not in shape and 2 * m not in shape:
            lines.append(f"{other}: no axis of length {m}, so it was not measured with this Φ.")
            continue
        rows = m if m in shape else 2 * m
        blocks = math.prod(shape) // rows
        layout = "blocks-first" if shape[-1] == rows else "measurements-first"
        if shape[0] == shape[-1]:
            layout = "either layout"
        lines.append(f"{other}: {blocks} blocks × {rows} measurements ({layout}).")
        chosen = f" --var {other}" if len(found) > 1 else ""
        pairs = " --differential" if rows != m else ""
        lines.append(
            f"next: csrecon reconstruct {file}{chosen} --phi {phi} --shape HxW{pairs}, and "
            "--pixel-order F where Φ came from MATLAB."
        )
    return lines
