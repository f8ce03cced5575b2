"""Orthonormal transforms W of a whole image, and ‖Wx‖₁ with its proximal operator.

* block DCT: the image is cut into blocks of size × size pixels (smaller at the borders), and every
  block has the orthonormal DCT-II.
* wavelet: the separable discrete wavelet transform of an orthogonal filter pair, periodised. One
  level along an axis of n samples x gives, for L taps h of the low-pass and g of the high-pass,

      a_k = Σ_j h_j x_(2k + L/2 - j),   d_k = Σ_j g_j x_(2k + L/2 - j),   k < N / 2,

  with indices mod N, the largest even number up to n. An odd last sample joins a unchanged, so that
  every level is orthonormal for every n. The next level transforms the approximation alone.

The grid of either can be shifted; moving it from step to step averages over translations (cycle
spinning), which removes block artefacts and the ringing of a fixed grid.

Source: Coifman and Donoho 1995 (cycle spinning); Mallat, A Wavelet Tour of Signal Processing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from csrecon.errors import UsageError, nearest
from csrecon.sensing.operators.transforms import dct_basis


@dataclass(frozen=True)
class Transform:
    """An orthonormal transform of images (B, C, H, W), whose grid can be shifted.

    Attributes:
        forward: image and shift -> coefficients, in the shape of the image.
        inverse: coefficients and shift -> image.
        period: the number of different shifts, which are 0..period-1.
    """

    forward: Callable[[Tensor, int], Tensor]
    inverse: Callable[[Tensor, int], Tensor]
    period: int


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


def dct(size: int) -> Transform:
    """The block DCT with blocks of size × size pixels."""
    return Transform(
        lambda x, shift: block_dct(x, size, shift),
        lambda code, shift: block_dct(code, size, shift, inverse=True),
        size,
    )


@lru_cache
def filters(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The low-pass and the high-pass taps of an orthogonal wavelet of PyWavelets.

    Raises:
        UsageError: PyWavelets is not installed, no wavelet of that name, or one that is not
            orthogonal.
    """
    try:
        import pywt  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "wavelets need PyWavelets: pip install 'csrecon[solvers]', or use transform=dct."
        ) from error
    known = pywt.wavelist(kind="discrete")
    if name not in known:
        raise UsageError(f"wavelet {name!r}: {nearest(name, known)}")
    found = pywt.Wavelet(name)
    if not found.orthogonal or name == "dmey":  # whose finite filters are so up to 2e-3 only
        raise UsageError(
            f"wavelet {name!r} is not orthogonal: use one of haar, db2..db38, sym2..sym20 or "
            "coif1..coif17."
        )
    return tuple(found.dec_lo), tuple(found.dec_hi)


def _split(x: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """One level along the last axis: approximation, odd last sample, detail."""
    even = x.shape[-1] // 2 * 2
    phases = x[..., 0:even:2], x[..., 1:even:2]
    made = [torch.zeros_like(phases[0]) for _ in range(2)]
    for tap, (h, g) in enumerate(zip(low, high, strict=True)):
        offset = len(low) // 2 - tap
        moved = phases[offset % 2].roll(-(offset // 2), dims=-1)
        made[0].add_(moved, alpha=h)
        made[1].add_(moved, alpha=g)
    return torch.cat([made[0], x[..., even:], made[1]], dim=-1)


def _joined(code: Tensor, low: tuple[float, ...], high: tuple[float, ...]) -> Tensor:
    """The inverse of `_split`, which is its transpose."""
    half = code.shape[-1] // 2
    even = 2 * half
    a, d = code[..., :half], code[..., code.shape[-1] - half :]
    x = torch.empty_like(code)
    x[..., even:] = code[..., half : code.shape[-1] - half]
    phases = [torch.zeros_like(a) for _ in range(2)]
    for tap, (h, g) in enumerate(zip(low, high, strict=True)):
        offset = len(low) // 2 - tap
        phases[offset % 2].add_((h * a + g * d).roll(offset // 2, dims=-1))
    x[..., 0:even:2], x[..., 1:even:2] = phases
    return x


def wavelet(name: str, levels: int) -> Transform:
    """The wavelet transform of `levels` levels, fewer where a side has only one sample left.

    Raises:
        UsageError: as `filters`.
    """
    low, high = filters(name)

    def corners(x: Tensor) -> list[tuple[int, int]]:
        sides = [(x.shape[-2], x.shape[-1])]
        for _ in range(levels - 1):
            sides.append((-(-sides[-1][0] // 2), -(-sides[-1][1] // 2)))
        return sides

    def forward(x: Tensor, shift: int) -> Tensor:
        code = x.roll((shift, shift), dims=(-2, -1)).contiguous()
        for h, w in corners(x):
            part = _split(code[..., :h, :w], low, high)
            code[..., :h, :w] = _split(part.mT, low, high).mT
        return code

    def inverse(code: Tensor, shift: int) -> Tensor:
        x = code.clone()
        for h, w in reversed(corners(code)):
            part = _joined(x[..., :h, :w].mT, low, high).mT
            x[..., :h, :w] = _joined(part, low, high)
        return x.roll((-shift, -shift), dims=(-2, -1))

    return Transform(forward, inverse, 2**levels)


def soft_threshold(code: Tensor, strength: float) -> Tensor:
    """Soft thresholding of (B, C, H, W); the channels of a complex coefficient shrink together."""
    size = torch.linalg.vector_norm(code, dim=1, keepdim=True)
    shrunk: Tensor = code * (1 - strength / size.clamp(min=strength))
    return shrunk


def magnitudes(code: Tensor) -> float:
    """The ℓ1 norm of (B, C, H, W), where the channels of a complex coefficient count as one."""
    return float(torch.linalg.vector_norm(code, dim=1).sum())
