"""Block sampling: every bh×bw block of the image is measured with the same Φ, y = Φ x.

Blocks are row-major, inside and across the image; the image is zero-padded at the bottom and
right. Padding and cropping are part of the operator, so its adjoint is exact on H×W.
"""

import logging
import math
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from csrecon.errors import InputError
from csrecon.operators.base import LinearOperator
from csrecon.operators.matrices import Phi
from csrecon.operators.sampling import Rows, Sampling
from csrecon.operators.transforms import TransformSampling

log = logging.getLogger(__name__)

_BAND = 2**20  # pixels whose gradient is computed at once
_RANK_TOLERANCE = 1e-5  # singular values below this share of the largest carry only rounding


def square_side(n: int) -> int:
    """Side of the square block of n pixels; InputError when n is no square."""
    side = math.isqrt(n)
    if side * side != n:
        raise InputError(
            f"Φ has {n} columns, which is no square: say the block's height and width."
        )
    return side


class BlockOperator(LinearOperator):
    """A = one Φ on every block; y is (B, gh, gw, m) for a grid of gh×gw blocks.

    Args:
        phi: what samples a block, (m, n).
        image_shape: (H, W) in pixels, any size.
        block: (bh, bw) in pixels with bh · bw = n; None for a square block.
        rows: Φ as it is applied, shared instead of made anew.
        present: (gh, gw), which blocks were measured; None for all. The others are zero in y.

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
        super().__init__(image_shape)
        self.m, self.n = phi.shape
        fixed = phi.block if isinstance(phi, TransformSampling) else None
        self.block = block or fixed or (square_side(self.n),) * 2
        if fixed is not None and self.block != fixed:
            raise InputError(f"blocks of {self.block} pixels: this Φ is one of {fixed} pixels.")
        if self.block[0] * self.block[1] != self.n or min(self.block) < 1:
            raise InputError(f"blocks of {self.block} pixels do not fit Φ with {self.n} columns.")
        if min(image_shape) < 1:
            raise InputError(f"image shape {image_shape}: expected a positive height and width.")
        self.phi = phi
        self.rows = phi.rows() if rows is None else rows
        if present is not None and tuple(present.shape) != self.grid:
            raise InputError(f"blocks {tuple(present.shape)} of a grid of {self.grid}.")
        self.register_buffer("present", present, persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Blocks per column and row of the padded image, (gh, gw)."""
        (height, width), (bh, bw) = self.image_shape, self.block
        return -(-height // bh), -(-width // bw)

    @property
    def ratio(self) -> float:
        """The true m/n."""
        return self.m / self.n

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(gh, gw, m)."""
        return *self.grid, self.m

    def forward(self, x: Tensor) -> Tensor:
        """Measure (B, 1, H, W) -> (B, gh, gw, m)."""
        (gh, gw), (bh, bw) = self.grid, self.block
        height, width = self.image_shape
        padded = pad(x, (0, gw * bw - width, 0, gh * bh - height))
        blocks = padded.view(-1, gh, bh, gw, bw).transpose(2, 3).reshape(-1, gh, gw, self.n)
        with torch.autocast(x.device.type, enabled=False):
            return self.held(self.rows(blocks))

    def held(self, y: Tensor) -> Tensor:
        """y with zeros for the blocks that were not measured."""
        return y if self.present is None else y * self.present[..., None]

    def adjoint(self, y: Tensor) -> Tensor:
        """Back-project (B, gh, gw, m) -> (B, 1, H, W)."""
        with torch.autocast(y.device.type, enabled=False):
            return self.assemble(self.rows.adjoint(self.held(y)))

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y), (B, 1, H, W); band by band, so that little memory is needed."""
        (gh, _), (bh, _) = self.grid, self.block
        height, width = self.image_shape
        rows = max(1, _BAND // (len(x) * width * bh))
        if rows >= gh:
            return super().gradient(x, y)
        out = torch.empty_like(x)
        for first in range(0, gh, rows):
            top, bottom = first * bh, min(height, (first + rows) * bh)
            held = None if self.present is None else self.present[first : first + rows]
            band = BlockOperator(self.phi, (bottom - top, width), self.block, self.rows, held)
            out[:, :, top:bottom] = band.gradient(x[:, :, top:bottom], y[:, first : first + rows])
        return out

    def seen(self) -> Tensor | None:
        """Which pixels lie in a measured block, (H, W) bool on the CPU; None where all do."""
        if self.present is None:
            return None
        (height, width), (bh, bw) = self.image_shape, self.block
        whole = self.present.bool().repeat_interleave(bh, 0).repeat_interleave(bw, 1)
        return whole[:height, :width].cpu()

    def assemble(self, blocks: Tensor) -> Tensor:
        """Put blocks (B, gh, gw, n) in their places and crop: (B, 1, H, W)."""
        (gh, gw), (bh, bw) = self.grid, self.block
        height, width = self.image_shape
        canvas = blocks.reshape(-1, gh, gw, bh, bw).transpose(2, 3)
        return canvas.reshape(-1, 1, gh * bh, gw * bw)[:, :, :height, :width].contiguous()

    def per_block(self, y: Tensor) -> tuple[Self, Tensor]:
        """One image of bh×bw per block: y becomes (B·gh·gw, 1, 1, m)."""
        local = type(self)(self.phi, self.block, self.block, self.rows)
        return local, y.reshape(-1, 1, 1, self.m)

    def join_blocks(self, blocks: Tensor) -> Tensor:
        """Block images (B·gh·gw, 1, bh, bw) -> (B, 1, H, W)."""
        return self.assemble(blocks.reshape(-1, *self.grid, self.n))

    def orthonormalized(self, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
        """From Φ = U S Vᵀ: the operator of Φ' = Vᵀ, y' = S⁻¹ Uᵀ y, and the growth rms(1/S).

        Directions whose singular value is below 1e-5 of the largest are left out. Returns
        `self` and `y` unchanged when the rows are orthonormal already.

        Raises:
            InputError: Φ is zero.
        """
        if self.rows.is_orthonormal():
            return self, y, 1.0
        dense = self.rows.matrix().cpu().numpy().astype(np.float64)
        u, s, vt = np.linalg.svd(dense, full_matrices=False)
        if s[0] == 0:
            raise InputError("Φ is zero everywhere: there is nothing to reconstruct from.")
        rank = int((s > _RANK_TOLERANCE * s[0]).sum())
        with np.errstate(over="ignore"):
            scaled = (u[:, :rank] / s[:rank]).astype(np.float32)
        if not np.isfinite(scaled).all():
            raise InputError(f"Φ is scaled by {s[0]:.1e}, too small for float32: rescale it and y.")
        if rank < self.m:
            log.info(
                "Φ has rank %d of %d rows (singular values from %.1e of the largest on count).",
                rank,
                self.m,
                _RANK_TOLERANCE,
            )
        to_new = torch.from_numpy(scaled).to(y.device)
        rows = Phi(np.ascontiguousarray(vt[:rank], dtype=np.float32))
        operator = BlockOperator(rows, self.image_shape, self.block, None, self.present)
        return operator.to(y.device), y @ to_new, float(np.sqrt(np.mean(s[:rank] ** -2.0)))
