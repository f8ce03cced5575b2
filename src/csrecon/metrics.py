"""Image quality: PSNR = 10 log10(peak² / MSE) and SSIM, as pure functions of batches.

SSIM is the mean over all 7×7 windows inside the image of
(2 μ_x μ_y + C₁)(2 σ_xy + C₂) / ((μ_x² + μ_y² + C₁)(σ_x² + σ_y² + C₂)) with C₁ = 0.01²,
C₂ = 0.03² for peak 1 and the sample (N-1) covariance: what scikit-image computes by default.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from csrecon.errors import InputError, UsageError

Protocol = Literal["paper", "standard"]

PROTOCOLS: dict[Protocol, str] = {
    "paper": "luma, clipped to [0, 1], not rounded, peak 255, SSIM 7×7 uniform, mean over images",
    "standard": "luma, clipped and rounded to 8 bits, peak 255, SSIM 7×7 uniform, mean over images",
}
SSIM_WINDOW = 7
_BAND = 2**20  # pixels per band, computed in float64


@dataclass(frozen=True)
class Score:
    """PSNR in dB (infinite for equal images), SSIM (NaN below 7×7) and, if asked, LPIPS."""

    psnr: float
    ssim: float
    lpips: float | None = None


def mean(scores: Sequence[Score]) -> Score:
    """The mean of each metric; of LPIPS only if every score has it."""
    known = [score.lpips for score in scores if score.lpips is not None]
    return Score(
        fmean(score.psnr for score in scores),
        fmean(score.ssim for score in scores),
        fmean(known) if len(known) == len(scores) else None,
    )


def _check(x: Tensor, reference: Tensor) -> None:
    if x.shape != reference.shape or x.ndim != 4:
        raise InputError(
            f"cannot compare images of shapes {tuple(x.shape)} and {tuple(reference.shape)}: "
            "expected two equal shapes (N, C, H, W)."
        )


def psnr(x: Tensor, reference: Tensor, peak: float = 1.0) -> Tensor:
    """PSNR in dB, (N,), of (N, C, H, W) images; the error is averaged over C, H and W.

    Raises:
        InputError: shapes that differ or are not four-dimensional.
    """
    _check(x, reference)
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for rows in _bands(x, 0):
        error = x[:, :, rows].double() - reference[:, :, rows].double()
        total += error.square().sum(dim=(1, 2, 3))
    return 10 * torch.log10(peak**2 / (total / x[0].numel()))


def ssim(x: Tensor, reference: Tensor, peak: float = 1.0) -> Tensor:
    """Structural similarity, (N,), of (N, C, H, W) images, averaged over C, H and W.

    Raises:
        InputError: shapes that differ or are not four-dimensional, or images below 7×7.

    Source: Wang et al., IEEE TIP 2004, with the uniform window of scikit-image.
    """
    _check(x, reference)
    if min(x.shape[-2:]) < SSIM_WINDOW:
        raise InputError(f"SSIM needs images of at least 7×7 pixels, got {tuple(x.shape[-2:])}.")
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for rows in _bands(x, SSIM_WINDOW - 1):
        windows = _similarity(x[:, :, rows].double(), reference[:, :, rows].double(), peak)
        total += windows.sum(dim=(1, 2, 3))
    height, width = (side - SSIM_WINDOW + 1 for side in x.shape[-2:])
    return total / (x.shape[1] * height * width)


def _similarity(a: Tensor, b: Tensor, peak: float) -> Tensor:
    """SSIM of every window, (N, C, H - 6, W - 6)."""
    count = SSIM_WINDOW**2

    def local(image: Tensor) -> Tensor:
        return avg_pool2d(image, SSIM_WINDOW, stride=1)

    mean_a, mean_b = local(a), local(b)
    unbiased = count / (count - 1)
    var_a = unbiased * (local(a * a) - mean_a**2)
    var_b = unbiased * (local(b * b) - mean_b**2)
    covariance = unbiased * (local(a * b) - mean_a * mean_b)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    return ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    )


def _bands(x: Tensor, overlap: int) -> Iterator[slice]:
    """Row slices that cut (N, C, H, W) images into bands overlapping by `overlap` rows."""
    count, planes, height, width = x.shape
    step = max(1, _BAND // (count * planes * width))
    for top in range(0, height - overlap, step):
        yield slice(top, top + step + overlap)


def protocol(name: str) -> Protocol:
    """The scoring protocol of a name.

    Raises:
        UsageError: an unknown name.
    """
    for known in PROTOCOLS:
        if name == known:
            return known
    raise UsageError(f"protocol {name!r}: expected one of {', '.join(PROTOCOLS)}.")


def shown(x: Tensor, protocol: Protocol) -> Tensor:
    """Planes (C, 1, H, W) as they are scored: (1, C, H, W), clipped, and rounded by "standard"."""
    clipped = x.clamp(0, 1).transpose(0, 1)
    return torch.round(clipped.double() * 255) / 255 if protocol == "standard" else clipped


def score(x: Tensor, reference: Tensor, protocol: Protocol = "paper") -> Score:
    """Score one image, planes (C, 1, H, W) in [0, 1], by a scoring protocol.

    Source: PROTOCOLS; "paper" is the protocol of the recursive networks' authors.
    """
    clipped = shown(x, protocol)
    target = reference.transpose(0, 1)
    similarity = float("nan")
    if min(x.shape[-2:]) >= SSIM_WINDOW:
        similarity = float(ssim(clipped, target))
    return Score(float(psnr(clipped, target)), similarity)
