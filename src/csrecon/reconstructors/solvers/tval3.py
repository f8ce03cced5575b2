"""TVAL3: min_x λ Σ_i ‖D_i x‖ + ½‖Ax - y‖² by the augmented Lagrangian method.

With w_i for D_i x, the differences at pixel i, and multipliers λ p_i,

    L(x, w) = ½‖Ax - y‖² + Σ_i λ‖w_i‖ - λ p_iᵀ(D_i x - w_i) + (β/2)‖D_i x - w_i‖²

is minimised in turn over w, by shrinkage w_i = shrink(D_i x - λ p_i / β, λ / β), and over x, by one
gradient step of the length of Barzilai and Borwein. L is quadratic in x, so that its value after a
step is known before; where it would exceed the weighted mean of the values before (Zhang and
Hager), the step is the steepest descent's. Every few steps, or where x hardly moves,
p ← p - (β/λ)(Dx - w). An iteration applies A and Aᵀ once. β is λ / `threshold`.

Source: Li, Yin, Jiang and Zhang, Computational Optimization and Applications 2013.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers.frame import Iterate
from csrecon.reconstructors.solvers.proximal import Strength, facts, is_settled
from csrecon.reconstructors.solvers.tv import TotalVariation, differences, differences_adjoint
from csrecon.reconstructors.solvers.weighted import Weighted
from csrecon.sensing.measurement import Measurement

_MEMORY = 0.9995  # of the weighted mean of earlier values
_STILL = 1e-3  # relative change of x below which the multipliers are updated


def lengths(p: Tensor) -> Tensor:
    """The length of the differences at every pixel, (B, 2C, H, W) -> (B, 1, H, W)."""
    return p.square().sum(dim=1, keepdim=True).sqrt()


def shrink(p: Tensor, by: float) -> Tensor:
    """The differences p with their lengths reduced by `by`, at most to zero."""
    kept: Tensor = p * (1 - by / lengths(p).clamp(min=by))
    return kept


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a * b).sum())


@dataclass(frozen=True)
class Tval3(Weighted):
    """The solver.

    Attributes:
        inner: the most steps from one update of the multipliers to the next.
        threshold: λ / β, by which differences shrink, in units of the image.
    """

    iterations: Count = 200
    inner: Count = 10
    threshold: Strength = 0.1

    def image_at(self, m: Measurement, weight: float, start: Tensor | None) -> Tensor:
        """By `tv`, which solves the same problem and keeps more of a warm start."""
        return TotalVariation().image_at(m, weight, start)

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """Alternating steps over w and x, with multipliers."""
        x = m.operator.adjoint(m.y) if start is None else start
        misfit, d = m.operator(x) - m.y, differences(x)
        p = torch.zeros_like(d)
        strengths = self.strengths(m, start)
        step = mean = count = 0.0
        since = 0  # steps since the last update of the multipliers
        for index, weight in enumerate(strengths, start=1):
            beta = weight / self.threshold
            w = shrink(d - self.threshold * p, self.threshold)
            slack = d - w - self.threshold * p
            value = 0.5 * _dot(misfit, misfit) + 0.5 * beta * _dot(slack, slack)
            value += weight * float(lengths(w).sum())
            gradient = m.operator.adjoint(misfit) + beta * differences_adjoint(slack)
            seen, across = m.operator(gradient), differences(gradient)
            slope = _dot(gradient, gradient)
            curvature = _dot(seen, seen) + beta * _dot(across, across)
            steepest = slope / max(curvature, 1e-30)
            old = _MEMORY * count if since else 0.0
            mean, count = (old * mean + value) / (old + 1), old + 1
            step = step or steepest
            if value - step * slope + 0.5 * step**2 * curvature > mean:
                step = steepest
            x = x - step * gradient
            misfit, d = misfit - step * seen, d - step * across
            moved = step * slope**0.5 / max(float(x.norm()), 1e-30)
            step, since = steepest, since + 1  # this step's exact length is the next one's BB
            told = facts(misfit, weight, float(lengths(d).sum()))
            yield Iterate(x, told, is_settled(strengths, index))
            if since >= self.inner or moved < _STILL:
                p = p - (d - shrink(d - self.threshold * p, self.threshold)) / self.threshold
                misfit, d = m.operator(x) - m.y, differences(x)
                since = 0
