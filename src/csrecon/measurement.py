"""A measurement: the operator A, what it measured y = A x, and what the scene was.

The data term ½‖A x - y‖² lives here and nowhere else; networks and solvers ask for its gradient.
"""

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from csrecon.errors import InputError, UsageError
from csrecon.images import GRAY, PixelFormat
from csrecon.operators import BlockOperator, LinearOperator


@dataclass(frozen=True, eq=False)
class Measurement:
    """Operator, measured values and level.

    Attributes:
        operator: the A that made y, with the image shape.
        y: float32; (B, gh, gw, m) for a BlockOperator. Colour planes are the batch.
        level: what a modulation is told, m/n of the operator.
        format: colour space and bit depth of the planes, for showing and writing the result.
        noise: standard deviation of the noise on y, as far as it is known.
    """

    operator: LinearOperator
    y: Tensor
    level: float
    format: PixelFormat = GRAY
    noise: float = 0.0

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

    def consistent(self, x: Tensor) -> Tensor:
        """x moved towards the images that explain y, as far as the noise lets y be trusted.

        For orthonormal rows and no noise the projection onto A x = y. With noise σ the step is
        w Aᵀ(A x - y) with w = max(0, 1 - σ²/mean(A x - y)²): what the misfit has above the noise.

        Source: the positive-part shrinkage of James and Stein, 1961.
        """
        step = self.gradient(x)
        if self.noise:
            misfit = step.square().sum() / self.y.numel()
            step = step * (1 - self.noise**2 / misfit.clamp(min=1e-20)).clamp(min=0)
        return x - step

    def whiten(self) -> "Measurement":
        """The equivalent measurement whose operator has orthonormal rows.

        The rank over n becomes the level. Unchanged where the rows are orthonormal already.
        """
        operator, y, growth = self.operator.orthonormalized(self.y)
        if operator is self.operator:
            return self
        noise = growth * self.noise
        return replace(self, operator=operator, y=y, level=operator.ratio, noise=noise)

    def per_block(self) -> "Measurement":
        """The same measurement with every block an image of its own (see join_blocks)."""
        operator, y = self.operator.per_block(self.y)
        return replace(self, operator=operator, y=y)

    @property
    def kind(self) -> Hashable | None:
        """What measurements that may be stacked have in common; None for one that stands alone.

        Noise stands alone, because the last step weighs the misfit of a whole measurement.
        """
        operator = self.operator
        if not isinstance(operator, BlockOperator) or operator.present is not None or self.noise:
            return None
        return operator.phi.sha256, operator.block, operator.image_shape, self.level

    @classmethod
    def stacked(cls, alike: Sequence["Measurement"]) -> "Measurement":
        """One measurement of several of one kind: the planes of one after another's, (ΣB, …).

        Its image is theirs in that order. The format is the first one's.

        Raises:
            UsageError: several that are not of one kind.
        """
        if len(alike) == 1:
            return alike[0]
        if len({m.kind for m in alike}) > 1 or alike[0].kind is None:
            raise UsageError("only measurements by one operator, without noise, can be stacked.")
        return replace(alike[0], y=torch.cat([m.y for m in alike]))

    def to(self, device: torch.device) -> "Measurement":
        """A copy on another device; this one is left as it is."""
        operator = copy.deepcopy(self.operator).to(device)
        return replace(self, operator=operator, y=self.y.to(device))
