"""Denoising: the identity operator with Gaussian noise of another σ in every step, not clipped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from csrecon import metrics
from csrecon.io import images
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import sample as sampling
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import Noise
from csrecon.sensing.operators import IdentityOperator, SamplingOptions
from csrecon.training.tasks.base import Scores, TaskOptions, validated_ipls

_VALIDATED_NOISE = (15, 25, 50)  # σ · 255, those of the published tables
_VALIDATION = SamplingOptions(kind="identity", seed=2**31)


class DenoiseOptions(TaskOptions):
    """The task `denoise`.

    Attributes:
        noise: largest standard deviation σ of the noise; a step draws σ uniformly from 0..noise.
    """

    name: Literal["denoise"] = "denoise"
    noise: float = Field(default=50 / 255, gt=0, le=1000)

    def begin(self, seed: int) -> "Denoise":
        """The task; it has nothing that depends on a seed."""
        return Denoise(self)


@dataclass(frozen=True)
class NoiseCamera:
    """The identity, with noise of one σ."""

    sigma: float
    ratio: float = 1.0

    def images(self, x: Tensor) -> Tensor:
        """The patches themselves."""
        return x

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Add noise to (B, 1, H, W)."""
        channels, height, width = x.shape[1:]
        noise = torch.randn(x.shape, generator=draw).to(x.device)
        operator = IdentityOperator((channels, height, width))
        return Measurement(operator, x + self.sigma * noise, noise=self.sigma)


class Denoise:
    """The task: its options."""

    state: None = None

    def __init__(self, options: DenoiseOptions) -> None:
        self.options = options

    def draw(self, step: int, draw: torch.Generator) -> NoiseCamera:
        """The camera of a step."""
        return NoiseCamera(self.options.noise * float(torch.rand((), generator=draw)))

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Mean PSNR in dB per σ and IPL, with noise that is not used in training."""
        allowed = validated_ipls(network)
        table: Scores = {}
        for level in _VALIDATED_NOISE:
            total = dict.fromkeys(allowed, 0.0)
            for path in paths:
                picture = images.read(path)
                m = sampling.sample(picture, _VALIDATION, Noise(level / 255))
                for ipl in allowed:
                    image = execution.image(network.at(ipl), m, setup)
                    total[ipl] += metrics.score(image, picture.planes).psnr / len(paths)
            table[f"σ {level}/255"] = {str(ipl): round(psnr, 3) for ipl, psnr in total.items()}
        return table
