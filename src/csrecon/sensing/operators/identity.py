"""The identity: y = x, and the noise on it. Reconstruction is then denoising."""

from collections.abc import Hashable, Mapping
from typing import Any, Literal

from numpy.typing import NDArray
from torch import Tensor

from csrecon.sensing.operators.base import Domain, LinearOperator, OperatorSpec, SamplingOptions


class IdentityOperator(LinearOperator):
    """A = I; y is (B, C, H, W)."""

    @property
    def ratio(self) -> float:
        """1."""
        return 1.0

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.domain

    @property
    def tight(self) -> bool:
        """Always."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """A copy of x."""
        return x.clone()

    def adjoint(self, y: Tensor) -> Tensor:
        """A copy of y."""
        return y.clone()

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Itself: ‖I‖ = 1."""
        return self, y, noise

    def absolute(self) -> LinearOperator:
        """Itself."""
        return self

    @property
    def batch_key(self) -> Hashable | None:
        """The domain."""
        return "identity", self.domain

    def spec(self) -> "IdentitySpec":
        """Nothing but its name."""
        return IdentitySpec()


class IdentitySpec(OperatorSpec):
    """The identity has nothing to say."""

    kind: Literal["identity"] = "identity"

    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> IdentityOperator:
        """The identity on this domain."""
        return IdentityOperator(domain)

    @classmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> IdentityOperator:
        """The identity; it takes no option, but for a ratio of 1."""
        if options.ratio != 1:
            options.refuse("ratio")
        options.refuse("m", "phi", "mask", "block")
        return IdentityOperator(domain)
