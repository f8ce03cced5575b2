"""Block sampling: every bh×bw block of the image is measured with the same Φ, y = Φ x.

Blocks are row-major, inside and across the image; the image is zero-padded at the bottom and
right. Padding and cropping are part of the operator, so its adjoint is exact on H×W.
"""

import logging
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import pad

from csrecon.errors import InputError, UsageError
from csrecon.sensing.operators.base import (
    Domain,
    LinearOperator,
    OperatorSpec,
    SamplingOptions,
    check_extent,
)
from csrecon.sensing.operators.kinds import KINDS, default_block, make
from csrecon.sensing.operators.matrices import MATRICES, Phi, count_measurements
from csrecon.sensing.operators.orthonormal import Orthonormalized, orthonormalized
from csrecon.sensing.operators.sampling import PhiFacts, Rows, Sampling
from csrecon.sensing.operators.transforms import TransformSampling

log = logging.getLogger(__name__)

_BAND = 2**20  # pixels per band of the gradient
_DRAWN, _DRAWN_PER_VALUE = 2**24, 2**16  # entries of a dense Φ from a seed: any, or per value
_SMALLEST = float(np.finfo(np.float32).tiny)  # below it values lose digits


def square_side(n: int) -> int:
    """Side of a square block of n pixels; raise InputError if n is not a square number."""
    side = math.isqrt(n)
    if side * side != n:
        raise InputError(
            f"Φ has {n} columns, not a square number: give the block's height and width."
        )
    return side


