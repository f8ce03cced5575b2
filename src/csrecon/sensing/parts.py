"""Parts of a measurement: of blocks some rows of Φ or some blocks, of any operator some values."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, FourierOperator, LinearOperator
from csrecon.sensing.operators.base import Derived

_MEAN = 0.25  # share of the energy of the mean along the last axis, above which a value stays

Corner = tuple[int, int]
"""Block row and block column of the first block of a crop."""


def of_rows(m: Measurement, rows: Sequence[int]) -> Measurement:
    """The measurement by some of the rows of Φ; m is block sampling."""
    assert isinstance(m.operator, BlockOperator)
    operator = m.operator.select(rows).to(m.y.device)
    return Measurement(operator, m.y[..., list(rows)].contiguous(), m.format, m.noise, m.scale)


def crop(m: Measurement, corner: Corner, size: tuple[int, int]) -> Measurement:
    """The measurement of some whole blocks, as of an image of these blocks alone.

    Args:
        m: block sampling.
        corner: of the crop.
        size: in blocks; it may reach the border of the image, and not beyond.
    """
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    rows, columns = (slice(a, a + n) for a, n in zip(corner, size, strict=True))
    height, width = (
        min(n * side, whole - a * side)
        for a, n, side, whole in zip(
            corner, size, operator.block, operator.image_shape, strict=True
        )
    )
    there = None if operator.present is None else operator.present[rows, columns]
    part = BlockOperator(operator.phi, (height, width), operator.block, operator.rows, there)
    return replace(m, operator=part, y=m.y[:, rows, columns].contiguous())


class Kept(Derived):
    """Some of the values of an operator; the others are zero.

    Args:
        operator: the whole operator.
        keep: mask of the values that are kept, bool, of shape y_shape.
    """

    keep: Tensor

    def __init__(self, operator: LinearOperator, keep: Tensor) -> None:
        super().__init__(operator)
        self.register_buffer("keep", keep.to(torch.float32), persistent=False)

    @property
    def ratio(self) -> float:
        """The ratio of the operator times the share that is kept."""
        return self.operator.ratio * float(self.keep.mean())

    def forward(self, x: Tensor) -> Tensor:
        """Measure, and set the other values to zero."""
        y: Tensor = self.operator(x)
        return y * self.keep

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ of the values that are kept."""
        return self.operator.adjoint(y * self.keep)

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Unchanged if the operator is: leaving values out does not raise ‖A‖."""
        operator, y, noise = self.operator.normalized(y, noise)
        if operator is self.operator:
            return self, y, noise
        return Kept(operator, self.keep.bool()), y * self.keep, noise


def without(m: Measurement, held: Tensor) -> Measurement:
    """The measurement without some of its values; `held` is bool, of shape y_shape."""
    operator = Kept(m.operator, ~held)
    return replace(m, operator=operator, y=m.y * operator.keep)


def measured(operator: LinearOperator) -> Tensor:
    """Mask of the values that were measured, bool, of shape y_shape: all but of missing blocks."""
    there = torch.ones(operator.y_shape, dtype=torch.bool)
    if isinstance(operator, BlockOperator) and operator.present is not None:
        there &= (operator.present > 0).cpu()[..., None]
    return there


def held_out(operator: LinearOperator, share: float, seed: int = 0) -> Tensor:
    """A random choice of measured values to hold out, bool, of shape y_shape.

    Values that carry much of the mean of their block stay, and the zero frequency. Both parts of a
    complex value are held out together, and of a real image both of two conjugate frequencies.

    Args:
        operator: normalized.
        share: of the values.
        seed: of the choice.
    """
    ones = torch.ones(1, *operator.domain)
    device = next(operator.buffers(), ones).device
    energy = operator(ones.to(device))[0].cpu().square()
    if operator.complex_data:
        energy = energy.sum(dim=-1)
    level = energy > _MEAN * energy.sum(dim=-1, keepdim=True)
    draw = torch.Generator().manual_seed(seed)
    if isinstance(operator, FourierOperator) and operator.domain[0] == 1:
        number = torch.rand(operator.image_shape, generator=draw)
        conjugate = number.flip(0, 1).roll((1, 1), dims=(0, 1))
        chosen = torch.maximum(number, conjugate).flatten()[operator.index.cpu()] < share**0.5
    else:
        chosen = torch.rand(energy.shape, generator=draw) < share
    held = chosen & ~level
    if operator.complex_data:
        held = held[..., None].expand(operator.y_shape)
    found: Tensor = (held & measured(operator)).to(device)
    return found
