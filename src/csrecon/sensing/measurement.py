"""A measurement: the operator A, the data y = A x, and the format of the image.

The data-fidelity term ½‖A x - y‖² is defined only here; networks and solvers use its gradient.
"""

import copy
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from csrecon.errors import InputError, UsageError
from csrecon.io.images import GRAY, PixelFormat
from csrecon.sensing.operators import LinearOperator


@dataclass(frozen=True)
class Condition:
    """What a modulation is conditioned on: the ratio m/n, and the noise on y (σ, 0 if unknown)."""

    ratio: float
    noise: float = 0.0


@dataclass(frozen=True, eq=False)
class Measurement:
    """Operator, data, and image format.

    Attributes:
        operator: the A that made y, with the image's domain.
        y: float32 (B, *operator.y_shape). Colour planes are the batch.
        format: colour space and bit depth of the planes, for showing and writing the result.
        noise: standard deviation of the noise on y; 0 if unknown.
        scale: gain of the camera: the original values were scale · y (+ offset).
    """

    operator: LinearOperator
    y: Tensor
    format: PixelFormat = GRAY
    noise: float = 0.0
    scale: float = 1.0

    @classmethod
    def of(cls, operator: LinearOperator, y: Tensor, pixels: PixelFormat = GRAY) -> "Measurement":
        """Check y and make a measurement of it.

        Complex values become pairs of real ones if the operator's data are complex.

        Raises:
            InputError: complex values for an operator with real data, NaN or infinite values, or a
                y whose shape is not the operator's.
        """
        if y.is_complex():
            if not operator.complex_data:
                raise InputError(
                    f"y is complex ({y.dtype}), and {type(operator).__name__} measures real "
                    "values. Give the real values that were measured; nothing is cast silently."
                )
            y = torch.view_as_real(y.resolve_conj())
        if tuple(y.shape[1:]) != operator.y_shape:
            raise InputError(
                f"y of shape {tuple(y.shape)} does not fit the operator: an image of "
                f"{operator.image_shape} measured with it has shape "
                f"(C, {', '.join(map(str, operator.y_shape))})."
            )
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise InputError(f"y holds {bad} NaN or infinite values of {y.numel()}.")
        return cls(operator, y.float(), pixels)

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y) of the data-fidelity term at x, (B, C, H, W)."""
        return self.operator.gradient(x, self.y)

    def consistent(self, x: Tensor) -> Tensor:
        """x after a data-consistency step whose weight depends on the noise.

        For a tight operator without noise this is the projection onto {x: A x = y}. With noise σ
        the step is w Aᵀ(A x - y), with w = max(0, 1 - σ² / mean((A x - y)²)): the share of the
        residual's power that exceeds the noise.

        Source: the positive-part shrinkage of James and Stein, 1961.
        """
        step = self.gradient(x)
        if self.noise:
            misfit = step.square().sum() / self.y.numel()
            step = step * (1 - self.noise**2 / misfit.clamp(min=1e-20)).clamp(min=0)
        return x - step

    def normalized(self) -> "Measurement":
        """The equivalent measurement whose operator has ‖A‖ ≤ 1.

        For block sampling the rows of Φ are orthonormalized, and the ratio becomes rank / n.
        Returns `self` if the operator is normalized already.
        """
        operator, y, noise = self.operator.normalized(self.y, self.noise)
        if operator is self.operator:
            return self
        return replace(self, operator=operator, y=y, noise=noise)

    @property
    def batch_key(self) -> Hashable | None:
        """The batch key: equal for measurements that may be stacked; None if this one may not be.

        Measurements with noise have none, because `consistent` weights the residual of a whole
        measurement.
        """
        return None if self.noise else self.operator.batch_key

    @classmethod
    def stacked(cls, alike: Sequence["Measurement"]) -> "Measurement":
        """Stack measurements of equal batch key into one, with their planes in order, (ΣB, …).

        The format is that of the first.

        Raises:
            UsageError: several measurements with different batch keys, or without one.
        """
        if len(alike) == 1:
            return alike[0]
        if len({m.batch_key for m in alike}) > 1 or alike[0].batch_key is None:
            raise UsageError("only measurements by one operator, without noise, can be stacked.")
        return replace(alike[0], y=torch.cat([m.y for m in alike]))

    def to(self, device: torch.device) -> "Measurement":
        """A copy on another device; `self` is not changed."""
        operator = copy.deepcopy(self.operator).to(device)
        return replace(self, operator=operator, y=self.y.to(device))
