"""Linear operators A of the model y = A x, one file each, and the Φ that they apply to blocks."""

from csrecon.operators.base import LinearOperator
from csrecon.operators.block import BlockOperator
from csrecon.operators.kinds import KINDS, make
from csrecon.operators.matrices import Phi, count_measurements
from csrecon.operators.sampling import Sampling

__all__ = [
    "KINDS",
    "BlockOperator",
    "LinearOperator",
    "Phi",
    "Sampling",
    "count_measurements",
    "make",
]
