"""The identity operator: y = x plus noise, so that reconstruction is denoising."""

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
        """True."""
        return True

    def forward(self, x: Tensor) -> Tensor:
        """A copy of x."""
        return x.clone()

    def adjoint(self, y: Tensor) -> Tensor:
        """A copy of y."""
        return y.clone()

    def normalized(self, y: Tensor, noise: float) -> tuple[LinearOperator, Tensor, float]:
        """Unchanged: ‖I‖ = 1."""
        return self, y, noise

    def absolute(self) -> LinearOperator:
        """The identity, |I| = I."""
        return self

    @property
    def batch_key(self) -> Hashable | None:
        """Its name and the domain."""
        return "identity", self.domain

    def spec(self) -> "IdentitySpec":
        """The spec, which has no parameters."""
        return IdentitySpec()


class IdentitySpec(OperatorSpec):
    """The identity, which has no parameters."""

    kind: Literal["identity"] = "identity"

    def y_shape(self, domain: Domain) -> tuple[int, ...]:
        """(C, H, W)."""
        return domain

    def build(self, domain: Domain, arrays: Mapping[str, NDArray[Any]]) -> IdentityOperator:
        """The identity on this domain."""
        return IdentityOperator(domain)

    @classmethod
    def make(cls, domain: Domain, options: SamplingOptions) -> IdentityOperator:
        """The identity; the only option it accepts is a ratio of 1."""
        if options.ratio != 1:
            options.refuse("ratio")
        options.refuse("m", "phi", "mask", "block", "fourier")
        return IdentityOperator(domain)
