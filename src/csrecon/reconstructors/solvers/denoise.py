"""Denoising y = x + σn, the reconstruction of an identity measurement, by any denoiser."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.reconstructors.denoisers.base import Denoiser
from csrecon.reconstructors.solvers.frame import Iterate, Solver
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import estimated_sigma
from csrecon.sensing.operators import IdentityOperator

log = logging.getLogger(__name__)

SIGMA = "sigma"
"""The name of a fact: the noise σ that the denoiser assumed."""

NoiseLevel = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A standard deviation σ of noise, in the units of an image in [0, 1]."""


@dataclass(frozen=True)
class Prior(Solver):
    """A solver whose prior is a denoiser, its option `with`.

    Attributes:
        with_: the denoiser.
    """

    with_: Denoiser

    def identity(self) -> dict[str, Any]:
        """The options without the denoiser, which has an identity of its own."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "with_"}


@dataclass(frozen=True)
class Denoise(Prior):
    """One application of a denoiser.

    Attributes:
        sigma: the noise σ; None for that of the measurement, or for an estimate for every plane if
            it is unknown.
    """

    sigma: NoiseLevel | None = None
    tolerance = 0.0

    def most(self, m: Measurement) -> int:
        """One.

        Raises:
            UsageError: another operator than the identity.
        """
        if not isinstance(m.operator, IdentityOperator):
            raise UsageError(
                f"denoise: the measurement was made by {type(m.operator).__name__}; expected the "
                "identity (`csrecon sample --kind identity`, or an image file). For this one use "
                "pnp, which combines a denoiser with any operator."
            )
        return 1

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The denoised image.

        Raises:
            UsageError: a warm start.
        """
        if start is not None:
            raise UsageError("denoise: one application of a denoiser has no start; leave it out.")
        if sigma := self.sigma or m.noise:
            yield Iterate(self.with_(m.y, sigma), {SIGMA: sigma})
            return
        planes = torch.split(m.y, 1)
        sigmas = [estimated_sigma(plane) for plane in planes]
        log.info("noise: σ %s, estimated.", ", ".join(f"{sigma:.4g}" for sigma in sigmas))
        image = torch.cat([self.with_(*pair) for pair in zip(planes, sigmas, strict=True)])
        yield Iterate(image, {SIGMA: max(sigmas)})
