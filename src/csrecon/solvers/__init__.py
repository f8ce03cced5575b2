"""Classical solvers: one file each; they need no training and take any operator."""

from collections.abc import Callable

from csrecon.recursion import Reconstructor
from csrecon.solvers.tv import TotalVariation

SOLVERS: dict[str, Callable[[], Reconstructor]] = {"tv": TotalVariation}
"""Name -> solver with its own options."""
