"""Measurement noise on y: Gaussian (electronics) and Poisson (photon counting).

With P photons per unit of y, the photons of the positive and the negative part of a pattern are
counted independently, as with a micromirror device: y = Poisson(P Φ⁺x)/P - Poisson(P Φ⁻x)/P.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.io.files import sha256
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.sidecar import LARGEST

_MOST_PHOTONS = 1e18  # of a value: what a 64-bit count holds
_STREAM = 0x6E6F  # separates the noise of a seed from the Φ of the same seed

_MEDIAN = 0.6745  # of |n| for standard Gaussian n


def estimated_sigma(x: Tensor) -> float:
    """The σ of white Gaussian noise in images (B, C, H, W), from the median of their details.

    The details are the diagonal Haar coefficients of every 2×2 pixels: the noise has its σ there,
    and an image is small nearly everywhere. Fine texture counts as noise. 0 for images of one row
    or one column.

    Source: Donoho and Johnstone, Biometrika 1994.
    """
    details = torch.diff(torch.diff(x.float(), dim=-1), dim=-2) / 2
    return float(details.abs().median()) / _MEDIAN if details.numel() else 0.0


@dataclass(frozen=True)
class Noise:
    """The noise to add.

    Attributes:
        sigma: standard deviation of the Gaussian noise, in the units of y.
        photons: number of photons per unit of y; None for no Poisson noise.
    """

    sigma: float = 0.0
    photons: float | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for a sigma outside 0..LARGEST, or photons that are not positive."""
        if not 0 <= self.sigma <= LARGEST:
            raise UsageError(f"noise sigma {self.sigma}: expected a number in 0..{LARGEST:g}.")
        if self.photons is not None and not (math.isfinite(self.photons) and self.photons > 0):
            raise UsageError(f"photons {self.photons}: expected a positive number.")

    def added(self, m: Measurement, x: Tensor, seed: int) -> Measurement:
        """The measurement m of images x (B, C, H, W) with noise added and its σ recorded.

        The noise is seeded by `seed` and the content of x: different images have independent noise,
        and equal images have equal noise.

        Raises:
            UsageError: photons for an operator without a photon model, too few of them, or more
                than can be counted.
        """
        if not self.sigma and self.photons is None:
            return m
        content = int.from_bytes(bytes.fromhex(sha256(x.cpu().numpy())[:32]))
        draw = np.random.Generator(np.random.PCG64([seed, _STREAM, content]))
        y, variance = m.y.double(), self.sigma**2
        if self.photons is not None:
            light = m.operator.absolute()(x).double()
            variance += float(light.mean()) / self.photons
            most = self.photons * float(light.max())
            if most > _MOST_PHOTONS or not variance <= LARGEST**2:
                raise UsageError(
                    f"photons {self.photons:g}: up to {most:.3g} for a value, and noise of σ = "
                    f"{math.sqrt(variance):.3g} on y; expected at most {_MOST_PHOTONS:g} photons "
                    f"and a σ of {LARGEST:g}. Without photon noise leave it out."
                )
            counts = [
                torch.from_numpy(draw.poisson((self.photons * part).clamp(min=0).numpy()))
                for part in ((light + y) / 2, (light - y) / 2)
            ]
            y = (counts[0] - counts[1]) / self.photons
        if self.sigma:
            y = y + self.sigma * torch.from_numpy(draw.standard_normal(y.shape))
        return replace(m, y=y.float(), noise=math.sqrt(variance))
