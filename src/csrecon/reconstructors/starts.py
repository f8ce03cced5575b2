"""Initial estimates: x⁰ from a measurement, and the gradient of the data-fidelity term at x⁰."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from csrecon.errors import InputError, UsageError
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator

_Side = Annotated[int, Field(ge=1, le=2**14)]


class AdjointStart(nn.Module):
    """x⁰ = Aᵀ y (R, eq. 3).

    For a tight operator Aᵀy solves Ax = y exactly, so the gradient there is zero and the first
    iteration is the prox of Aᵀy. For block sampling this holds before x⁰ is cropped to the image.
    The gradient at the cropped x⁰ is not zero in the border blocks; it is set to zero, as in the
    training of the authors' networks.
    """

    def forward(self, m: Measurement) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), and the gradient of the data-fidelity term: zero if A is tight."""
        x = m.operator.adjoint(m.y)
        return x, torch.zeros_like(x) if m.operator.tight else m.gradient(x)


class LinearStart(nn.Module):
    """x⁰ = Q y per block, with Q (n, m) fitted once to training blocks for one Φ.

    Args:
        m, n: measurements and pixels of a block.
        phi_sha256: digest of the Φ that Q was fitted to.

    Source: I, section 3.2: Q = X Yᵀ (Y Yᵀ)⁻¹.
    """

    q: Tensor

    def __init__(self, m: _Side, n: _Side, phi_sha256: str) -> None:
        super().__init__()
        self.phi_sha256 = phi_sha256
        self.register_buffer("q", torch.zeros(n, m))

    def forward(self, m: Measurement) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W), and the gradient of the data-fidelity term there.

        Raises:
            InputError: the measurement was made with another Φ.
        """
        operator = m.operator
        if not isinstance(operator, BlockOperator) or operator.phi.sha256 != self.phi_sha256:
            raise InputError(
                f"this network works with its own Φ of shape {tuple(self.q.T.shape)} and digest "
                f"{self.phi_sha256[:12]}… only; the measurement was made with another. Sample with "
                "that Φ, or use a network for any Φ."
            )
        x = operator.assemble(m.y @ self.q.T)
        return x, m.gradient(x)


class MarkovStart(nn.Module):
    """x⁰ = μ + CΦᵀ(ΦCΦᵀ + εI)⁻¹(y - Φμ): the best linear estimate, for any Φ.

    The image model is first-order Markov: mean 1/2, and correlation 0.95 per pixel of distance
    along rows and columns, so that C = R ⊗ R. Like Q of ISTA-Net+ it uses prior knowledge of
    images, but it needs no training blocks and works for any Φ.
    """

    mean = 0.5
    correlation = 0.95
    jitter = 1e-3

    def _along(self, pixels: int, like: Tensor) -> Tensor:
        place = torch.arange(pixels, dtype=like.dtype, device=like.device)
        return self.correlation ** (place[:, None] - place).abs()

    def forward(self, m: Measurement) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W), and the gradient of the data-fidelity term there.

        Raises:
            UsageError: the operator is not block sampling.
        """
        operator = m.operator
        if not isinstance(operator, BlockOperator):
            raise UsageError("this network starts from block measurements y = Φx only.")
        phi = operator.rows.matrix()
        rows, columns = (self._along(side, phi) for side in operator.block)
        spread = (rows @ phi.view(-1, *operator.block) @ columns).flatten(1)  # ΦC
        shared = spread @ phi.T + self.jitter * torch.eye(len(phi), device=phi.device)
        weights = torch.cholesky_solve(spread, torch.linalg.cholesky(shared))
        known = operator.masked(m.y - self.mean * phi.sum(dim=1))
        x = operator.assemble(self.mean + known @ weights)
        return x, m.gradient(x)


STARTS: dict[str, type[nn.Module]] = {
    "adjoint": AdjointStart,
    "matrix": LinearStart,
    "markov": MarkovStart,
}
"""Name -> start, with its own options."""
