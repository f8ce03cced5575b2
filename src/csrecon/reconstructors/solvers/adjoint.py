"""x = Aᵀy: the back-projection, which for Fourier sampling is the zero-filled image.

It solves nothing: it is what other methods are compared with.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from csrecon.errors import UsageError
from csrecon.reconstructors.solvers.frame import Iterate, Solver
from csrecon.sensing.measurement import Measurement


@dataclass(frozen=True)
class Adjoint(Solver):
    """One application of Aᵀ; it has no options."""

    tolerance = 0.0

    def most(self, m: Measurement) -> int:
        """One."""
        return 1

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The image.

        Raises:
            UsageError: a warm start.
        """
        if start is not None:
            raise UsageError("adjoint: one application of Aᵀ has no start; leave it out.")
        yield Iterate(m.operator.adjoint(m.y))
