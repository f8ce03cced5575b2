"""ISTA: min_x ½‖Ax - y‖² + λ‖Wx‖₁ by proximal gradient steps (sparse.py).

ISTA-Net and its successors unfold these steps.

Source: Daubechies, Defrise and De Mol, Communications on Pure and Applied Mathematics 2004.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from csrecon.reconstructors.solvers.frame import Iterate
from csrecon.reconstructors.solvers.sparse import Sparse
from csrecon.sensing.measurement import Measurement


@dataclass(frozen=True)
class Ista(Sparse):
    """The solver; its objective never rises for a constant λ and a grid that does not move."""

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """Proximal gradient steps."""
        return self.descend(m, start, accelerate=False)
