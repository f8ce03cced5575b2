"""Structured sampling: rows of an orthonormal transform of a block, applied without a matrix.

Φ = S (B_h ⊗ B_w) P D: the pixels of a block change sign (D) and are permuted (P), then follow a
separable transform B_h X B_wᵀ and the selection of m coefficients (S). The rows are orthonormal,
and Φ costs bh + bw multiplications per pixel, so that a block can be a whole image. Signs,
permutation and selection come from the raw stream of PCG64, which is the same in all versions of
NumPy, so that a seed identifies Φ.

Source: Do et al., IEEE TSP 2012 (scrambled transforms); Yu, Sensors 2019 (cake-cutting order).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.sensing.operators.sampling import MAX_ENTRIES, Rows, Sampling

Basis = Literal["hadamard", "dct", "pixels"]
MAX_PIXELS = 2**26
"""The largest block, in pixels."""


def hadamard_basis(side: int) -> NDArray[np.float64]:
    """The orthonormal Hadamard matrix of a power of two, in Sylvester's order."""
    h = np.ones((1, 1))
    while len(h) < side:
        h = np.block([[h, h], [h, -h]])
    return np.asarray(h / np.sqrt(side))


def dct_basis(side: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II matrix, one frequency per row."""
    frequency, place = np.arange(side)[:, None], np.arange(side) + 0.5
    basis = np.cos(np.pi / side * frequency * place) * np.sqrt(2 / side)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis)


def _basis(name: Basis, side: int) -> Tensor:
    if name == "pixels":
        return torch.empty(0, 0)
    made = hadamard_basis(side) if name == "hadamard" else dct_basis(side)
    return torch.from_numpy(made).float()


class TransformRows(Rows):
    """Φ = S (B_h ⊗ B_w) P D, applied from the right to the left."""

    signs: Tensor
    places: Tensor
    kept: Tensor
    down: Tensor
    across: Tensor

    def __init__(self, sampling: "TransformSampling") -> None:
        super().__init__()
        self.block = sampling.block
        self.register_buffer("signs", torch.from_numpy(sampling.signs).float(), persistent=False)
        self.register_buffer("places", torch.from_numpy(sampling.places), persistent=False)
        self.register_buffer("kept", torch.from_numpy(sampling.kept), persistent=False)
        for name, side in zip(("down", "across"), self.block, strict=True):
            self.register_buffer(name, _basis(sampling.basis, side), persistent=False)

    def forward(self, blocks: Tensor) -> Tensor:
        """Measure blocks (…, n) -> (…, m)."""
        mixed = (blocks * self.signs)[..., self.places]
        if self.down.numel():
            canvas = mixed.reshape(*mixed.shape[:-1], *self.block)
            mixed = (self.down @ canvas @ self.across.T).flatten(-2)
        return mixed[..., self.kept]

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Φᵀ: (…, m) -> (…, n)."""
        mixed = y.new_zeros(*y.shape[:-1], len(self.signs))
        mixed[..., self.kept] = y
        if self.down.numel():
            canvas = mixed.reshape(*mixed.shape[:-1], *self.block)
            mixed = (self.down.T @ canvas @ self.across).flatten(-2)
        blocks = torch.empty_like(mixed)
        blocks[..., self.places] = mixed
        return blocks * self.signs

    def matrix(self) -> Tensor:
        """Φ as a dense (m, n) matrix.

        Raises:
            UsageError: the matrix would be too large.
        """
        if len(self.kept) * len(self.signs) > MAX_ENTRIES:
            raise UsageError(
                f"Φ of {len(self.kept)} rows and {len(self.signs)} pixels as a matrix: too large. "
                "Use smaller blocks, or a network that needs no matrix (rcoast)."
            )
        return self.adjoint(
            torch.eye(len(self.kept), dtype=self.signs.dtype, device=self.signs.device)
        )

    @property
    def orthonormal(self) -> bool:
        """True: rows of an orthonormal transform."""
        return True


@dataclass(frozen=True, eq=False)
class TransformSampling(Sampling):
    """The parts of Φ for blocks of (bh, bw) pixels, n = bh · bw.

    Attributes:
        signs: (n,) int8, ±1, of the pixels.
        places: (n,) int64, the permutation: which pixel comes to each place.
        kept: (m,) int64, the selected coefficients, in order.
    """

    kind: str
    seed: int | None
    basis: Basis
    block: tuple[int, int]
    signs: NDArray[np.int8]
    places: NDArray[np.int64]
    kept: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return len(self.kept), len(self.signs)

    @cached_property
    def sha256(self) -> str:
        """Digest of the transform's name, block, signs, permutation and selection."""
        whole = hashlib.sha256(f"{self.basis} {self.block[0]}x{self.block[1]}".encode())
        for part in (self.signs, self.places, self.kept):
            whole.update(np.ascontiguousarray(part, dtype="<i8").tobytes())
        return whole.hexdigest()

    def rows(self) -> Rows:
        """The fast transform."""
        return TransformRows(self)

    def select(self, rows: Sequence[int]) -> "TransformSampling":
        """Φ of some of the rows: it has another digest, and no seed."""
        return replace(self, kind="given", seed=None, kept=self.kept[list(rows)])

    def scale(self) -> float:
        """1: the rows are orthonormal."""
        return 1.0

    @property
    def well_conditioned(self) -> bool:
        """True: the rows are orthonormal."""
        return True


def _orders(count: int, n: int, seed: int) -> list[NDArray[np.int64]]:
    """`count` random permutations of n elements, from the raw stream of a seed."""
    raw = np.random.PCG64(seed).random_raw(count * n).reshape(count, n)
    return [np.argsort(part, kind="stable") for part in raw]


def _check(basis: Basis, m: int, block: tuple[int, int], seed: int) -> int:
    """Return n; raise UsageError if no such Φ can be made."""
    n = block[0] * block[1]
    if basis == "hadamard" and any(side & (side - 1) for side in block):
        raise UsageError(
            f"a Hadamard transform of {block[0]}×{block[1]} pixels: the sides of its block must "
            "be powers of two. Use --block 32."
        )
    if seed < 0:
        raise UsageError(f"seed {seed}: expected a non-negative integer.")
    if not 1 <= m <= n <= MAX_PIXELS:
        raise UsageError(f"m = {m} of blocks of {block} pixels: expected 1..n, n up to 2^26.")
    return n


def scrambled(
    kind: str, basis: Basis, m: int, block: tuple[int, int], seed: int
) -> TransformSampling:
    """m random coefficients of a block with random pixel permutation and signs."""
    n = _check(basis, m, block, seed)
    places, kept, coins = _orders(3, n, seed)
    signs = np.where(coins < n // 2, -1, 1).astype(np.int8)
    return TransformSampling(kind, seed, basis, block, signs, places, kept[:m])


def _in_place(
    kind: str, basis: Basis, kept: NDArray[np.int64], block: tuple[int, int], seed: int
) -> TransformSampling:
    n = block[0] * block[1]
    return TransformSampling(kind, seed, basis, block, np.ones(n, np.int8), np.arange(n), kept)


def pixels(m: int, block: tuple[int, int], seed: int) -> TransformSampling:
    """m random pixels of a block: inpainting."""
    n = _check("pixels", m, block, seed)
    return _in_place("pixels", "pixels", _orders(1, n, seed)[0][:m], block, seed)


def cake_cutting(m: int, block: tuple[int, int], seed: int) -> TransformSampling:
    """The m Hadamard patterns with the fewest connected regions; the seed is not used.

    A pattern is the outer product of two rows of ±1, so its regions are rectangles: their number
    is the product of the rows' numbers of runs. Ties keep Sylvester's order.
    """
    _check("hadamard", m, block, seed)
    runs = [1 + (np.diff(np.sign(hadamard_basis(side)), axis=1) != 0).sum(axis=1) for side in block]
    order = np.argsort(np.outer(runs[0], runs[1]).ravel(), kind="stable")
    return _in_place("hadamard-cake", "hadamard", order[:m], block, seed)
