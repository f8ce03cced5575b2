"""Sampling of a block by Φ: the same linear map from n pixels to m values for every block.

A Sampling identifies Φ by plain values that a file can store. Its Rows are Φ as a PyTorch module,
which applies a matrix product or a fast transform.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

MAX_ENTRIES = 2**28
"""The largest m · n of a dense Φ: 1 GiB of float32."""

_ORTHONORMAL_TOLERANCE = 1e-4
_PROBES = 4
_FINGERPRINT_TOLERANCE = 1e-7  # relative to Φ's scale; a last-bit change moves it by about 1e-8


class Rows(nn.Module, ABC):
    """Φ applied to blocks, and its adjoint."""

    @abstractmethod
    def forward(self, blocks: Tensor) -> Tensor:
        """Measure blocks (…, n) -> (…, m)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Φᵀ: (…, m) -> (…, n)."""

    @abstractmethod
    def matrix(self) -> Tensor:
        """Φ as a dense (m, n) matrix."""

    def absolute(self) -> "Rows":
        """|Φ|, entry by entry: the light that each measurement collects."""
        return MatrixRows(self.matrix().abs())

    @property
    @abstractmethod
    def orthonormal(self) -> bool:
        """Whether Φ Φᵀ = I within 1e-4."""


class MatrixRows(Rows):
    """Φ as a matrix product."""

    dense: Tensor

    def __init__(self, dense: Tensor) -> None:
        super().__init__()
        self.register_buffer("dense", dense, persistent=False)

    def forward(self, blocks: Tensor) -> Tensor:
        """Measure blocks (…, n) -> (…, m)."""
        return blocks @ self.dense.T

    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Φᵀ: (…, m) -> (…, n)."""
        return y @ self.dense

    def matrix(self) -> Tensor:
        """Φ itself."""
        return self.dense

    @cached_property
    def orthonormal(self) -> bool:
        """Whether Φ Φᵀ = I within 1e-4."""
        gram = self.dense @ self.dense.T
        identity = torch.eye(len(gram), device=gram.device)
        return float((gram - identity).abs().max()) < _ORTHONORMAL_TOLERANCE


class PhiFacts(BaseModel):
    """The serialized identity of Φ."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    seed: int | None = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    fingerprint: tuple[float, ...] = Field(min_length=16, max_length=16)


class Sampling(ABC):
    """The identity of Φ (m, n).

    A seed alone does not identify Φ across library versions, so Φ has a SHA-256. If two digests
    differ, a fingerprint L Φ R (fixed probe vectors on both sides) distinguishes rounding of the
    last bit from a different matrix.

    Attributes:
        kind: kind of Φ: a name of KINDS, with its `seed`, or "given".
        sha256: digest of the values that define Φ.
    """

    kind: str
    seed: int | None

    def __deepcopy__(self, memo: object) -> Self:
        """Itself: Φ does not change, and what is computed from it is kept by its identity."""
        return self

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(m, n): measurements and pixels of a block."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Digest of the values that define Φ."""

    @abstractmethod
    def rows(self) -> Rows:
        """Φ as a PyTorch module, in float32."""

    @abstractmethod
    def select(self, rows: Sequence[int]) -> "Sampling":
        """Φ of some of the rows, in their order."""

    @abstractmethod
    def scale(self) -> float:
        """Root mean square of the row norms."""

    @property
    @abstractmethod
    def well_conditioned(self) -> bool:
        """Whether no component of Φ is weak, so that all are kept when it is orthonormalized."""

    @property
    def fingerprint(self) -> tuple[float, ...]:
        """The 16 numbers L Φ R, row by row."""
        m, n = self.shape
        seen = self.rows().double()(torch.from_numpy(_probes(n).T.copy())).numpy()
        return tuple(float(v) for v in (_probes(m).T @ seen.T).ravel())

    def facts(self) -> PhiFacts:
        """Kind, seed, digest and fingerprint."""
        return PhiFacts(
            kind=self.kind, seed=self.seed, sha256=self.sha256, fingerprint=self.fingerprint
        )

    def is_same(self, digest: str, fingerprint: tuple[float, ...]) -> bool:
        """Whether this is the Φ with that digest, or equal to it up to rounding."""
        if self.sha256 == digest:
            return True
        gap = np.abs(np.subtract(self.fingerprint, fingerprint)).max()
        return bool(gap <= _FINGERPRINT_TOLERANCE * self.scale())


def _probes(size: int) -> NDArray[np.float64]:
    index = np.arange(1, size + 1)[:, None] * np.sqrt([2.0, 3.0, 5.0, 7.0])[None, :_PROBES]
    return np.asarray(np.cos(index * np.pi) * np.sqrt(2 / size))
