"""MRI: Fourier sampling of real and complex images, one coil or several, another mask every step.

A patch is a whole image with a k-space of its own, because a mask measures all of an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from csrecon import metrics
from csrecon.errors import nearest
from csrecon.io.images import GRAY, Picture
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator, LinearOperator
from csrecon.sensing.operators.masks import MASKS, Mask, Origin
from csrecon.sensing.operators.masks import draw as draw_mask
from csrecon.sensing.operators.sense import MOST_COILS, Maps, SenseOperator, simulated
from csrecon.sensing.sample import with_phase
from csrecon.training import slices
from csrecon.training.tasks.base import Scores, TaskOptions, drawn_noise, validated_ipls

_MASKS = ("random2d", "random1d", "radial", "equispaced")
_VALIDATION_SEED = 2**31
_VALIDATED_SLICES, _VALIDATED_SIDE = 2, 176  # of a volume, and what is used of their middle
_DISCS, _DISC_LEVELS = 4, 3  # Poisson discs that are kept: seeds, and ratios in a factor of e

_Ratio = Annotated[float, Field(gt=0, le=1)]
_Coils = Annotated[int, Field(ge=1, le=MOST_COILS)]


class MriOptions(TaskOptions):
    """The task `mri`.

    Attributes:
        masks: kinds of masks; one is drawn per step. Of Poisson discs, which take long to draw,
            a few are kept for each size.
        ratios: smallest and largest m/n; the logarithm of a step's ratio is uniform between theirs.
        noise: largest standard deviation σ of Gaussian noise on y; a step draws σ = noise · u²,
            u uniform.
        noiseless: share of the steps without noise, in training with noise.
        complex: share of the steps whose images have a smooth phase.
        coils: numbers of coils; one is drawn per step.
    """

    name: Literal["mri"] = "mri"
    masks: tuple[str, ...] = Field(default=_MASKS, min_length=1, max_length=1000)
    ratios: tuple[_Ratio, _Ratio] = (0.05, 0.5)
    noise: float = Field(default=0.0, ge=0, le=1000)
    noiseless: float = Field(default=0.75, ge=0, le=1)
    complex: float = Field(default=0.0, ge=0, le=1)
    coils: tuple[_Coils, ...] = Field(default=(1,), min_length=1, max_length=1000)

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
    """A random mask of a kind and a ratio, coils, and noise.

    Attributes:
        kind, ratio, seed: of the mask; the seed also draws the phase and places the coils.
        sigma: standard deviation of the noise.
        is_complex: whether the images have a phase.
        coils: their number.
    """

    kind: str
    ratio: float
    seed: int
    sigma: float = 0.0
    is_complex: bool = False
    coils: int = 1

    def images(self, x: Tensor) -> Tensor:
        """Patches (B, 1, H, W), with a smooth phase (B, 2, H, W) if the camera is complex."""
        if not self.is_complex:
            return x
        phased = with_phase(Picture(torch.ones(1, 1, *x.shape[-2:]), GRAY), self.seed)
        return x * phased.planes.to(x.device)

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Measure (B, C, H, W)."""
        channels, shape = x.shape[1], (x.shape[-2], x.shape[-1])
        mask = self._mask(shape)
        operator: LinearOperator
        if self.coils == 1:
            operator = FourierOperator(mask, channels)
        else:
            maps = _placed(shape, self.coils, self.seed)
            operator = SenseOperator(FourierOperator(mask, 2), maps, channels)
        operator = operator.to(x.device)
        y = operator(x)
        if self.sigma:
            y = y + self.sigma * torch.randn(y.shape, generator=draw).to(y.device)
        return Measurement(operator, y, noise=self.sigma)

    def _mask(self, shape: tuple[int, int]) -> Mask:
        """A mask; the lines of every second one are columns."""
        if self.seed % 2:
            height, width = shape
            return np.ascontiguousarray(replace(self, seed=self.seed - 1)._mask((width, height)).T)
        if self.kind != "poisson":
            return draw_mask(shape, Origin(self.kind, self.ratio, self.seed))
        level = round(_DISC_LEVELS * math.log(self.ratio)) / _DISC_LEVELS
        return _disc(shape, min(1.0, math.exp(level)), self.seed // 2 % _DISCS)


@lru_cache(maxsize=256)
def _disc(shape: tuple[int, int], ratio: float, seed: int) -> Mask:
    return draw_mask(shape, Origin("poisson", ratio, seed))


@lru_cache(maxsize=32)
def _ring(shape: tuple[int, int], coils: int) -> Maps:
    return simulated(shape, coils)


def _placed(shape: tuple[int, int], coils: int, seed: int) -> Maps:
    """Maps (coils, H, W): a random window of those of a field of view half as large again."""
    height, width = (side + side // 2 for side in shape)
    top, left = np.random.Generator(np.random.PCG64(seed)).integers(
        (height - shape[0] + 1, width - shape[1] + 1)
    )
    maps = _ring((height, width), coils)[:, top : top + shape[0], left : left + shape[1]]
    return np.ascontiguousarray(maps)


_VALIDATED = {
    "0.1 (radial)": MaskCamera("radial", 0.1, _VALIDATION_SEED),
    "0.3 (radial)": MaskCamera("radial", 0.3, _VALIDATION_SEED),
    "0.5 (radial)": MaskCamera("radial", 0.5, _VALIDATION_SEED),
    "0.25 (equispaced, complex, 8 coils)": MaskCamera(
        "equispaced", 0.25, _VALIDATION_SEED, is_complex=True, coils=8
    ),
}


class Mri:
    """The task: its options."""

    state: None = None

    def __init__(self, options: MriOptions) -> None:
        self.options = options

    def draw(self, step: int, draw: torch.Generator) -> MaskCamera:
        """The camera of a step."""
        options = self.options
        which, seed, coil = torch.randint(2**31, (3,), generator=draw).tolist()
        low, high = (math.log(ratio) for ratio in options.ratios)
        where, phase = torch.rand(2, generator=draw).tolist()
        return MaskCamera(
            options.masks[which % len(options.masks)],
            ratio=math.exp(low + (high - low) * where),
            seed=seed,
            sigma=drawn_noise(options.noise, options.noiseless, draw),
            is_complex=phase < options.complex,
            coils=options.coils[coil % len(options.coils)],
        )

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Mean PSNR in dB, of magnitudes, per camera and IPL, on held-out slices of volumes.

        The cameras are always the same, and their seed is one that training does not use. A network
        for real images alone has no scores of complex ones.
        """
        allowed = validated_ipls(network)
        patches = held_out(paths)
        block = network.blocks[0]
        assert isinstance(block, ProxBlock)
        table: Scores = {}
        for name, camera in _VALIDATED.items():
            if camera.is_complex and block.channels < 2:
                continue
            total = dict.fromkeys(allowed, 0.0)
            for patch in patches:
                m = camera(camera.images(patch), torch.Generator())
                for ipl in allowed:
                    image = execution.image(network.at(ipl), m, setup)
                    size = torch.linalg.vector_norm(image, dim=1, keepdim=True)
                    shown = size if camera.is_complex else image
                    total[ipl] += metrics.score(shown, patch).psnr / len(patches)
            table[name] = {str(ipl): round(psnr, 3) for ipl, psnr in total.items()}
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
