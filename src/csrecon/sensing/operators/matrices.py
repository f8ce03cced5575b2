"""Sampling matrices Φ (m, n): generated from a seed, or given.

Signs and bits come from the raw stream of PCG64, which is the same in all versions of NumPy.
Gaussian draws may change between versions, so the digest identifies a gaussian Φ, not the seed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from numbers import Real

import numpy as np
import torch
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.io.arrays import unmasked
from csrecon.io.files import sha256
from csrecon.sensing.operators.orthonormal import well_conditioned
from csrecon.sensing.operators.sampling import MAX_ENTRIES, MatrixRows, Rows, Sampling


def gaussian(m: int, n: int, seed: int) -> NDArray[np.float32]:
    """I.i.d. Gaussian rows, orthonormalized: Φ Φᵀ = I.

    Drawn and factorized in float64 on the CPU. The rows are those of Gram-Schmidt, in order, so
    Φ of fewer rows is the top of Φ of more rows.

    Source: R, section 4; the rows span a uniformly random subspace.
    """
    draws = np.random.Generator(np.random.PCG64(seed)).standard_normal((m, n))
    q, r = np.linalg.qr(draws.T)
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray((q * signs).T, dtype=np.float32)


def binary(m: int, n: int, seed: int) -> NDArray[np.float32]:
    """Independent 0 and 1 with equal probability, as on a micromirror device."""
    raw = np.random.PCG64(seed).random_raw(m * n).reshape(m, n)
    return (raw >> np.uint64(63)).astype(np.float32)


def bernoulli(m: int, n: int, seed: int) -> NDArray[np.float32]:
    """Independent ±1/√n with equal probability: a scaled binary Φ minus its complement."""
    return np.asarray((2 * binary(m, n, seed) - 1) / np.float32(math.sqrt(n)), dtype=np.float32)


MATRICES: dict[str, Callable[[int, int, int], NDArray[np.float32]]] = {
    "gaussian": gaussian,
    "bernoulli": bernoulli,
    "binary": binary,
}
"""Kind of dense Φ -> function of (m, n, seed)."""


def count_measurements(n: int, ratio: float | None = None, m: int | None = None) -> int:
    """Rows m of Φ for blocks of n pixels: `m` itself, or round(n · ratio).

    Raises:
        UsageError: none or both given, a ratio outside (0, 1] or not a number, m outside 1..n.
    """
    if (ratio is None) == (m is None):
        raise UsageError("give either the sampling ratio or the number of measurements m.")
    if ratio is not None:
        if not (isinstance(ratio, Real) and math.isfinite(ratio) and 0 < ratio <= 1):
            raise UsageError(f"ratio {ratio}: expected a number in (0, 1], such as 0.1.")
        m = round(n * ratio)
        if m == 0:
            raise UsageError(
                f"ratio {ratio} of {n} pixels gives no measurement; use at least {1 / n:.4g}."
            )
    assert m is not None
    if not 1 <= m <= n:
        raise UsageError(f"m = {m}: expected 1..{n} measurements for blocks of {n} pixels.")
    return m


@dataclass(frozen=True, eq=False)
class Phi(Sampling):
    """A dense sampling matrix, float32 (m, n), with its origin."""

    matrix: NDArray[np.float32]
    kind: str = "given"
    seed: int | None = None

    @classmethod
    def make(cls, m: int, n: int, seed: int, kind: str = "gaussian") -> "Phi":
        """Generate the (m, n) matrix of a kind of Φ and a seed (a non-negative integer)."""
        if seed < 0:
            raise UsageError(f"seed {seed}: expected a non-negative integer.")
        if m * n > MAX_ENTRIES:
            raise UsageError(f"Φ of shape ({m}, {n}): too large to be generated from a seed.")
        return _made(kind, m, n, seed)

    @classmethod
    def given(cls, matrix: NDArray[np.generic], label: str = "Φ") -> "Phi":
        """Wrap a given matrix.

        Raises:
            InputError: not a finite real (m, n) matrix with 1 <= m <= n.
        """
        matrix = unmasked(matrix, label)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise InputError(f"{label} of shape {matrix.shape}: expected (m, n).")
        if matrix.dtype.kind not in "fiub":
            raise InputError(f"{label} of type {matrix.dtype}: expected real numbers.")
        m, n = matrix.shape
        if m > n:
            raise InputError(
                f"{label} of shape {matrix.shape} has more rows than columns; rows are "
                "measurements and columns pixels. Transpose it?"
            )
        with np.errstate(over="ignore"):
            values = np.array(matrix, dtype=np.float32, order="C")
        if not np.isfinite(values).all():
            raise InputError(f"{label} holds NaN or infinite values.")
        return cls(values)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        m, n = self.matrix.shape
        return m, n

    @cached_property
    def sha256(self) -> str:
        """Digest of the float32 values."""
        return sha256(self.matrix)

    def rows(self) -> Rows:
        """Φ as a matrix product, with a copy of the matrix."""
        return MatrixRows(torch.tensor(self.matrix))

    def select(self, rows: Sequence[int]) -> "Phi":
        """Φ of some of the rows."""
        return Phi(np.ascontiguousarray(self.matrix[list(rows)]))

    def scale(self) -> float:
        """Root mean square of the row norms."""
        return float(np.linalg.norm(self.matrix)) / math.sqrt(len(self.matrix))

    @cached_property
    def well_conditioned(self) -> bool:
        """Whether no component of Φ is weak, so that all are kept when it is orthonormalized."""
        return self.kind == "gaussian" or well_conditioned(self.matrix.astype(np.float64))


@lru_cache(maxsize=4)
def _made(kind: str, m: int, n: int, seed: int) -> Phi:
    """Φ of a kind and a seed, cached for batches of images that share it."""
    return Phi(MATRICES[kind](m, n, seed), kind, seed)
