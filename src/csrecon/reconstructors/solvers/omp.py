"""Orthogonal matching pursuit on all blocks at once: x = D c with few non-zero entries of c.

For every block y = Φ x the atom of Φ D that is most correlated with the residual (relative to its
norm) joins the support, and y is projected anew onto all atoms of the support. A block is done
where its residual is at most its noise, or its support has `sparsity` atoms. The projections are
kept as Q R (Gram-Schmidt, twice for stability), so that a step costs one product with Φ D.

Source: Pati, Rezaiifar and Krishnaprasad, Asilomar 1993; Tropp and Gilbert, IEEE TIT 2007.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from csrecon.errors import InputError, UsageError
from csrecon.io import arrays
from csrecon.io.files import sha256
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers.frame import RESIDUAL, Iterate, Solver
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.sensing.operators.transforms import dct_basis

_MOST_PIXELS = 4096  # of a block: the dictionary has the square of it
_SHARE = 0.1  # of m: the sparsity by default; chosen on crops of T91 and BSD400
_DEPENDENT = 1e-4  # relative norm of an atom outside the span of the support


@dataclass
class Support:
    """What is known of every block after some steps; `grow` adds an atom to each.

    Attributes:
        atoms: Φ D with columns of norm 1, (m, K).
        y: (N, m), of N blocks.
        residual: (N, m).
        active: (N,) bool: the blocks that still grow.
        chosen: (N, k) int64.
        q, r: (N, m, k) and (N, k, k).
    """

    atoms: Tensor
    y: Tensor
    residual: Tensor
    active: Tensor
    chosen: Tensor
    q: Tensor
    r: Tensor

    @classmethod
    def of(cls, atoms: Tensor, y: Tensor) -> "Support":
        """No atom yet."""
        blocks, empty = len(y), y.new_zeros(*y.shape, 0)
        active = torch.ones(blocks, dtype=torch.bool, device=y.device)
        chosen = torch.zeros(blocks, 0, dtype=torch.int64, device=y.device)
        return cls(atoms, y, y, active, chosen, empty, y.new_zeros(blocks, 0, 0))

    def grow(self) -> None:
        """Add the most correlated atom to the support of every active block."""
        score = (self.residual @ self.atoms).abs()
        score.scatter_(1, self.chosen, -1.0)
        best = score.argmax(dim=1, keepdim=True)
        atom = self.atoms.T[best[:, 0]]
        inside = torch.zeros_like(self.q[:, 0])
        rest = atom
        for _ in range(2):
            part = torch.einsum("bmk,bm->bk", self.q, rest)
            rest = rest - torch.einsum("bmk,bk->bm", self.q, part)
            inside = inside + part
        norm = rest.norm(dim=1)
        self.active &= norm > _DEPENDENT
        on = self.active[:, None]
        direction = torch.where(on, rest / norm.clamp(min=1e-30)[:, None], 0.0)
        column = torch.where(on, inside, 0.0)
        corner = torch.where(self.active, norm, 1.0)
        size = self.r.shape[1]
        r = self.r.new_zeros(len(self.r), size + 1, size + 1)
        r[:, :size, :size], r[:, :size, size], r[:, size, size] = self.r, column, corner
        self.r = r
        self.q = torch.cat([self.q, direction[..., None]], dim=2)
        self.chosen = torch.cat([self.chosen, best], dim=1)
        along = (direction * self.residual).sum(dim=1, keepdim=True)
        self.residual = self.residual - along * direction

    def code(self) -> Tensor:
        """The coefficients of the normalized atoms, (N, K)."""
        target = torch.einsum("bmk,bm->bk", self.q, self.y)[..., None]
        found = torch.linalg.solve_triangular(self.r, target, upper=True)[..., 0]
        whole = self.y.new_zeros(len(self.y), self.atoms.shape[1])
        return whole.scatter_add_(1, self.chosen, found)


@dataclass(frozen=True)
class Omp(Solver):
    """The solver.

    Attributes:
        sparsity: the most atoms of a block; None for a tenth of its measurements.
        tolerance: root mean square of a block's residual at which it is done; 0 for the noise of
            the measurement.
        dictionary: `dct`, or a file of atoms (n, K), one a column, pixels row by row.
    """

    sparsity: Count | None = None
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    dictionary: str = "dct"
    _atoms: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the dictionary.

        Raises:
            InputError: no such file, or no finite matrix.
        """
        if self.dictionary == "dct":
            return
        found = arrays.pick(Path(self.dictionary))
        if found.ndim != 2 or not np.isrealobj(found) or not np.isfinite(found).all():
            raise InputError(
                f"dictionary {self.dictionary} of shape {found.shape}: expected a finite real "
                "matrix (pixels of a block, atoms)."
            )
        object.__setattr__(self, "_atoms", torch.from_numpy(found.astype(np.float32)))

    def identity(self) -> dict[str, Any]:
        """The options, with the digest of a dictionary in place of its path."""
        facts = {"sparsity": self.sparsity, "tolerance": self.tolerance}
        digest = "dct" if self._atoms is None else sha256(self._atoms.numpy())
        return {**facts, "dictionary": digest}

    def most(self, m: Measurement) -> int:
        """The sparsity."""
        rows = _blocks(m).m
        return min(rows, self.sparsity or max(1, round(_SHARE * rows)))

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The images after every atom; a warm start is refused, as the support is built anew."""
        if start is not None:
            raise UsageError("omp builds its support anew: leave out the warm start.")
        operator = _blocks(m)
        dictionary = self._dictionary(operator).to(m.y)
        with torch.autocast(m.y.device.type, enabled=False):
            seen = operator.rows.matrix().to(m.y) @ dictionary
        norms = seen.norm(dim=0).clamp(min=1e-12)
        found = Support.of(seen / norms, m.y.reshape(-1, operator.m))
        limit = (self.tolerance or m.noise) * math.sqrt(operator.m)
        most = self.most(m)
        for index in range(1, most + 1):
            found.active &= found.residual.norm(dim=1) > max(limit, 1e-6)
            with torch.autocast(m.y.device.type, enabled=False):
                found.grow()
                blocks = (found.code() / norms) @ dictionary.T
            left = found.residual.norm(dim=1)
            done = not bool((found.active & (left > max(limit, 1e-6))).any())
            facts = {RESIDUAL: float(left.norm())}
            image = operator.assemble(blocks.view(len(m.y), *operator.grid, operator.n))
            reason = f"{most} atoms" if index == most else ""
            yield Iterate(image, facts, False, "no block above its tolerance" if done else reason)
            if done:
                return

    def _dictionary(self, operator: BlockOperator) -> Tensor:
        """The atoms, (n, K)."""
        if self._atoms is None:
            down, across = (dct_basis(side) for side in operator.block)
            return torch.from_numpy(np.kron(down, across).T).float()
        if len(self._atoms) != operator.n:
            raise UsageError(
                f"dictionary {self.dictionary} of shape {tuple(self._atoms.shape)}: blocks of "
                f"{operator.block[0]}×{operator.block[1]} pixels need ({operator.n}, atoms)."
            )
        return self._atoms


def _blocks(m: Measurement) -> BlockOperator:
    """The operator of m, which has blocks of not too many pixels."""
    operator = m.operator
    if not isinstance(operator, BlockOperator):
        raise UsageError(
            f"omp works block by block, and {type(operator).__name__} has no blocks. Use another "
            "solver, such as --model fista."
        )
    if operator.n > _MOST_PIXELS:
        raise UsageError(
            f"omp with blocks of {operator.n} pixels: expected at most {_MOST_PIXELS}. Use smaller "
            "blocks, or another solver, such as --model fista."
        )
    return operator
