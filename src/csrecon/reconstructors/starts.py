"""Initial estimates: x⁰ from a measurement, and the gradient of the data-fidelity term at x⁰."""

import math
from collections.abc import Callable, Hashable
from typing import Annotated
from weakref import WeakKeyDictionary

import torch
from pydantic import Field
from torch import Tensor, nn

from csrecon.errors import InputError
from csrecon.reconstructors.schedule import Count
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.sensing.operators.sampling import Sampling

_ITERATIONS, _RESIDUAL = 30, 1e-3  # of conjugate gradients: most, and when to stop earlier
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
    """x⁰ = μ + C Aᵀ(A C Aᵀ + εI)⁻¹(y - Aμ): the best linear estimate, for any operator.

    The image model is first-order Markov: mean 1/2 (0 for complex images), and correlation 0.95 per
    pixel of distance along rows and columns, so that C = R ⊗ R. Like Q of ISTA-Net+ it uses prior
    knowledge of images, but it needs no training blocks and works for any operator.

    For blocks the model is that of single blocks, and the estimate is one matrix for all of them,
    computed once per Φ. For other operators, and blocks of very many measurements, conjugate
    gradients solve the system for whole images.

    Args:
        iterations: the most of conjugate gradients. With several coils few of them regularize the
            estimate, which noise would spoil.
    """

    mean = 0.5
    correlation = 0.95
    jitter = 1e-3

    def __init__(self, iterations: Count = _ITERATIONS) -> None:
        super().__init__()
        self.iterations = iterations

    def forward(self, m: Measurement) -> tuple[Tensor, Tensor]:
        """Images (B, C, H, W), and the gradient of the data-fidelity term there."""
        operator = m.operator
        if isinstance(operator, BlockOperator) and operator.m <= LARGEST_SYSTEM:
            known = operator.masked(m.y - self.mean * operator.rows.matrix().sum(dim=1))
            x = operator.assemble(self.mean + known @ self.weights(operator))
        else:
            x = self._by_iterations(m)
        return x, m.gradient(x)

    def _along(self, pixels: int, like: Tensor) -> Tensor:
        place = torch.arange(pixels, dtype=like.dtype, device=like.device)
        return self.correlation ** (place[:, None] - place).abs()

    def weights(self, operator: BlockOperator) -> Tensor:
        """(ΦCΦᵀ + εI)⁻¹ΦC of a block, (m, n); kept as long as Φ in evaluation mode."""
        if self.training:
            return self.solved(operator)
        like = operator.rows.matrix()
        key = operator.block, like.device, like.dtype
        kept = _kept.setdefault(operator.phi, {})
        if key not in kept:
            kept[key] = self.solved(operator)
        return kept[key]

    def solved(self, operator: BlockOperator) -> Tensor:
        """(ΦCΦᵀ + εI)⁻¹ΦC of a block, (m, n)."""
        phi = operator.rows.matrix()
        rows, columns = (self._along(side, phi) for side in operator.block)
        spread = (rows @ phi.view(-1, *operator.block) @ columns).flatten(1)  # ΦC
        shared = spread @ phi.T + self.jitter * torch.eye(len(phi)).to(phi)
        return torch.cholesky_solve(spread, torch.linalg.cholesky(shared))

    def _by_iterations(self, m: Measurement) -> Tensor:
        """The same estimate from (AᵀA + εC⁻¹)(x - μ) = Aᵀ(y - Aμ), in image space.

        C⁻¹ is a stencil of 3×3 pixels. Its eigenvectors are nearly those of the cosine transform
        (Jain, 1979); with these and with m/n for AᵀA it is preconditioned.
        """
        operator, mean = m.operator, 0.0 if m.operator.domain[0] == 2 else self.mean
        flat = torch.full((1, *operator.domain), mean, device=m.y.device, dtype=m.y.dtype)
        down, across = (_powers(self.correlation, side, m.y) for side in operator.image_shape)
        known = operator.ratio + self.jitter / (down[:, None] * across)

        def system(x: Tensor) -> Tensor:
            data: Tensor = operator.adjoint(operator(x))
            return data + self.jitter * _decorrelated(x, self.correlation)

        b: Tensor = operator.adjoint(m.y - operator(flat))
        return flat + conjugate_gradients(
            system, lambda x: _filtered(x, 1 / known), b, self.iterations
        )


LARGEST_SYSTEM = 1500
"""Measurements of a block whose system is solved at once, by the Markov start."""
_kept: WeakKeyDictionary[Sampling, dict[Hashable, Tensor]] = WeakKeyDictionary()


def _powers(correlation: float, side: int, like: Tensor) -> Tensor:
    """Approximate eigenvalues of R by frequency, as of the FFT of a mirrored axis, (2·side,)."""
    angle = torch.arange(2 * side, device=like.device, dtype=like.dtype) * (math.pi / side)
    return (1 - correlation**2) / (1 - 2 * correlation * angle.cos() + correlation**2)


def _decorrelated(x: Tensor, correlation: float) -> Tensor:
    """(R ⊗ R)⁻¹ x of images (B, C, H, W): tridiagonal along rows and columns."""
    for axis in (-1, -2):
        side = x.shape[axis]
        if side == 1:  # R = 1
            continue
        out = (1 + correlation**2) * x
        inner = out.narrow(axis, 0, 1), out.narrow(axis, side - 1, 1)
        for edge, own in zip(
            inner, (x.narrow(axis, 0, 1), x.narrow(axis, side - 1, 1)), strict=True
        ):
            edge.copy_(own)
        out.narrow(axis, 1, side - 1).sub_(correlation * x.narrow(axis, 0, side - 1))
        out.narrow(axis, 0, side - 1).sub_(correlation * x.narrow(axis, 1, side - 1))
        x = out / (1 - correlation**2)
    return x


def _filtered(x: Tensor, response: Tensor) -> Tensor:
    """Images (B, C, H, W) times a response (2H, 2W) in the frequencies of the cosine transform."""
    height, width = x.shape[-2:]
    whole = torch.cat([x, x.flip(-1)], dim=-1)
    whole = torch.cat([whole, whole.flip(-2)], dim=-2)
    size = 2 * height, 2 * width
    out: Tensor = torch.fft.irfft2(torch.fft.rfft2(whole) * response[:, : width + 1], s=size)
    return out[..., :height, :width].contiguous()


def conjugate_gradients(
    system: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    b: Tensor,
    iterations: int = _ITERATIONS,
) -> Tensor:
    """Solve system(x) = b for every image of the batch; the system is positive definite."""
    own = tuple(range(1, b.ndim))  # the dimensions of one image
    x, residual = torch.zeros_like(b), b
    direction = near = precondition(b)
    power = (residual * near).sum(own, keepdim=True)
    enough = _RESIDUAL**2 * power
    for _ in range(iterations):
        going = power > enough  # an image that is done does not depend on the others
        if not bool(going.any()):
            break
        along = system(direction)
        step = going * power / (direction * along).sum(own, keepdim=True).clamp(min=1e-30)
        x, residual = x + step * direction, residual - step * along
        near = precondition(residual)
        before, power = power, (residual * near).sum(own, keepdim=True)
        direction = near + power / before.clamp(min=1e-30) * direction
    return x


STARTS: dict[str, type[nn.Module]] = {
    "adjoint": AdjointStart,
    "matrix": LinearStart,
    "markov": MarkovStart,
}
"""Name -> start, with its own options."""
