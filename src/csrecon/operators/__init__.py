"""Linear operators A of the model y = A x, one file each, and the matrices Φ they apply."""

from csrecon.operators.base import LinearOperator
from csrecon.operators.block import BlockOperator
from csrecon.operators.matrices import MATRICES, Phi, count_measurements

__all__ = ["MATRICES", "BlockOperator", "LinearOperator", "Phi", "count_measurements"]
