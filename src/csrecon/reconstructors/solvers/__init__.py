"""Classical solvers: one file each; they need no training and work with any linear operator."""

from collections.abc import Callable

from csrecon.reconstructors.solvers.adjoint import Adjoint
from csrecon.reconstructors.solvers.damp import Damp
from csrecon.reconstructors.solvers.denoise import Denoise
from csrecon.reconstructors.solvers.fista import Fista
from csrecon.reconstructors.solvers.frame import Solver
from csrecon.reconstructors.solvers.ista import Ista
from csrecon.reconstructors.solvers.lasso import Lasso
from csrecon.reconstructors.solvers.omp import Omp
from csrecon.reconstructors.solvers.pnp import PlugAndPlay
from csrecon.reconstructors.solvers.tv import TotalVariation
from csrecon.reconstructors.solvers.tval3 import Tval3

SOLVERS: dict[str, Callable[..., Solver]] = {
    "adjoint": Adjoint,
    "damp": Damp,
    "denoise": Denoise,
    "fista": Fista,
    "ista": Ista,
    "lasso": Lasso,
    "omp": Omp,
    "pnp": PlugAndPlay,
    "tv": TotalVariation,
    "tval3": Tval3,
}
"""Name -> solver, a dataclass whose fields are its options."""
