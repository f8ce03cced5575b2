"""A measurement: the operator A, what it measured y = A x, and what the scene was.

The data term ½‖A x - y‖² lives here and nowhere else; networks and solvers ask for its gradient.
"""

import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from csrecon.errors import InputError
from csrecon.images import GRAY, PixelFormat
from csrecon.operators import LinearOperator


@dataclass(frozen=True, eq=False)
class Measurement:
    """Operator, measured values and level.

    Attributes:
        operator: the A that made y, with the image shape.
        y: float32; (B, gh, gw, m) for a BlockOperator. Colour planes are the batch.
        level: what a modulation is told, m/n of the operator.
        format: colour space and bit depth of the planes, for showing and writing the result.
    """

    operator: LinearOperator
    y: Tensor
    level: float
    format: PixelFormat = GRAY

    @classmethod
    def of(cls, operator: LinearOperator, y: Tensor, pixels: PixelFormat = GRAY) -> "Measurement":
        """Check y and wrap it at the operator's own level.

        Raises:
            InputError: NaN or infinite values, or a y that this operator cannot have measured.
        """
        if tuple(y.shape[1:]) != operator.y_shape:
            raise InputError(
                f"y of shape {tuple(y.shape)} does not fit the operator: an image of "
                f"{operator.image_shape} measured with it has shape "
                f"(C, {', '.join(map(str, operator.y_shape))})."
            )
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise InputError(f"y holds {bad} NaN or infinite values of {y.numel()}.")
        return cls(operator, y.float(), operator.ratio, pixels)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y) of the data term at x, (B, 1, H, W)."""
        return self.operator.gradient(x, self.y)

    def whiten(self) -> "Measurement":
        """The equivalent measurement whose operator has orthonormal rows.

        The rank over n becomes the level. Unchanged where the rows are orthonormal already.
        """
        operator, y = self.operator.orthonormalized(self.y)
        if operator is self.operator:
            return self
        return replace(self, operator=operator, y=y, level=operator.ratio)

    def per_block(self) -> "Measurement":
        """The same measurement with every block an image of its own (see join_blocks)."""
        operator, y = self.operator.per_block(self.y)
        return replace(self, operator=operator, y=y)

    def to(self, device: torch.device) -> "Measurement":
        """A copy on another device; this one is left as it is."""
        operator = copy.deepcopy(self.operator).to(device)
        return replace(self, operator=operator, y=self.y.to(device))
