"""What a file of arrays holds: which array may be Φ, and which were measured with it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi

_MOST_PRODUCTS = 10**12  # about half a minute

COLUMNS = ("array", "shape", "type", "range", "as Φ")


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

    def row(self, name: str) -> list[str]:
        """Its line in a table under COLUMNS."""
        return [name, "×".join(map(str, self.shape)), self.type, self.range, self.phi]


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


def fits(content: Content, m: int) -> bool:
    """Whether an array may hold values of a Φ of m rows, of each pattern or of each pair."""
    return content.finite and not {m, 2 * m}.isdisjoint(content.shape)


def advice(
    file: str, found: Mapping[str, Content], phi: str | None = None, rows: int | None = None
) -> list[str]:
    """Which arrays fit Φ, and the next command.

    Args:
        file: name of the file.
        found: its arrays.
        phi, rows: Φ of another file: its name, and its number of rows. None looks for it in the
            file.
    """
    if rows is None:
        name = likely_phi(found)
        if len(found) == 1 or name is None:
            return [f"next: csrecon inspect {file} --phi FILE, with the Φ of the measurement."]
        phi, m = f"{file}:{name}", found[name].shape[0]
    else:
        name, m = "", rows
    lines = []
    for other, content in found.items():
        if other == name or not content.finite:
            continue
        shape = content.shape
        if not fits(content, m):
            lines.append(f"{other}: no axis of length {m}, so it was not measured with this Φ.")
            continue
        count = m if m in shape else 2 * m
        blocks = math.prod(shape) // count
        layout = "blocks-first" if shape[-1] == count else "measurements-first"
        if shape[0] == shape[-1]:
            layout = "either layout"
        lines.append(f"{other}: {blocks} blocks × {count} measurements ({layout}).")
        chosen = f" --var {other}" if len(found) > 1 else ""
        pairs = " --differential" if count != m else ""
        lines.append(
            f"next: csrecon reconstruct {file}{chosen} --phi {phi} --shape HxW{pairs}, and "
            "--pixel-order F where Φ came from MATLAB."
        )
    return lines


def summary(m: Measurement) -> str:
    """A measurement file of csrecon in a line: operator, image, Φ and noise."""
    operator = m.operator
    height, width = operator.image_shape
    said = f"y of shape {tuple(m.y.shape)}, ratio {operator.ratio:.4f}"
    if isinstance(operator, BlockOperator):
        bh, bw = operator.block
        said = (
            f"blocks of {bh}×{bw}, m/n = {operator.m}/{operator.n} = {operator.ratio:.4f}, Φ "
            f"{operator.phi.kind}, {'' if operator.tight else 'not '}orthonormal rows, "
            f"{missing_blocks(operator)} blocks missing"
        )
    noise = f", noise σ {m.noise:.3g}" if m.noise else ""
    return f"{operator.spec().kind}, {height}×{width} {m.format.color}, {said}{noise}"


def missing_blocks(operator: BlockOperator) -> int:
    """How many blocks were not measured."""
    return 0 if operator.present is None else int((operator.present == 0).sum())
