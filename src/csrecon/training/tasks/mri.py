"""MRI: Fourier sampling of real images, with another mask in every step.

A patch is a whole image with a k-space of its own, because a mask measures all of an image.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from csrecon import metrics
from csrecon.errors import nearest
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator
from csrecon.sensing.operators.masks import MASKS, Origin
from csrecon.sensing.operators.masks import draw as draw_mask
from csrecon.training import slices
from csrecon.training.tasks.base import Scores, TaskOptions, drawn_noise, validated_ipls

_MASKS = ("random2d", "random1d", "radial", "equispaced")
_VALIDATED_RATIOS = (0.1, 0.3, 0.5)
_VALIDATION_SEED = 2**31
_VALIDATED_SLICES, _VALIDATED_SIDE = 2, 176  # of a volume, and what is used of their middle

_Ratio = Annotated[float, Field(gt=0, le=1)]


class MriOptions(TaskOptions):
    """The task `mri`.

    Attributes:
        masks: kinds of masks; one is drawn per step. Poisson discs take long to draw, so they are
            left out unless they are named.
        ratios: smallest and largest m/n; the logarithm of a step's ratio is uniform between theirs.
        noise: largest standard deviation σ of Gaussian noise on y; a step draws σ = noise · u²,
            u uniform.
        noiseless: share of the steps without noise, in training with noise.
    """

    name: Literal["mri"] = "mri"
    masks: tuple[str, ...] = Field(default=_MASKS, min_length=1, max_length=1000)
    ratios: tuple[_Ratio, _Ratio] = (0.05, 0.5)
    noise: float = Field(default=0.0, ge=0, le=1000)
    noiseless: float = Field(default=0.75, ge=0, le=1)

    validation = "brain_train"

    @model_validator(mode="after")
    def _known(self) -> Self:
        for kind in self.masks:
            if kind not in MASKS:
                raise ValueError(f"masks: {kind!r}: {nearest(kind, MASKS)}")
        if self.ratios[0] > self.ratios[1]:
            raise ValueError(f"ratios {self.ratios}: expected the smallest and the largest")
        return self

    def begin(self, seed: int) -> "Mri":
        """The task; it has nothing that depends on a seed."""
        return Mri(self)


@dataclass(frozen=True)
class MaskCamera:
    """A random mask of a kind and a ratio, and noise."""

    kind: str
    ratio: float
    seed: int
    sigma: float = 0.0

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Measure (B, 1, H, W)."""
        origin = Origin(self.kind, self.ratio, self.seed)
        mask = draw_mask((x.shape[-2], x.shape[-1]), origin)
        operator = FourierOperator(mask).to(x.device)
        y = operator(x)
        if self.sigma:
            y = y + self.sigma * torch.randn(y.shape, generator=draw).to(y.device)
        return Measurement(operator, y, noise=self.sigma)


class Mri:
    """The task: its options."""

    state: None = None

    def __init__(self, options: MriOptions) -> None:
        self.options = options

    def draw(self, step: int, draw: torch.Generator) -> MaskCamera:
        """The camera of a step."""
        options = self.options
        which, seed = torch.randint(2**31, (2,), generator=draw).tolist()
        low, high = (math.log(ratio) for ratio in options.ratios)
        ratio = math.exp(low + (high - low) * float(torch.rand((), generator=draw)))
        sigma = drawn_noise(options.noise, options.noiseless, draw)
        return MaskCamera(options.masks[which % len(options.masks)], ratio, seed, sigma)

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Mean PSNR in dB per ratio and IPL, on held-out slices of volumes.

        Every ratio has one of the kinds of masks in turn, drawn from a seed that training does not
        use.
        """
        allowed = validated_ipls(network)
        images = held_out(paths)
        table: Scores = {}
        for kind, ratio in zip(
            itertools.cycle(self.options.masks), _VALIDATED_RATIOS, strict=False
        ):
            camera = MaskCamera(kind, ratio, _VALIDATION_SEED)
            total = dict.fromkeys(allowed, 0.0)
            for x in images:
                m = camera(x, torch.Generator())
                for ipl in allowed:
                    image = execution.image(network.at(ipl), m, setup)
                    total[ipl] += metrics.score(image, x).psnr / len(images)
            scores = {str(ipl): round(psnr, 3) for ipl, psnr in total.items()}
            table[f"{ratio:g} ({kind})"] = scores
        return table


def held_out(paths: Sequence[Path]) -> list[Tensor]:
    """The images of a validation, each (1, 1, H, W): the middle of held-out slices of volumes.

    Raises:
        InputError, UsageError: as in `slices.held_out`.
    """
    found = []
    for plane in (one for path in paths for one in slices.held_out(path, _VALIDATED_SLICES)):
        top, left = (max(0, (side - _VALIDATED_SIDE) // 2) for side in plane.shape)
        middle = plane[top : top + _VALIDATED_SIDE, left : left + _VALIDATED_SIDE]
        found.append(torch.from_numpy(middle).float()[None, None] / 255)
    return found
