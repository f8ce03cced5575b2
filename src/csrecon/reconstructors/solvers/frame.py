"""What all solvers share: facts of every iterate, stopping, divergence, and a warm start.

A solver yields iterates; `Solver.steps` counts them and ends

* where the solver itself says that it is done (a duality gap, a noise level),
* where the relative change ‖x_k - x_{k-1}‖ / ‖x_k‖ of every plane is below `tolerance`, while the
  problem stays the same from one iteration to the next (λ does not fall),
* after the largest number of iterations,
* with an error where it diverges: the objective (or, of a method without one, ½‖Ax - y‖²) is not
  finite, or more than ten times its least value so far. Values below 1e-6 · ½‖y‖² count as that.
  Where there is no objective and the problem changes, ½‖Ax - y‖² may grow for a while, and only
  more than that of the image of zeros is divergence.

Objective and residual are those of the normalized measurement, summed over its planes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from csrecon.errors import CheckError, InputError, UsageError
from csrecon.reconstructors.base import Reconstructor, Step, last
from csrecon.sensing.measurement import Measurement

Tolerance = Annotated[float, Field(ge=0, lt=1)]
"""A relative change of the iterate below which a solver stops; 0 for no such rule."""

OBJECTIVE, RESIDUAL, STRENGTH, GAP = "objective", "residual", "strength", "gap"
"""Names of facts: the objective, ‖Ax - y‖, the regularisation strength λ, the duality gap."""

_GROWN = 10.0  # times the least objective: diverged
_NOTHING = 1e-6  # of ½‖y‖²: an objective below it is no measure of growth


@dataclass(frozen=True)
class Iterate:
    """What a solver yields.

    Attributes:
        image: (B, C, H, W), not clipped; never changed afterwards.
        facts: numbers about it, by name.
        settled: whether the next iteration has the same problem, so that the change tells.
        stopped: why the solver is done; empty to go on.
    """

    image: Tensor
    facts: Mapping[str, float] = field(default_factory=dict)
    settled: bool = True
    stopped: str = ""


class Solver(ABC):
    """A classical solver: a frozen dataclass whose fields are its options.

    Attributes:
        tolerance: the relative change of the iterate at which it stops; 0 for none.
    """

    tolerance: float

    @abstractmethod
    def most(self, m: Measurement) -> int:
        """The largest number of iterations for a measurement.

        Raises:
            UsageError: an operator that this solver cannot take.
        """

    @abstractmethod
    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The iterates, at most `most(m)`.

        Args:
            m: a normalized measurement.
            start: a warm start (B, C, H, W); None for the solver's own.
        """

    def steps(
        self, m: Measurement, start: Tensor | None = None, keep_going: bool = False
    ) -> Iterator[Step]:
        """Every iterate; the last one says why it is the last.

        Args:
            m: the measurement; its operator should have ‖A‖ ≤ 1 (Measurement.normalized).
            start: a warm start, (B, C, H, W); None for the solver's own.
            keep_going: where the solver diverges, end with the best iterate instead of an error.

        Raises:
            UsageError: an operator that this solver cannot take, or a start of another shape.
            CheckError: it diverges.
        """
        most = self.most(m)
        energy = float(m.y.square().sum()) / 2
        rules = _Rules(type(self).__name__, self.tolerance, energy, keep_going)
        for index, made in enumerate(self.iterates(m, _checked(start, m)), start=1):
            reason = rules.reason(made, index, most)
            shown = rules.best if rules.diverged and rules.best is not None else made
            nothing = shown.image.new_zeros(())
            total = index if reason else most
            yield Step(shown.image, nothing, index, total, facts=shown.facts, stopped=reason)
            if reason:
                return

    def __call__(self, m: Measurement) -> Tensor:
        """The last iterate, (B, C, H, W), not clipped."""
        return last(self.steps(m)).image

    def identity(self) -> dict[str, Any]:
        """Everything besides its name that its results depend on."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]  # a dataclass


class _Rules:
    """The stopping rules, asked for every iterate in turn.

    Args:
        name: of the solver, in messages.
        tolerance: relative change of the iterate.
        energy: ½‖y‖², the cost of the image of zeros.
        keep_going: whether divergence is a reason to stop instead of an error.
    """

    def __init__(self, name: str, tolerance: float, energy: float, keep_going: bool) -> None:
        self.best: Iterate | None = None
        self.diverged = False
        self._name, self._tolerance = name, tolerance
        self._energy, self._keep_going = energy, keep_going
        self._least = math.inf
        self._before: Tensor | None = None

    def reason(self, made: Iterate, index: int, most: int) -> str:
        """Why the index-th iterate is the last one; empty if it is not.

        Raises:
            CheckError: the solver diverges, and there is no iterate to keep.
        """
        wrong = self._wrong(made)
        if wrong:
            self.diverged = True
            if not self._keep_going or self.best is None:
                raise CheckError(
                    f"{self._name} diverged in iteration {index}: {wrong}. Check ‖A‖ and the "
                    "options of the solver; --keep-going writes the best iterate."
                )
            return f"diverged in iteration {index}: {wrong}"
        before, self._before = self._before, made.image if self._tolerance else None
        if made.stopped:
            return made.stopped
        if before is not None and made.settled and _change(made.image, before) < self._tolerance:
            return f"relative change below {self._tolerance:g}"
        return "iterations" if index == most else ""

    def _wrong(self, made: Iterate) -> str:
        """How the solver diverges; empty if it does not. Keeps the best iterate if asked to."""
        name, cost, nothing = "the objective", made.facts.get(OBJECTIVE), _NOTHING * self._energy
        if cost is None and RESIDUAL in made.facts:
            name, cost = "½‖Ax - y‖²", made.facts[RESIDUAL] ** 2 / 2
            nothing = nothing if made.settled else self._energy / _GROWN
        if cost is None:
            finite = bool(torch.isfinite(made.image).all())
            return "" if finite else "the image is not finite"
        if not math.isfinite(cost):
            return f"{name} is not finite"
        if cost > _GROWN * max(self._least, nothing):
            return f"{name} grew from {self._least:.4g} to {cost:.4g}"
        if cost < self._least:
            self._least = cost
            self.best = made if self._keep_going else None
        return ""


def _checked(start: Tensor | None, m: Measurement) -> Tensor | None:
    """A warm start on the device of the measurement, checked."""
    if start is None:
        return None
    expected = (len(m.y), *m.operator.domain)
    if tuple(start.shape) != expected:
        raise UsageError(
            f"a start of shape {tuple(start.shape)} for images of {expected}: expected an image "
            "of the size and the colours that were measured."
        )
    if not bool(torch.isfinite(start).all()):
        raise InputError("the start holds NaN or infinite values.")
    return start.to(m.y)


def _change(image: Tensor, before: Tensor) -> float:
    """The largest relative change of a plane; infinite from an image of zeros."""
    moved = (image - before).flatten(1).norm(dim=1)
    return float((moved / image.flatten(1).norm(dim=1)).nan_to_num(0.0).max())


@dataclass(frozen=True, eq=False)
class Started:
    """A solver with a warm start, as a reconstructor.

    Attributes:
        solver: the solver.
        start: (B, C, H, W); None for its own.
        keep_going: whether it ends with its best iterate where it diverges.
    """

    solver: Solver
    start: Tensor | None = None
    keep_going: bool = False

    def steps(self, m: Measurement) -> Iterator[Step]:
        """Every iterate."""
        return self.solver.steps(m, self.start, self.keep_going)

    def __call__(self, m: Measurement) -> Tensor:
        """The last iterate, (B, C, H, W), not clipped."""
        return last(self.steps(m)).image


def started(
    model: Reconstructor, start: Tensor | None = None, keep_going: bool = False
) -> Reconstructor:
    """A reconstructor with a warm start (B, C, H, W); the model itself if there is none.

    Raises:
        UsageError: a start for a network.
    """
    if start is None and not keep_going:
        return model
    if not isinstance(model, Solver):
        raise UsageError(
            f"{type(model).__name__} has a start of its own: a warm start (--init, --init-model) "
            "and --keep-going are for classical solvers, such as --model tv."
        )
    return Started(model, start, keep_going)
