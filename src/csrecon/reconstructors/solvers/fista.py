"""FISTA: min_x ½‖Ax - y‖² + λ‖Wx‖₁ by accelerated proximal gradient steps (sparse.py).

Source: Beck and Teboulle, SIAM Journal on Imaging Sciences 2009.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from csrecon.reconstructors.solvers.frame import Iterate
from csrecon.reconstructors.solvers.sparse import Sparse
from csrecon.sensing.measurement import Measurement


@dataclass(frozen=True)
class Fista(Sparse):
    """The solver; its objective falls as 1/k² for a constant λ and a grid that does not move."""

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """Accelerated proximal gradient steps."""
        return self.descend(m, start, accelerate=True)
