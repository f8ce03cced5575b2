"""Denoising y = x + σn, the reconstruction of an identity measurement, by any denoiser."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.reconstructors.base import Step, last
from csrecon.reconstructors.denoisers.base import Denoiser
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import estimated_sigma
from csrecon.sensing.operators import IdentityOperator

log = logging.getLogger(__name__)

NoiseLevel = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A standard deviation σ of noise, in the units of an image in [0, 1]."""


@dataclass(frozen=True)
class Denoise:
    """One application of a denoiser.

    Attributes:
        with_: the denoiser.
        sigma: the noise σ; None for that of the measurement, or for an estimate if it is unknown.
    """

    with_: Denoiser
    sigma: NoiseLevel | None = None

    def steps(self, m: Measurement) -> Iterator[Step]:
        """The denoised image, as the only iterate.

        Raises:
            UsageError: another operator than the identity.
        """
        if not isinstance(m.operator, IdentityOperator):
            raise UsageError(
                f"denoise: the measurement was made by {type(m.operator).__name__}; expected the "
                "identity (`csrecon sample --kind identity`, or an image file). For this one use "
                "pnp, which combines a denoiser with any operator."
            )
        sigma = self.sigma or m.noise
        if not sigma:
            sigma = estimated_sigma(m.y)
            log.info("noise: σ %.4g, estimated from the image.", sigma)
        yield Step(self.with_(m.y, sigma), m.y.new_zeros(()), 1, 1)

    def __call__(self, m: Measurement) -> Tensor:
        """The denoised image, (B, C, H, W), not clipped."""
        return last(self.steps(m)).image
