"""Proximal gradient steps: x ← prox_λ(v - Aᵀ(A v - y)), the iteration that networks unfold.

Without acceleration (ISTA) v is the previous iterate; with it (FISTA) v is extrapolated from it by
momentum. The step length is 1, which requires ‖A‖ ≤ 1 (Measurement.normalized).

Source: Beck and Teboulle, SIAM Journal on Imaging Sciences 2009.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.base import Step
from csrecon.sensing.measurement import Measurement

Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A regularisation strength λ."""
Prox = Callable[[Tensor, float], Tensor]
"""The proximal operator of strength · penalty at images (B, C, H, W)."""


def proximal_gradient(
    m: Measurement, prox: Prox, strengths: Sequence[float], accelerate: bool = True
) -> Iterator[Step]:
    """Every iterate from Aᵀy on, one for each strength."""
    x = ahead = m.operator.adjoint(m.y)
    momentum = 1.0
    for index, strength in enumerate(strengths, start=1):
        following = prox(ahead - m.gradient(ahead), strength)
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        beyond = (momentum - 1) / faster if accelerate else 0.0
        ahead = following + beyond * (following - x)
        x, momentum = following, faster
        yield Step(x, x.new_zeros(()), index, len(strengths))


def falling(first: float, last: float, count: int) -> list[float]:
    """`count` strengths that fall geometrically from first to last."""
    decay = (last / first) ** (1 / max(1, count - 1))
    return [first * decay**index for index in range(count)]