def grid_of(image_shape: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Blocks per column and row of the padded image, (gh, gw)."""
    (height, width), (bh, bw) = image_shape, block
    return -(-height // bh), -(-width // bw)


def check_drawn(kind: str, m: int, block: tuple[int, int], image_shape: tuple[int, int]) -> None:
    """Refuse a Φ or an image too large for the m values of every block, before Φ is generated.

    Raises:
        InputError: an image far too large for its values, or a dense Φ.
    """
    gh, gw = grid_of(image_shape, block)
    n, values = block[0] * block[1], gh * gw * m
    check_extent(gh * gw * n, values)
    if kind in MATRICES and m * n > max(_DRAWN, _DRAWN_PER_VALUE * values):
        raise InputError(
            f"a dense Φ of shape ({m}, {n}) for {values} values: too large. Use smaller blocks, or "
            "a structured Φ (hadamard, dct, pixels)."
        )


class BlockOperator(LinearOperator):
    """A applies one Φ to every block; y is (B, gh, gw, m) for a grid of gh×gw blocks.

    Args:
        phi: the sampling Φ of a block, (m, n).
        image_shape: (H, W) in pixels, any size.
        block: (bh, bw) in pixels with bh · bw = n; None for a square block.
        rows: Φ as a module, to share it between operators; None makes a new one.
        present: mask (gh, gw) of the measured blocks; None for all. The others are zero in y.

    Raises:
        InputError: an image shape or block that does not fit Φ.

    Source: R, eq. 1.
    """

    present: Tensor | None

    def __init__(
        self,
        phi: Sampling,
        image_shape: tuple[int, int],
        block: tuple[int, int] | None = None,
        rows: Rows | None = None,
        present: Tensor | None = None,
    ) -> None:
        super().__init__((1, *image_shape))
        self.m, self.n = phi.shape
        fixed = phi.block if isinstance(phi, TransformSampling) else None
        self.block = block or fixed or (square_side(self.n),) * 2
        if fixed is not None and self.block != fixed:
            raise InputError(
                f"blocks of {self.block} pixels: this Φ is for blocks of {fixed} pixels."
            )
        if self.block[0] * self.block[1] != self.n or min(self.block) < 1:
            raise InputError(f"blocks of {self.block} pixels do not fit Φ with {self.n} columns.")
        if min(image_shape) < 1:
            raise InputError(f"image shape {image_shape}: expected a positive height and width.")
        self.phi = phi
        self.rows = phi.rows() if rows is None else rows
        if present is not None and tuple(present.shape) != self.grid:
            raise InputError(
                f"mask of shape {tuple(present.shape)} for a grid of {self.grid} blocks."
            )
        self.register_buffer("present", present, persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks per column and row of the padded image, (gh, gw)."""
        return grid_of(self.image_shape, self.block)

    @property
    def ratio(self) -> float:
        """The true m/n."""
        return self.m / self.n

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(gh, gw, m)."""
        return *self.grid, self.m

    @property
    def tight(self) -> bool:
        """Whether the rows of Φ are orthonormal."""
        return self.rows.orthonormal

    def forward(self, x: Tensor) -> Tensor:
        """Measure (B, 1, H, W) -> (B, gh, gw, m)."""
        with torch.autocast(x.device.type, enabled=False):
            return self.masked(self.rows(self.blocks(x)))

    def masked(self, y: Tensor) -> Tensor:
        """y masked: zero for blocks that were not measured."""
        return y if self.present is None else y * self.present[..., None]

    def adjoint(self, y: Tensor) -> Tensor:
        """Back-project (B, gh, gw, m) -> (B, 1, H, W)."""
        with torch.autocast(y.device.type, enabled=False):
            return self.assemble(self.rows.adjoint(self.masked(y)))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y), (B, 1, H, W), computed in bands to save memory."""
        (gh, _), (bh, _) = self.grid, self.block
        height, width = self.image_shape
        rows = max(1, _BAND // (len(x) * width * bh))
        if rows >= gh:
            return super().gradient(x, y)
        out = torch.empty_like(x)
        for first in range(0, gh, rows):
            top, bottom = first * bh, min(height, (first + rows) * bh)
            there = None if self.present is None else self.present[first : first + rows]
            band = BlockOperator(self.phi, (bottom - top, width), self.block, self.rows, there)
            out[:, :, top:bottom] = band.gradient(x[:, :, top:bottom], y[:, first : first + rows])
        return out

    def observed(self) -> Tensor | None:
        """Mask of the pixels in measured blocks, (H, W) bool on the CPU; None if all are."""
        if self.present is None:
            return None
        (height, width), (bh, bw) = self.image_shape, self.block
        whole = self.present.bool().repeat_interleave(bh, 0).repeat_interleave(bw, 1)
        return whole[:height, :width].cpu()

    def blocks(self, x: Tensor) -> Tensor:
        """Pad (B, 1, H, W) with zeros and cut it into blocks, (B, gh, gw, n)."""
        (gh, gw), (bh, bw) = self.grid, self.block
        height, width = self.image_shape
        padded = pad(x, (0, gw * bw - width, 0, gh * bh - height))
        return padded.view(-1, gh, bh, gw, bw).transpose(2, 3).reshape(-1, gh, gw, self.n)

    def assemble(self, blocks: Tensor) -> Tensor:
        """Assemble blocks (B, gh, gw, n) and crop: (B, 1, H, W)."""
        (gh, gw), (bh, bw) = self.grid, self.block
        height, width = self.image_shape
        canvas = blocks.reshape(-1, gh, gw, bh, bw).transpose(2, 3)
        return canvas.reshape(-1, 1, gh * bh, gw * bw)[:, :, :height, :width].contiguous()

    def split(self, y: Tensor) -> tuple[Self, Tensor]:
        """One image of bh×bw per block: y becomes (B·gh·gw, 1, 1, m)."""
        local = type(self)(self.phi, self.block, self.block, self.rows)
        return local, y.reshape(-1, 1, 1, self.m)

    def join(self, x: Tensor) -> Tensor:
        """Block images (B·gh·gw, 1, bh, bw) -> (B, 1, H, W)."""
        return self.assemble(x.reshape(-1, *self.grid, self.n))

    def select(self, rows: Sequence[int]) -> "BlockOperator":
        """The operator of some rows of Φ: its data are those of `y[..., rows]`."""
        phi = self.phi.select(rows)
        return BlockOperator(phi, self.image_shape, self.block, None, self.present)

    def absolute(self) -> "BlockOperator":
        """The operator of |Φ| on all blocks."""
        return BlockOperator(self.phi, self.image_shape, self.block, self.rows.absolute())

    @property
    def _generated(self) -> bool:
        """Whether Φ was generated: then it has no errors, and noise on y was recorded with y."""
        return self.phi.seed is not None

    @property
    def batch_key(self) -> Hashable | None:
        """Φ, block and image shape.

        None if blocks are missing, or if y has an influence on which components of Φ are kept.
        """
        if self.present is not None or not (self._generated or self.phi.well_conditioned):
            return None
        return self.phi.sha256, self.block, self.image_shape

    def spec(self) -> "BlockSpec":
        """m, n, block, the identity of Φ, and the missing blocks."""
        missing: tuple[tuple[int, int], ...] = ()
        if self.present is not None:
            rows, columns = torch.nonzero(self.present == 0, as_tuple=True)
            missing = tuple(zip(rows.tolist(), columns.tolist(), strict=True))
        return BlockSpec(
            m=self.m, n=self.n, block=self.block, phi=self.phi.facts(), missing=missing
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Φ, if it is a dense matrix."""
        return {"phi": self.phi.matrix} if isinstance(self.phi, Phi) else {}

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Orthonormalize Φ = U S Vᵀ: Φ' = Vᵀ, y' = S⁻¹ Uᵀ y, and noise · rms(1/S).

        Singular values below 1e-5 of the largest are discarded, and weak components of which y
        tells only noise (`orthonormal.py`). Returns `self` and `y` unchanged if the rows are
        orthonormal already.

        Raises:
            InputError: Φ is zero, or its scale is too small for float32.
        """
        if self.tight:
            return self, y, noise
        new = self.orthonormalized(y, noise)
        converted = (y.cpu().double() @ torch.from_numpy(new.to_new)).float().to(y.device)
        rows = Phi(np.ascontiguousarray(new.rows, dtype=np.float32))
        operator = BlockOperator(rows, self.image_shape, self.block, None, self.present)
        return operator.to(y.device), converted, new.noise

    def orthonormalized(self, y: Tensor, noise: float) -> Orthonormalized:
        """The equivalent Φ with orthonormal rows, for values y (B, gh, gw, m) with noise σ.

        Raises:
            InputError: Φ is zero, or its scale is too small for float32.
        """
        dense = self.rows.matrix().cpu().numpy().astype(np.float64)
        if not dense.any():
            raise InputError("Φ is zero everywhere: there is nothing to reconstruct from.")
        size = float(np.abs(dense).max())
        if size < _SMALLEST:
            raise InputError(f"Φ is scaled by {size:.1e}, too small for float32: rescale it and y.")
        values = y.cpu().double()
        observed = values[:, self.present.cpu() > 0] if self.present is not None else values
        if self._generated and not noise:
            observed = values[:0]  # exact: no errors to estimate
        return orthonormalized(dense, self.block, observed.reshape(-1, self.m).numpy(), noise)


class BlockSpec(OperatorSpec):
    """Block sampling with Φ; the `missing` blocks (row, column) were not measured."""

    kind: Literal["block"] = "block"
    m: int = Field(ge=1)
    n: int = Field(ge=1)
    block: tuple[int, int]
    phi: PhiFacts
    missing: tuple[tuple[int, int], ...] = ()

    def y_shape(self, domain: Domain) -> tuple[int, ...]:
        """(gh, gw, m)."""
        if not self.m <= self.n or min(self.block) < 1 or self.block[0] * self.block[1] != self.n:
            raise InputError(
                f"implausible Φ of shape ({self.m}, {self.n}) for blocks of {self.block} pixels."
            )
        return *grid_of((domain[1], domain[2]), self.block), self.m

    def pixels(self, domain: Domain) -> int:
        """Pixels of the padded image."""
        gh, gw, _ = self.y_shape(domain)
        return gh * gw * self.n

    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> BlockOperator:
        """The operator with Φ as stored, given, or generated again from its seed.

        Raises:
            InputError: another Φ than the recorded one, missing blocks outside the image or listed
                twice, or no other blocks.
            UsageError: Φ is neither stored nor given.
        """
        if domain[0] != 1:
            raise InputError("block sampling needs real images of one channel.")
        shape = domain[1], domain[2]
        gh, gw, _ = self.y_shape(domain)
        present = self._present((gh, gw))
        return BlockOperator(self._phi(arrays, shape), shape, self.block, None, present)

    def _present(self, grid: tuple[int, int]) -> Tensor | None:
        """Mask (gh, gw) of the measured blocks; None for all."""
        if not self.missing:
            return None
        if len(set(self.missing)) < len(self.missing):
            raise InputError("a missing block is listed twice.")
        outside = next(
            (b for b in self.missing if not (0 <= b[0] < grid[0] and 0 <= b[1] < grid[1])), None
        )
        if outside:
            raise InputError(f"missing block {outside[0]},{outside[1]} lies outside the image.")
        if len(self.missing) == grid[0] * grid[1]:
            raise InputError("all blocks are missing: there is nothing to reconstruct from.")
        present = torch.ones(grid)
        present[tuple(torch.tensor(self.missing).T)] = 0
        return present

    def _phi(self, arrays: Mapping[str, NDArray[Any]], shape: tuple[int, int]) -> Sampling:
        recorded = self.phi
        phi: Sampling
        if "phi" in arrays:
            phi = Phi.given(arrays["phi"])
        elif recorded.seed is None:
            raise UsageError(
                f"was measured with a given Φ (digest {recorded.sha256[:12]}…), which is not "
                "stored here. Pass it with --phi FILE (phi=)."
            )
        else:
            phi = self._made_again(recorded.kind, recorded.seed, shape)
        if phi.shape != (self.m, self.n):
            raise InputError(
                f"wrong Φ: it has shape {phi.shape}, and y was measured with shape "
                f"({self.m}, {self.n})."
            )
        if not phi.is_same(recorded.sha256, recorded.fingerprint):
            raise InputError(
                f"wrong Φ: its digest is {phi.sha256[:12]}…, and y was measured with "
                f"{recorded.sha256[:12]}…. Pass the original with --phi FILE; a Φ fitted since "
                "then with --replace-phi too."
            )
        if phi.sha256 != recorded.sha256:
            log.info("Φ equals the recorded one up to rounding.")
        return phi

    def _made_again(self, kind: str, seed: int, shape: tuple[int, int]) -> Sampling:
        if kind not in KINDS:
            raise InputError(f"unknown kind of Φ {kind!r}.")
        check_drawn(kind, self.m, self.block, shape)
        try:
            return make(kind, self.m, self.block, seed)
        except UsageError as error:
            raise InputError(str(error)) from error

    @classmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> BlockOperator:
        """A block operator with a given Φ, or with Φ generated from its kind and seed."""
        options.refuse("mask", "fourier")
        if domain[0] != 1:
            raise InputError(
                "a complex image cannot be measured in blocks: use --kind fourier, or measure its "
                "magnitude."
            )
        shape = domain[1], domain[2]
        if isinstance(options.phi, Phi):
            if options.ratio is not None or options.m is not None:
                raise UsageError("a given Φ has its own ratio: leave out ratio and m.")
            if options.kind != "gaussian":
                raise UsageError(
                    f"a given Φ has no kind: leave out either it or kind {options.kind!r}."
                )
            made = BlockOperator(options.phi, shape, options.block)
            check_extent(math.prod(made.grid) * made.n, math.prod(made.y_shape))
            return made
        block = options.block or default_block(options.kind)
        m = count_measurements(block[0] * block[1], options.ratio, options.m)
        if options.kind in KINDS:
            check_drawn(options.kind, m, block, shape)
        return BlockOperator(make(options.kind, m, block, options.seed), shape, block)
