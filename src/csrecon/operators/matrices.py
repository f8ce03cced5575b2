"""Sampling matrices Φ (m, n) and what identifies them.

A seed alone is no identity across library versions, so Φ carries the SHA-256 of its float32
values. Where two digests differ, a fingerprint L Φ R (fixed probe vectors on both sides) tells
rounding of the last bit from a different matrix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.files import sha256

_PROBES = 4
_FINGERPRINT_TOLERANCE = 1e-7  # relative to Φ's scale; a last-bit change moves it by about 1e-8


def gaussian(m: int, n: int, seed: int) -> NDArray[np.float32]:
    """I.i.d. Gaussian rows, orthonormalised: Φ Φᵀ = I.

    Drawn and factorised in float64 on the CPU. The rows are those of Gram-Schmidt, in order, so
    Φ of fewer rows is the top of Φ of more rows.

    Source: R, section 4; the rows span a uniformly random subspace.
    """
    draws = np.random.Generator(np.random.PCG64(seed)).standard_normal((m, n))
    q, r = np.linalg.qr(draws.T)
    signs = np.where(np.diagonal(r) < 0, -1.0, 1.0)
    return np.ascontiguousarray((q * signs).T, dtype=np.float32)


MATRICES: dict[str, Callable[[int, int, int], NDArray[np.float32]]] = {"gaussian": gaussian}
"""Kinds of Φ that a seed determines: name -> maker of (m, n, seed)."""


MAX_ENTRIES = 2**28
"""The largest m · n that is made from a seed: 1 GiB of float32."""


def count_measurements(n: int, ratio: float | None = None, m: int | None = None) -> int:
    """Rows m of Φ for blocks of n pixels: `m` itself, or round(n · ratio).

    Raises:
        UsageError: none or both given, a ratio outside (0, 1] or not a number, m outside 1..n.
    """
    if (ratio is None) == (m is None):
        raise UsageError("give the sampling ratio or the number of measurements m, one of both.")
    if ratio is not None:
        if not (math.isfinite(ratio) and 0 < ratio <= 1):
            raise UsageError(f"ratio {ratio}: expected a number in (0, 1], such as 0.1.")
        m = round(n * ratio)
        if m == 0:
            raise UsageError(
                f"ratio {ratio} of {n} pixels is no measurement; use at least {1 / n:.4g}."
            )
    assert m is not None
    if not 1 <= m <= n:
        raise UsageError(f"m = {m}: expected 1..{n} measurements for blocks of {n} pixels.")
    return m


def _probes(size: int) -> NDArray[np.float64]:
    index = np.arange(1, size + 1)[:, None] * np.sqrt([2.0, 3.0, 5.0, 7.0])[None, :_PROBES]
    return np.asarray(np.cos(index * np.pi) * np.sqrt(2 / size))


@dataclass(frozen=True, eq=False)
class Phi:
    """A sampling matrix, float32 (m, n), with its origin.

    `kind` is a name of MATRICES with its `seed`, or "given" for a matrix from outside.
    """

    matrix: NDArray[np.float32]
    kind: str = "given"
    seed: int | None = None

    @classmethod
    def make(cls, m: int, n: int, seed: int, kind: str = "gaussian") -> "Phi":
        """Make the (m, n) matrix of a kind and a seed (a non-negative integer)."""
        if seed < 0:
            raise UsageError(f"seed {seed}: expected a non-negative integer.")
        if m * n > MAX_ENTRIES:
            raise UsageError(f"Φ of shape ({m}, {n}): too large to be made from a seed.")
        return _made(kind, m, n, seed)

    @classmethod
    def given(cls, matrix: NDArray[np.generic], label: str = "Φ") -> "Phi":
        """Take a matrix from outside.

        Raises:
            InputError: not a finite real (m, n) matrix with 1 <= m <= n.
        """
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

    @cached_property
    def sha256(self) -> str:
        """Digest of the float32 values."""
        return sha256(self.matrix)

    @cached_property
    def fingerprint(self) -> tuple[float, ...]:
        """The 16 numbers L Φ R, row by row."""
        m, n = self.matrix.shape
        product = _probes(m).T @ self.matrix.astype(np.float64) @ _probes(n)
        return tuple(float(v) for v in product.ravel())

    def is_same(self, digest: str, fingerprint: tuple[float, ...]) -> bool:
        """Whether this is the matrix with that digest, or equal to it up to rounding."""
        if self.sha256 == digest:
            return True
        m, n = self.matrix.shape
        scale = float(np.linalg.norm(self.matrix)) / math.sqrt(min(m, n))
        gap = np.abs(np.subtract(self.fingerprint, fingerprint)).max()
        return bool(gap <= _FINGERPRINT_TOLERANCE * scale)


@lru_cache(maxsize=4)
def _made(kind: str, m: int, n: int, seed: int) -> Phi:
    """Φ of a seed; a batch of images asks for the same one again and again."""
    return Phi(MATRICES[kind](m, n, seed), kind, seed)
