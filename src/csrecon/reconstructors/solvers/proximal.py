"""Proximal gradient steps: x ← prox_λ(v - Aᵀ(A v - y)), the iteration that networks unfold.

Without acceleration (ISTA) v is the previous iterate; with it (FISTA) v is extrapolated from it by
momentum, and so is A v: every iteration applies A and Aᵀ once. The step length is 1, which requires
‖A‖ ≤ 1 (Measurement.normalized).

Source: Beck and Teboulle, SIAM Journal on Imaging Sciences 2009.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.solvers.frame import OBJECTIVE, RESIDUAL, STRENGTH, Iterate
from csrecon.sensing.measurement import Measurement

Strength = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A regularisation strength λ."""
Prox = Callable[[Tensor, float], tuple[Tensor, float | None]]
"""The proximal operator of strength · R at images (B, C, H, W), and the value of R there.

None where R has no value, as for a denoiser that is no proximal operator.
"""


def proximal_gradient(
    m: Measurement,
    prox: Prox,
    strengths: Sequence[float],
    accelerate: bool = True,
    start: Tensor | None = None,
    restart: bool = False,
) -> Iterator[Iterate]:
    """Every iterate, one for each strength, from `start` or Aᵀy on.

    Args:
        m: a normalized measurement.
        prox: the proximal operator.
        strengths: λ of every iteration.
        accelerate: whether v is extrapolated by momentum.
        start: a warm start (B, C, H, W).
        restart: drop the momentum where it points uphill, once λ is constant. Without it the errors
            of a prox that is computed by iterations add up.

    Source: O'Donoghue and Candès, Foundations of Computational Mathematics 2015 (restart).
    """
    x = ahead = m.operator.adjoint(m.y) if start is None else start
    seen = seen_ahead = m.operator(x)
    momentum = 1.0
    for index, strength in enumerate(strengths, start=1):
        following, penalty = prox(ahead - m.operator.adjoint(seen_ahead - m.y), strength)
        seen_following = m.operator(following)
        settled = is_settled(strengths, index)
        if restart and settled and float(((ahead - following) * (following - x)).sum()) > 0:
            momentum = 1.0
        faster = (1 + math.sqrt(1 + 4 * momentum**2)) / 2
        beyond = (momentum - 1) / faster if accelerate else 0.0
        ahead = following + beyond * (following - x)
        seen_ahead = seen_following + beyond * (seen_following - seen)
        x, seen, momentum = following, seen_following, faster
        yield Iterate(x, facts(seen - m.y, strength, penalty), settled)


def facts(misfit: Tensor, strength: float, penalty: float | None) -> dict[str, float]:
    """The facts of an iterate: strength λ, residual, and objective ½‖Ax - y‖² + λ R(x).

    Args:
        misfit: Ax - y.
        strength: λ.
        penalty: R(x), if it is known.
    """
    energy = float(misfit.square().sum())
    found = {STRENGTH: strength, RESIDUAL: math.sqrt(energy)}
    if penalty is not None:
        found[OBJECTIVE] = energy / 2 + strength * penalty
    return found


def is_settled(strengths: Sequence[float], index: int) -> bool:
    """Whether λ is constant from the iteration before the index-th, counted from 1, to the end."""
    return strengths[max(0, index - 2)] == strengths[index - 1] == strengths[-1]


def falling(first: float, last: float, count: int) -> list[float]:
    """`count` strengths that fall geometrically from first to last."""
    decay = (last / first) ** (1 / max(1, count - 1))
    return [first * decay**index for index in range(count)]
