"""Total variation: min_x ½‖Ax - y‖² + λ TV(x), by accelerated proximal gradient steps.

TV is the isotropic sum over pixels of the length of the forward differences. Its proximal map
is solved on the dual, p ← P(p + ∇(v - λ ∇ᵀp) / (8 λ)), where P projects every pair of
differences onto the unit disc; p is kept between steps. λ falls geometrically, so that early
steps remove the aliasing of Aᵀy and late ones keep detail.

Source: Beck and Teboulle, IEEE TIP 2009 (FISTA and its dual for TV).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.measurement import Measurement
from csrecon.recursion import Schedule, Step, last


def differences(x: Tensor) -> Tensor:
    """Forward differences ∇x of (B, 1, H, W) down and right, (B, 2, H, W); zero at the end."""
    down = torch.diff(x, dim=2, append=x[:, :, -1:])
    right = torch.diff(x, dim=3, append=x[:, :, :, -1:])
    return torch.cat([down, right], dim=1)


def differences_adjoint(p: Tensor) -> Tensor:
    """∇ᵀp of (B, 2, H, W), (B, 1, H, W)."""
    down, right = p[:, :1].clone(), p[:, 1:].clone()
    down[:, :, -1:] = 0
    right[:, :, :, -1:] = 0
    zero_row, zero_column = torch.zeros_like(down[:, :, :1]), torch.zeros_like(right[..., :1])
    return -torch.diff(down, dim=2, prepend=zero_row) - torch.diff(
        right, dim=3, prepend=zero_column
    )


def denoise(v: Tensor, weight: float, p: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """The proximal map of weight · TV at v, from the dual p (B, 2, H, W): image and new dual."""
    for _ in range(iterations):
        p = p + differences(v - weight * differences_adjoint(p)) / (8 * weight)
        p = p / p.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1)
    return v - weight * differences_adjoint(p), p


@dataclass(frozen=True)
class TotalVariation:
    """The solver: `iterations` outer steps with λ from `first` to `last`, `inner` dual steps each.

    For operators with orthonormal rows (Measurement.whiten), whose step length is 1. The options
    were chosen on images of T91, noiseless, at ratios 0.1 and 0.4.
    """

    iterations: int = 100
    inner: int = 5
    first: float = 0.1
    last: float = 0.0003

    def steps(self, m: Measurement, schedule: Schedule | None = None) -> Iterator[Step]:
        """Every iterate.

        Raises:
            UsageError: a schedule, which belongs to networks.
        """
        if schedule is not None:
            raise UsageError("the solver 'tv' has no layers: leave out the IPL.")
        x = ahead = m.operator.adjoint(m.y)
        p = torch.zeros_like(differences(x))
        decay = (self.last / self.first) ** (1 / max(1, self.iterations - 1))
        momentum = 1.0
        for index in range(self.iterations):
            weight = self.first * decay**index
            point = ahead - m.gradient(ahead)
            following, p = denoise(point, weight, p, self.inner)
            faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
            ahead = following + (momentum - 1) / faster * (following - x)
            x, momentum = following, faster
            yield Step(x, x.new_zeros(()), index + 1, self.iterations)

    def __call__(self, m: Measurement, schedule: Schedule | None = None) -> Tensor:
        """The last iterate, (B, 1, H, W), not clipped."""
        return last(self.steps(m, schedule)).image
