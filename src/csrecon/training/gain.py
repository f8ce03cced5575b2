"""The gain of one network over another in dB, by squared errors on rows that are held out.

With rows φ of a random Φ that are held out, the mean of (φ e)² is proportional to the squared error
of the image that the other rows leave (evaluation/heldout.py); the factor is the same for both
networks. With b_i and a_i the means of image i before and after,

    gain = mean_i 10 log10(b_i / a_i),

an estimate of the mean gain in PSNR. Its variance is the larger one of two: that from the blocks of
each image (jackknife: without one block after the other), and that between the images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_UNSEEN = 1e-6  # mean squared error, 60 dB, below which nobody sees a difference
_SURE, _LEAST = 2.0, 0.01  # standard errors and dB that a gain has to exceed


@dataclass(frozen=True)
class Gain:
    """An estimated gain.

    Attributes:
        db: mean gain in PSNR.
        error: its standard error in dB.
        before, after: mean squared error of the held-out values.
    """

    db: float
    error: float
    before: float
    after: float

    @property
    def sure(self) -> bool:
        """Whether the gain exceeds two standard errors, and 0.01 dB."""
        return self.db > max(_LEAST, _SURE * self.error)

    def __str__(self) -> str:
        """`0.70 ± 0.05 dB`."""
        return f"{self.db:.2f} ± {self.error:.2f} dB"


@dataclass(frozen=True, eq=False)
class Errors:
    """Squared errors of an image without the noise, (blocks, rows), before and after.

    Attributes:
        before, after: of the two networks; single ones may be negative.
        noise: variance of the noise in a single value.
    """

    before: Tensor
    after: Tensor
    noise: float


def estimate(images: Sequence[Errors]) -> Gain:
    """The gain over some images."""
    gains = torch.stack([_decibels(e, e.before.sum(), e.after.sum()) for e in images])
    within = sum(_jackknifed(e) for e in images) / len(images) ** 2
    between = float(gains.var()) / len(images) if len(images) > 1 else 0.0
    return Gain(
        db=float(gains.mean()),
        error=math.sqrt(max(within, between)),
        before=float(torch.stack([e.before.mean() for e in images]).mean()),
        after=float(torch.stack([e.after.mean() for e in images]).mean()),
    )


def _decibels(e: Errors, before: Tensor, after: Tensor, share: float = 1.0) -> Tensor:
    """10 log10(before / after) of sums over this share of the values.

    Sums that the noise hides, by its standard deviation, count as the least that it shows.
    """
    count = share * e.before.numel()
    floor = count * max(_UNSEEN, e.noise * math.sqrt(2 / count))
    return 10 * torch.log10(before.clamp(min=floor) / after.clamp(min=floor))


def _jackknifed(e: Errors) -> float:
    """Variance of the gain of an image, over its blocks; of a single block over its rows."""
    axis = 1 if len(e.before) > 1 else 0
    before, after = e.before.sum(dim=axis), e.after.sum(dim=axis)
    count = len(before)
    if count < 2:
        return math.inf
    share = (count - 1) / count
    without = _decibels(e, before.sum() - before, after.sum() - after, share)
    return share * float((without - without.mean()).square().sum())
