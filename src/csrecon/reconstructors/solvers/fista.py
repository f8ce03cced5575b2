"""FISTA: min_x ½‖Ax - y‖² + λ‖Wx‖₁ for a block DCT W, by accelerated proximal gradient steps.

W cuts the image into blocks of size × size pixels (smaller at the borders) and takes the
orthonormal DCT of each, so that the proximal operator is soft thresholding in closed form. The grid
of blocks is shifted from step to step, which removes block artefacts (cycle spinning). λ falls
geometrically to `last`, or to no less than 1.5 σ if the noise σ is known.

Source: Beck and Teboulle, SIAM Journal on Imaging Sciences 2009; Coifman and Donoho 1995 (cycle
spinning).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers.frame import Iterate, Solver, Tolerance
from csrecon.reconstructors.solvers.proximal import Strength, falling, proximal_gradient
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators.transforms import dct_basis

_PER_NOISE = 1.5  # λ per σ; chosen on T91 with the identity at σ 0.1


def block_dct(x: Tensor, size: int, shift: int, inverse: bool = False) -> Tensor:
    """The DCT of every block of (B, C, H, W), in place of its pixels; orthonormal.

    The grid of blocks begins `shift` pixels (0..size-1) above and left of the image's corner.
    """
    for axis in (-2, -1):
        along = x.movedim(axis, -1)
        length = along.shape[-1]
        edges = [0, *range(size - shift, length, size), length]
        ends = [end - begin for begin, end in pairwise(edges)]
        first, rest = ends[0], ends[-1] if len(ends) > 1 else 0
        whole = length - first - rest
        parts = []
        for part in torch.split(along, [first, whole, rest], dim=-1):
            if part.shape[-1]:
                side = size if part.shape[-1] == whole and whole else part.shape[-1]
                basis = torch.from_numpy(dct_basis(side)).to(x)
                blocks = part.reshape(*part.shape[:-1], -1, side)
                # No convolution, so in the precision of x: half of it would stay in the iterates.
                with torch.autocast(x.device.type, enabled=False):
                    parts.append((blocks @ (basis if inverse else basis.T)).flatten(-2))
        x = torch.cat(parts, dim=-1).movedim(-1, axis)
    return x


def soft_threshold(code: Tensor, strength: float) -> Tensor:
    """Soft thresholding of (B, C, H, W); the channels of a complex coefficient shrink together."""
    size = torch.linalg.vector_norm(code, dim=1, keepdim=True)
    shrunk: Tensor = code * (1 - strength / size.clamp(min=strength))
    return shrunk


def magnitudes(code: Tensor) -> float:
    """The ℓ1 norm of (B, C, H, W), where the channels of a complex coefficient count as one."""
    return float(torch.linalg.vector_norm(code, dim=1).double().sum())


@dataclass(frozen=True)
class Fista(Solver):
    """The solver: `iterations` steps with λ from `first` to `last`, blocks of `size` pixels.

    The defaults were chosen on images of T91, noiseless, at ratios 0.1 and 0.4.
    """

    iterations: Count = 200
    size: Annotated[int, Field(ge=2, le=64)] = 16
    first: Strength = 0.1
    last: Strength = 0.0003
    tolerance: Tolerance = 0.0

    def most(self, m: Measurement) -> int:
        """The iterations asked for."""
        return self.iterations

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """Accelerated proximal gradient steps."""
        lowest = max(self.last, _PER_NOISE * m.noise)
        moved = 0

        def prox(v: Tensor, strength: float) -> tuple[Tensor, float]:
            nonlocal moved
            moved = (moved + 3) % self.size  # visits every shift where 3 does not divide the size
            code = soft_threshold(block_dct(v, self.size, moved), strength)
            return block_dct(code, self.size, moved, inverse=True), magnitudes(code)

        strengths = falling(max(self.first, lowest), lowest, self.iterations)
        yield from proximal_gradient(m, prox, strengths, start=start)
