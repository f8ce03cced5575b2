"""The contract of every operator A of y = A x: linear, with an exact adjoint.

Everything is real: a complex image is two channels (real, imaginary), and complex data carry a last
axis of two. `<A x, y> = <x, Aᵀ y>` holds on these real tensors.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from csrecon.errors import InputError, UsageError

Domain = tuple[int, int, int]
"""C, H, W of one image: one channel for gray, two for complex."""

MOST_PIXELS = 2**22
"""The largest image, in pixels, that may be described by any number of values."""

MOST_PIXELS_PER_VALUE = 2**12
"""Of a larger image: the most pixels per measured value."""

_POWER_STEPS = 30


def check_extent(pixels: int, values: int) -> None:
    """Refuse an image of far more pixels than its values can describe, before memory is allocated.

    Args:
        pixels: of one plane, with the padding of its blocks.
        values: measured values of the plane.

    Raises:
        InputError: more than MOST_PIXELS, and more than MOST_PIXELS_PER_VALUE for each value.
    """
    if pixels > max(MOST_PIXELS, MOST_PIXELS_PER_VALUE * values):
        raise InputError(
            f"{values} values for {pixels} pixels: expected at least one value per "
            f"{MOST_PIXELS_PER_VALUE} pixels of an image of more than {MOST_PIXELS} pixels. Check "
            "the image size, the blocks and the ratio."
        )


@dataclass(frozen=True, eq=False)
class FourierOptions:
    """Further options of Fourier sampling.

    Attributes:
        center: what a mask always has at the lowest frequencies (see masks.draw).
        coils: number of simulated coils round the field of view; None for a single channel of
            constant sensitivity.
        sensitivities: given maps (coils, H, W), complex, instead.
    """

    center: float | None = None
    coils: int | None = None
    sensitivities: NDArray[Any] | None = None


@dataclass(frozen=True)
class SamplingOptions:
    """How to measure; the kind of operator determines which options apply.

    Attributes:
        kind: kind of operator, or kind of Φ for block sampling.
        ratio: m/n in (0, 1].
        m: measurements per block, instead of a ratio.
        phi: a given Φ (m, n).
        mask: which frequencies are measured, (H, W) or the name of a kind of mask.
        seed: of everything that is drawn at random.
        block: (bh, bw) in pixels.
        fourier: further options of Fourier sampling.
    """

    kind: str = "gaussian"
    ratio: float | None = None
    m: int | None = None
    phi: Any = None
    mask: NDArray[Any] | str | None = None
    seed: int = 0
    block: tuple[int, int] | None = None
    fourier: FourierOptions | None = None

    def refuse(self, *names: str) -> None:
        """Raise UsageError for options that this kind of operator does not take."""
        given = [name for name in names if getattr(self, name) is not None]
        if given:
            raise UsageError(f"kind {self.kind!r} takes no {' and no '.join(given)}: leave it out.")


class OperatorSpec(BaseModel, ABC):
    """The serialized form of an operator: the operator part of a measurement file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    @abstractmethod
    def y_shape(self, domain: Domain) -> tuple[int, ...]:
        """The y_shape of the operator that `build` makes, computed without making it.

        Raises:
            InputError: numbers that contradict each other.
        """

    def pixels(self, domain: Domain) -> int:
        """Pixels of one image as the operator sees it: with the padding of its blocks."""
        return domain[1] * domain[2]

    def check(self, domain: Domain, shape: tuple[int, ...]) -> None:
        """Compare the shape of y, planes first, with the spec before anything is built.

        Raises:
            InputError: another shape than the spec's, or an image far too large for these values.
        """
        expected = self.y_shape(domain)
        if tuple(shape[1:]) != expected:
            raise InputError(
                f"y of shape {tuple(shape)} does not fit the operator: an image of "
                f"{domain[1:]} measured with it has shape (C, {', '.join(map(str, expected))})."
            )
        check_extent(self.pixels(domain), math.prod(expected))

    @abstractmethod
    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> "LinearOperator":
        """The operator for images of this domain.

        Args:
            domain: C, H, W.
            arrays: stored beside the spec or given by the user, by name.

        Raises:
            InputError: arrays that do not match the spec.
            UsageError: a missing array.
        """

    @classmethod
    @abstractmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> "LinearOperator":
        """A new operator of this kind.

        Raises:
            UsageError: options that are missing, not applicable, or out of range.
        """


