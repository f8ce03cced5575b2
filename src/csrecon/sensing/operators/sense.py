"""Fourier sampling with several receive coils: y = M F S x, as in parallel MRI.

S multiplies the image by the complex sensitivity of every coil. ‖A‖² is at most the largest sum of
|S|² over the coils, which `normalized` divides by. Maps with a sum of 1 give an x whose magnitude
is the root sum of squares of the coil images.

Source: Pruessmann et al., MRM 1999 (SENSE).
"""

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
    Scaled,
)
from csrecon.sensing.operators.fourier import FourierOperator, FourierSpec

Maps = NDArray[np.complex64]

MOST_COILS = 256

_RING = 1.5  # radius of the ring of coils, in half fields of view
_ROUNDING = 2.0**20  # so that simulated maps have one digest on every machine
_TIGHT = 1e-4
_NORMAL = 0.99, 1 + 1e-5  # sums of |S|² that need no division


def simulated(shape: tuple[int, int], coils: int) -> Maps:
    """Smooth maps (coils, H, W) of loops round the field of view, their sum of |S|² is 1.

    Each loop is two long wires with opposite currents, of which the law of Biot and Savart gives
    the field B_x + i B_y ∝ 1 / conj(z - z₁) - 1 / conj(z - z₂).

    Raises:
        UsageError: no coil, or more than MOST_COILS.
    """
    if not 1 <= coils <= MOST_COILS:
        raise UsageError(f"coils {coils}: expected 1 to {MOST_COILS}.")
    down, across = ((2 * np.arange(side) + 1) / side - 1 for side in shape)
    place = across + 1j * down[:, None]
    maps = np.empty((coils, *shape), np.complex128)
    half = 0.8 * np.pi / max(coils, 4)  # angle between the middle of a loop and its wires
    for index in range(coils):
        angle = 2 * np.pi * index / coils
        wires = _RING * np.exp(1j * (angle + np.array([half, -half])))
        field = 1 / (place - wires[0]).conj() - 1 / (place - wires[1]).conj()
        maps[index] = field * np.exp(-1j * angle)
    maps /= np.sqrt(np.square(np.abs(maps)).sum(axis=0))
    rounded = np.round(maps.view(np.float64) * _ROUNDING) / _ROUNDING
    return rounded.view(np.complex128).astype(np.complex64)


def as_maps(values: NDArray[Any], shape: tuple[int, int]) -> Maps:
    """Sensitivity maps from an array of complex numbers (coils, H, W).

    Raises:
        InputError: real numbers, another shape than the image's, NaN, infinity, or maps that are
            zero everywhere.
    """
    if values.dtype.kind != "c":
        raise InputError(
            f"sensitivities of type {values.dtype}: expected complex numbers (coils, H, W). "
            "Nothing is cast silently."
        )
    if values.ndim != 3 or values.shape[1:] != shape or not 1 <= len(values) <= MOST_COILS:
        raise InputError(
            f"sensitivities of shape {values.shape}: expected (coils, {shape[0]}, {shape[1]}), one "
            "map per coil, of the image's size."
        )
    maps = values.astype(np.complex64)
    if not np.isfinite(maps).all():
        raise InputError(f"sensitivities: {int((~np.isfinite(maps)).sum())} values are not finite.")
    if not maps.any():
        raise InputError("sensitivities: zero everywhere.")
    return maps


