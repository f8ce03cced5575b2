"""Solvers of min_x ½‖Ax - y‖² + λ R(x): how λ is given, and how it falls on the way.

λ is `weight`, or without it a rule of the solver (`last`, and for some no less than a multiple of
the noise), or with `weight=auto` what the data tell (strength.py). From a cold start λ falls
geometrically from `first` over the first `continuation` iterations: early steps then remove the
aliasing of Aᵀy, and late ones keep detail. From a warm start it does not fall.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.base import last
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers import strength
from csrecon.reconstructors.solvers.frame import Solver, Tolerance
from csrecon.reconstructors.solvers.proximal import Strength, falling
from csrecon.sensing.measurement import Measurement

_SEARCHED = 25  # iterations for each λ that is tried, from the image of the one before


@dataclass(frozen=True)
class Weighted(Solver):
    """The options that these solvers share.

    Attributes:
        iterations: their largest number.
        tolerance: the relative change of the iterate at which it stops, once λ has fallen.
        weight: λ; `auto` chooses it by the noise or by cross-validation; None for the rule.
        first: λ of the first iteration.
        last: λ by the rule.
        continuation: iterations over which λ falls; None for all, or half of them with a tolerance.
    """

    iterations: Count = 200
    tolerance: Tolerance = 0.0
    weight: Strength | Literal["auto"] | None = None
    first: Strength = 0.1
    last: Strength = 0.0003
    continuation: Annotated[int, Field(ge=0, le=1024)] | None = None

    def most(self, m: Measurement) -> int:
        """The iterations asked for."""
        return self.iterations

    def rule(self, m: Measurement) -> float:
        """λ without `weight`."""
        return self.last

    def lowest(self, m: Measurement) -> float:
        """The λ at which this solver ends."""
        if self.weight is None:
            return self.rule(m)
        return strength.automatic(m, self.image_at) if self.weight == "auto" else self.weight

    def strengths(self, m: Measurement, start: Tensor | None) -> list[float]:
        """λ of every iteration."""
        lowest = self.lowest(m)
        over = self.continuation
        if over is None:
            over = 0 if start is not None else self.iterations // (2 if self.tolerance else 1)
        over = min(over, self.iterations)
        fall = falling(max(self.first, lowest), lowest, over) if over else []
        return [*fall, *[lowest] * (self.iterations - over)]

    def image_at(self, m: Measurement, weight: float, start: Tensor | None) -> Tensor:
        """The image for a constant λ, for the search."""
        trial = replace(self, weight=weight, continuation=0, iterations=_SEARCHED, tolerance=0.0)
        return last(trial.steps(m, start)).image