class LinearOperator(nn.Module, ABC):
    """A linear map from images (B, C, H, W) to measurements (B, *y_shape).

    Measuring and its adjoint run in the precision of their input, also under autocast.

    Attributes:
        domain: C, H, W of one image.
        complex_data: whether y holds complex numbers, as a last axis of two.
    """

    complex_data = False

    def __init__(self, domain: Domain) -> None:
        super().__init__()
        self.domain = domain

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.domain[1], self.domain[2]

    @property
    @abstractmethod
    def ratio(self) -> float:
        """The true m/n of one block or image, in (0, 1]."""

    @property
    @abstractmethod
    def y_shape(self) -> tuple[int, ...]:
        """The shape of one image's measurements, without the batch."""

    @property
    @abstractmethod
    def tight(self) -> bool:
        """Whether A Aᵀ = I: then Aᵀy solves A x = y, and the gradient there is zero.

        Of blocks that is meant before the image is cropped, as the papers take it.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Measure images (B, C, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Aᵀ: measurements -> (B, C, H, W)."""

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y) of ½‖A x - y‖², (B, C, H, W)."""
        return self.adjoint(self(x) - y)

    def normalized(self, y: Tensor, noise: float) -> tuple["LinearOperator", Tensor, float]:
        """The equivalent problem with ‖A‖ ≤ 1: operator, y, and the noise on that y.

        The default divides A by its norm, estimated by the power method. Operators with a better
        normalization override this.
        """
        draw = torch.Generator().manual_seed(0)
        x = torch.randn((1, *self.domain), generator=draw).to(y)
        norm = 0.0
        for _ in range(_POWER_STEPS):
            x = self.adjoint(self(x))
            norm = float(x.norm())
            if norm == 0:
                raise UsageError("the operator is zero: there is nothing to reconstruct from.")
            x = x / norm
        scale = 1 / norm**0.5
        return Scaled(self, scale), y * scale, noise * scale

    def observed(self) -> Tensor | None:
        """Mask of the observed pixels, (H, W) bool on the CPU; None if all are observed."""
        return None

    def absolute(self) -> "LinearOperator":
        """|A|, entry by entry: the light that each measurement collects.

        Raises:
            UsageError: an operator without a photon model.
        """
        raise UsageError(
            f"{type(self).__name__} counts no photons: leave out --photons, or use block sampling."
        )

    def spec(self) -> OperatorSpec:
        """The serialized form of this operator.

        Raises:
            UsageError: it has no file format.
        """
        raise UsageError(f"{type(self).__name__} measurements have no file format.")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that a .npz stores beside the spec, by name."""
        return {}

    @property
    def batch_key(self) -> Hashable | None:
        """The batch key: equal for operators whose measurements may be stacked; None if not."""
        return None


class Derived(LinearOperator):
    """An operator made from another, with images and data of the same shapes."""

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(operator.domain)
        self.operator = operator
        self.complex_data = operator.complex_data

    @property
    def ratio(self) -> float:
        """The ratio of the operator."""
        return self.operator.ratio

    @property
    def y_shape(self) -> tuple[int, ...]:
        """The y_shape of the operator."""
        return self.operator.y_shape

    @property
    def tight(self) -> bool:
        """False: not known to be tight."""
        return False

    def observed(self) -> Tensor | None:
        """The observed pixels of the operator."""
        return self.operator.observed()


class Scaled(Derived):
    """An operator times a scalar."""

    def __init__(self, operator: LinearOperator, scale: float) -> None:
        super().__init__(operator)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Measure, times the scale."""
        y: Tensor = self.operator(x)
        return self.scale * y

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᵀ y, times the scale."""
        return self.scale * self.operator.adjoint(y)

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Unchanged: the scale was chosen for ‖A‖ = 1."""
        return self, y, noise


@runtime_checkable
class Blocks(Protocol):
    """The additional interface of operators that measure an image block by block."""

    def split(self, y: Tensor) -> tuple[Self, Tensor]:
        """The same problem with every block as a separate image, in the batch dimension."""

    def join(self, x: Tensor) -> Tensor:
        """Assemble the block images of `split` to images (B, C, H, W)."""
