"""The strength λ of min_x ½‖Ax - y‖² + λ R(x), chosen from the data (`weight=auto`).

x_λ is computed along a path of falling λ, each from the image of the one before.

* If the noise σ is known: the discrepancy principle. λ is the largest with ‖A x_λ - y‖ ≤ σ √N, the
  expected norm of the noise on N values. ‖A x_λ - y‖ rises with λ, so the path ends where it is
  small enough, and the crossing is interpolated in log λ.
* Else: cross-validation. A tenth of the values is held out, the path uses the others, and λ is the
  one whose images predict the held-out values with the least mean square (a parabola through the
  three best in log λ). A value that carries much of the mean of its block is never held out, and of
  a real image not one of two conjugate frequencies alone.

Source: Morozov 1966 (discrepancy principle); Ward, IEEE Trans. Inf. Theory 2009 (cross-validation).
"""

import logging
import math
from collections.abc import Callable, Iterator

from torch import Tensor

from csrecon.errors import UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.parts import held_out, measured, without

log = logging.getLogger(__name__)

Solve = Callable[[Measurement, float, Tensor | None], Tensor]
"""Measurement, λ and warm start -> image (B, C, H, W)."""

_FIRST, _FACTOR, _COUNT = 0.5, 0.5, 16  # λ of the path: 0.5, 0.25, …, 1.5e-5
_REFINED = 4  # more values of λ at the most, between the two around the crossing
_CLOSE, _AIM = 0.97, 0.985  # of the expected residual: near enough, and what is aimed at
_SHARE = 0.1  # of the values that are held out
_RISEN = 2  # steps beyond the least error after which the path ends


def automatic(m: Measurement, solve: Solve) -> float:
    """λ for a normalized measurement: by its noise if that is known, else by cross-validation.

    Raises:
        UsageError: too few values to hold any out.
    """
    if m.noise:
        found, rule = _discrepancy(m, solve), "the discrepancy principle"
    else:
        found, rule = _cross_validated(m, solve), "cross-validation"
    log.debug("weight %.3g, chosen by %s", found, rule)
    return found


def expected_residual(m: Measurement) -> float:
    """σ √N: the expected norm of the noise on the N measured values."""
    return m.noise * math.sqrt(int(measured(m.operator).sum()) * len(m.y))


def _path(m: Measurement, solve: Solve) -> Iterator[tuple[float, Tensor]]:
    x = None
    for index in range(_COUNT):
        weight = _FIRST * _FACTOR**index
        x = solve(m, weight, x)
        yield weight, x


def _residual(m: Measurement, x: Tensor) -> float:
    return max(float((m.operator(x) - m.y).norm()), 1e-30)


def _discrepancy(m: Measurement, solve: Solve) -> float:
    target = expected_residual(m)
    above: tuple[float, float] | None = None  # λ and residual
    for weight, x in _path(m, solve):
        residual = _residual(m, x)
        if residual <= target:
            break
        above = weight, residual
    if above is None or residual > target:
        return weight  # the first λ is small enough already, or none is
    below = weight, residual
    for _ in range(_REFINED):
        if below[1] >= _CLOSE * target:
            break
        slope = math.log(above[1] / below[1]) / math.log(above[0] / below[0])
        if slope <= 0:
            break
        weight = below[0] * (_AIM * target / below[1]) ** (1 / slope)
        residual = _residual(m, solve(m, weight, x))
        if residual <= target:
            below = weight, residual
        else:
            above = weight, residual
    return below[0]


def _cross_validated(m: Measurement, solve: Solve) -> float:
    held = held_out(m.operator, _SHARE)
    if not bool(held.any()):
        raise UsageError(
            f"weight=auto: {m.y[0].numel()} values are too few to hold any out. Give a weight, or "
            "the noise."
        )
    fewer = without(m, held)
    tried: list[tuple[float, float]] = []  # log λ and error
    for weight, x in _path(fewer, solve):
        missed = (m.operator(x) - m.y)[:, held]
        tried.append((math.log(weight), float(missed.square().mean())))
        if len(tried) - 1 - _least(tried) >= _RISEN:
            break
    best = _least(tried)
    if not 0 < best < len(tried) - 1:
        return math.exp(tried[best][0])
    (_, before), (middle, least), (_, after) = tried[best - 1 : best + 2]
    bend = before - 2 * least + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    return math.exp(middle + shift * math.log(_FACTOR))


def _least(tried: list[tuple[float, float]]) -> int:
    return min(range(len(tried)), key=lambda index: tried[index][1])