class SenseOperator(LinearOperator):
    """A = M F S; y is (B, coils, K, 2), the K measured frequencies of every coil.

    Args:
        sampling: M F of complex images.
        maps: S, (coils, H, W).
        channels: 1 for real images, of which the adjoint takes the real part; 2 for complex ones.
        is_simulated: whether `simulated` made the maps.

    Raises:
        InputError: maps of another size than the mask.
    """

    complex_data = True
    maps: Tensor

    def __init__(
        self, sampling: FourierOperator, maps: Maps, channels: int = 2, is_simulated: bool = False
    ) -> None:
        super().__init__((channels, *sampling.image_shape))
        self.sampling = sampling
        self.is_simulated = is_simulated
        self._given = as_maps(maps, sampling.image_shape)
        pairs = torch.view_as_real(torch.from_numpy(self._given))
        self.register_buffer("maps", pairs, persistent=False)
        weight = np.square(np.abs(self._given)).sum(axis=0)
        self._bound = float(weight.max())
        self._flat = bool(np.abs(weight - 1).max() < _TIGHT)

    @property
    def coils(self) -> int:
        """Number of coils."""
        return len(self._given)

    @property
    def ratio(self) -> float:
        """The share of the frequencies that is measured, by all coils at once."""
        return self.sampling.ratio

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(coils, K, 2)."""
        return self.coils, *self.sampling.y_shape

    @property
    def tight(self) -> bool:
        """True for complex images and one coil whose sensitivity has magnitude 1."""
        return self.coils == 1 and self.domain[0] == 2 and self._flat

    def _sensitivities(self, values: Tensor) -> Tensor:
        precise = torch.float64 if values.dtype == torch.float64 else torch.float32
        return torch.view_as_complex(self.maps.to(precise))

    def forward(self, x: Tensor) -> Tensor:
        """Measure (B, C, H, W) -> (B, coils, K, 2)."""
        with torch.autocast(x.device.type, enabled=False):
            maps = self._sensitivities(x)
            real = x[:, 0].to(maps.real.dtype)
            image = real if self.domain[0] == 1 else torch.complex(real, x[:, 1].to(real.dtype))
            seen = torch.view_as_real(image[:, None] * maps).movedim(-1, 2)
            y: Tensor = self.sampling(seen.flatten(0, 1))
            return y.reshape(len(x), *self.y_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        """(B, coils, K, 2) -> (B, C, H, W); of a real image the real part."""
        with torch.autocast(y.device.type, enabled=False):
            maps = self._sensitivities(y)
            seen = self.sampling.adjoint(y.flatten(0, 1)).movedim(1, -1).contiguous()
            images = torch.view_as_complex(seen).reshape(len(y), *maps.shape)
            image = (images * maps.conj()).sum(dim=1)
            x: Tensor = torch.view_as_real(image).movedim(-1, 1)[:, : self.domain[0]].contiguous()
            return x

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Divided by the bound √max Σ|S|² of ‖A‖; unchanged if that is 1."""
        if _NORMAL[0] <= self._bound <= _NORMAL[1]:
            return self, y, noise
        scale = self._bound**-0.5
        return Scaled(self, scale), y * scale, noise * scale

    @property
    def batch_key(self) -> Hashable | None:
        """The domain, the mask and the maps."""
        return self.domain, self.sampling.batch_key, self._given.tobytes()

    def spec(self) -> "SenseSpec":
        """The identity of the mask and the maps."""
        facts = MapFacts(
            kind="simulated" if self.is_simulated else "given",
            coils=self.coils,
            sha256=_digest(self._given),
        )
        return SenseSpec(sampling=self.sampling.spec(), sensitivities=facts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The mask, and the maps as pairs of real numbers (coils, H, W, 2)."""
        return {**self.sampling.arrays(), "sensitivities": _pairs(self._given)}


def _pairs(maps: Maps) -> NDArray[np.float32]:
    return np.ascontiguousarray(maps).view(np.float32).reshape(*maps.shape, 2)


def _digest(maps: Maps) -> str:
    return sha256(_pairs(maps))


class MapFacts(BaseModel):
    """The identity of sensitivity maps; simulated ones can be made again."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["simulated", "given"]
    coils: int = Field(ge=1, le=MOST_COILS)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SenseSpec(OperatorSpec):
    """Which frequencies were measured, with which coils."""

    kind: Literal["sense"] = "sense"
    sampling: FourierSpec
    sensitivities: MapFacts

    def y_shape(self, domain: Domain) -> tuple[int, ...]:
        """(coils, K, 2)."""
        return self.sensitivities.coils, *self.sampling.y_shape(domain)

    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> SenseOperator:
        """The operator with the maps as stored, given, or simulated again.

        Raises:
            InputError: another mask, or other maps, than the recorded ones.
            UsageError: the mask or the maps are neither stored nor given.
        """
        facts, shape = self.sensitivities, (domain[1], domain[2])
        sampling = self.sampling.build((2, *shape), arrays)
        if "sensitivities" in arrays:
            given = arrays["sensitivities"]
            if given.dtype.kind == "f" and given.ndim == 4 and given.shape[3] == 2:  # as stored
                given = np.asarray(given[..., 0] + 1j * given[..., 1])
            maps = as_maps(given, shape)
        elif facts.kind == "simulated":
            maps = simulated(shape, facts.coils)
        else:
            raise UsageError(
                f"was measured with given sensitivity maps (digest {facts.sha256[:12]}…), which "
                "are not stored here. Pass them with --sensitivities FILE."
            )
        if _digest(maps) != facts.sha256:
            raise InputError(
                f"wrong sensitivities: {len(maps)} maps of digest {_digest(maps)[:12]}…, and y was "
                f"measured with {facts.coils} of digest {facts.sha256[:12]}…. Pass the original "
                "ones with --sensitivities FILE."
            )
        return SenseOperator(sampling, maps, domain[0], facts.kind == "simulated")

    @classmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> SenseOperator:
        """An operator with given maps, or with simulated ones."""
        extra, shape = options.fourier or FourierOptions(), (domain[1], domain[2])
        if (extra.coils is None) == (extra.sensitivities is None):
            raise UsageError("several coils need either their number or their sensitivity maps.")
        sampling = FourierSpec.make((2, *shape), options)
        if extra.sensitivities is not None:
            return SenseOperator(sampling, as_maps(extra.sensitivities, shape), domain[0])
        return SenseOperator(sampling, simulated(shape, extra.coils or 0), domain[0], True)
