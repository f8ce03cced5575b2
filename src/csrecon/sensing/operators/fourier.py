"""Fourier sampling: y = M F x with the unitary FFT F and a mask M, as in Cartesian MRI.

The mask has the zero frequency in its corner, as the FFT does. For complex images (two channels)
A Aᵀ = I. For real images Aᵀ takes the real part, ‖A‖ ≤ 1, and a pair of conjugate frequencies that
are both measured counts twice.
"""

import logging
import math
from collections.abc import Hashable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from csrecon.errors import InputError, UsageError
from csrecon.io.files import sha256
from csrecon.sensing.operators.base import (
    Domain,
    FourierOptions,
    LinearOperator,
    OperatorSpec,
    SamplingOptions,
    check_extent,
)
from csrecon.sensing.operators.masks import Mask, Origin, draw

log = logging.getLogger(__name__)


def _full(values: Tensor) -> Tensor:
    """In single precision at least: the FFT knows no bfloat16, and float16 for powers of two."""
    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values


class FourierOperator(LinearOperator):
    """A = M F; y is (B, K, 2), the real and imaginary parts of the K measured frequencies.

    Args:
        mask: (H, W) bool, zero frequency in the corner; the order of y is row by row.
        channels: 1 for real images, 2 for complex ones.
        origin: what generated the mask; None for a given one.

    Raises:
        InputError: an empty mask.
    """

    complex_data = True
    index: Tensor

    def __init__(self, mask: Mask, channels: int = 1, origin: Origin | None = None) -> None:
        super().__init__((channels, *mask.shape))
        if mask.ndim != 2 or not mask.any():
            raise InputError(
                f"mask of shape {mask.shape}: expected (H, W) with measured frequencies."
            )
        if not mask[0, 0]:
            log.warning(
                "the zero frequency (the corner of the mask) is not measured: is it in the centre "
                "of the mask? np.fft.ifftshift moves it to the corner."
            )
        self.mask = mask
        self.origin = origin
        index = torch.from_numpy(np.flatnonzero(mask))
        self.register_buffer("index", index, persistent=False)

    @property
    def ratio(self) -> float:
        """The share of the frequencies that is measured."""
        return len(self.index) / self.mask.size

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(K, 2)."""
        return len(self.index), 2

    @property
    def tight(self) -> bool:
        """True for complex images."""
        return self.domain[0] == 2

    def forward(self, x: Tensor) -> Tensor:
        """Measure (B, C, H, W) -> (B, K, 2)."""
        with torch.autocast(x.device.type, enabled=False):
            x = _full(x)
            image = x[:, 0] if self.domain[0] == 1 else torch.complex(x[:, 0], x[:, 1])
            spectrum = torch.fft.fft2(image, norm="ortho").flatten(-2)
            y: Tensor = torch.view_as_real(spectrum[:, self.index])
            return y

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, K, 2) -> (B, C, H, W); of a real image the real part."""
        with torch.autocast(y.device.type, enabled=False):
            values = torch.view_as_complex(_full(y).contiguous())
            spectrum = values.new_zeros(len(y), self.mask.size)
            spectrum[:, self.index] = values
            image = torch.fft.ifft2(spectrum.view(-1, *self.image_shape), norm="ortho")
            if self.domain[0] == 1:
                real: Tensor = image.real[:, None].contiguous()
                return real
            x: Tensor = torch.view_as_real(image).movedim(-1, 1).contiguous()
            return x

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Unchanged: ‖A‖ ≤ 1."""
        return self, y, noise

    @property
    def batch_key(self) -> Hashable | None:
        """The domain and the mask."""
        return self.domain, self.mask.tobytes()

    def spec(self) -> "FourierSpec":
        """The identity of the mask."""
        origin = self.origin._asdict() if self.origin else {"kind": "given"}
        facts = MaskFacts(count=len(self.index), sha256=_digest(self.mask), **origin)
        return FourierSpec(mask=facts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The mask, as uint8 of 0 and 1."""
        return {"mask": self.mask.astype(np.uint8)}


def _digest(mask: Mask) -> str:
    return sha256(mask.astype(np.uint8), "u1")


class MaskFacts(BaseModel):
    """The identity of a mask; one with a seed can be generated again."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: str
    ratio: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0)
    center: float | None = Field(None, gt=0)
    count: int = Field(ge=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")

    @property
    def origin(self) -> Origin | None:
        """What generated the mask; None for a given one."""
        if self.seed is None or self.ratio is None:
            return None
        return Origin(self.kind, self.ratio, self.seed, self.center)


class FourierSpec(OperatorSpec):
    """Which frequencies were measured."""

    kind: Literal["fourier"] = "fourier"
    mask: MaskFacts

    def y_shape(self, domain: Domain) -> tuple[int, ...]:
        """(K, 2)."""
        return self.mask.count, 2

    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> FourierOperator:
        """The operator with the mask as stored, given, or generated again from its seed.

        Raises:
            InputError: another mask than the recorded one.
            UsageError: the mask is neither stored nor given.
        """
        facts, shape = self.mask, (domain[1], domain[2])
        if "mask" in arrays:
            mask = as_mask(arrays["mask"], shape)
        elif facts.origin is None:
            raise UsageError(
                f"was measured with a given mask (digest {facts.sha256[:12]}…), which is not "
                "stored here. Pass it with --mask FILE."
            )
        else:
            mask = draw(shape, facts.origin)
        if _digest(mask) != facts.sha256:
            raise InputError(
                f"wrong mask: its digest is {_digest(mask)[:12]}…, and y was measured with "
                f"{facts.sha256[:12]}…. Pass the original with --mask FILE."
            )
        if (count := int(mask.sum())) != facts.count:
            raise InputError(f"{facts.count} frequencies are recorded, and the mask has {count}.")
        return FourierOperator(mask, domain[0], facts.origin)

    @classmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> FourierOperator:
        """A Fourier operator with a given mask, or one generated from a ratio and a seed."""
        options.refuse("m", "phi", "block")
        shape, extra = (domain[1], domain[2]), options.fourier or FourierOptions()
        if isinstance(options.mask, np.ndarray):
            options.refuse("ratio")
            if extra.center is not None:
                raise UsageError("center: a given mask has its own; leave it out.")
            given = FourierOperator(as_mask(options.mask, shape), domain[0])
            check_extent(given.mask.size, len(given.index))
            return given
        ratio = options.ratio
        if ratio is None or not (math.isfinite(ratio) and 0 < ratio <= 1):
            raise UsageError(f"ratio {ratio}: kind 'fourier' needs a number in (0, 1], or a mask.")
        check_extent(shape[0] * shape[1], max(1, round(ratio * shape[0] * shape[1])))
        origin = Origin(options.mask or "random2d", ratio, options.seed, extra.center)
        made = FourierOperator(draw(shape, origin), domain[0], origin)
        if round(made.ratio, 3) != round(ratio, 3):
            log.info("%s mask: m/n = %.4f is the nearest to %g.", origin.kind, made.ratio, ratio)
        return made


def as_mask(values: NDArray[Any], shape: tuple[int, int]) -> Mask:
    """A mask from an array of 0 and 1.

    Raises:
        InputError: another shape than the image's, other values, or an empty mask.
    """
    if values.shape != shape:
        raise InputError(
            f"mask of shape {values.shape}: expected {shape}, one value per frequency of the image."
        )
    if values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise InputError("mask: expected 0 for frequencies left out and 1 for measured ones.")
    if not values.any():
        raise InputError("mask: selects no frequency.")
    return np.asarray(values != 0)
