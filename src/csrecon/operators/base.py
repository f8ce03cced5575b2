"""The contract of every operator: linear, with an exact adjoint on the true image shape."""

from abc import ABC, abstractmethod
from typing import Self

from torch import Tensor, nn


class LinearOperator(nn.Module, ABC):
    """A linear map from images (B, 1, H, W) to measurements; `<A x, y> = <x, Aᵀ y>` holds.

    Measuring and its adjoint run in the precision of their input, also under autocast.
    """

    def __init__(self, image_shape: tuple[int, int]) -> None:
        super().__init__()
        self.image_shape = image_shape

    @property
    @abstractmethod
    def ratio(self) -> float:
        """The true m/n of one block or image, in (0, 1]."""

    @property
    @abstractmethod
    def y_shape(self) -> tuple[int, ...]:
        """The shape of one image's measurements, without the batch."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Measure images (B, 1, H, W)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Apply Aᵀ, padding included: measurements -> (B, 1, H, W)."""

    @abstractmethod
    def orthonormalized(self, y: Tensor) -> tuple["LinearOperator", Tensor, float]:
        """An operator with orthonormal rows, the y it would have measured (same solutions), and by
        what white noise on y has grown (root mean square)."""

    @abstractmethod
    def per_block(self, y: Tensor) -> tuple[Self, Tensor]:
        """The same problem with every block an image of its own, in the batch dimension."""

    @abstractmethod
    def join_blocks(self, blocks: Tensor) -> Tensor:
        """The images (B, 1, H, W) of the block images that `per_block` made."""

    def seen(self) -> Tensor | None:
        """Which pixels were measured, (H, W) bool on the CPU; None where all were."""
        return None

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Gradient Aᵀ(A x - y) of ½‖A x - y‖², (B, 1, H, W)."""
        return self.adjoint(self(x) - y)
