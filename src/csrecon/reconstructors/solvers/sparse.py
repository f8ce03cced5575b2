"""min_x ½‖Ax - y‖² + λ‖Wx‖₁ with an orthonormal transform W of the whole image.

The proximal operator of λ‖Wx‖₁ is soft thresholding of the coefficients in closed form. What
`ista`, `fista` and `lasso` share: W, and λ, which is by the rule no less than 1.5 σ where the noise
σ is known.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.solvers.frame import Iterate
from csrecon.reconstructors.solvers.proximal import Prox, proximal_gradient
from csrecon.reconstructors.solvers.transforms import (
    Transform,
    dct,
    filters,
    magnitudes,
    soft_threshold,
    wavelet,
)
from csrecon.reconstructors.solvers.weighted import Weighted
from csrecon.sensing.measurement import Measurement

_PER_NOISE = 1.5  # λ per σ; chosen on T91 with the identity at σ 0.1
_STRIDE = 3  # pixels that the grid moves by: prime to the usual periods, so all shifts are visited


def prox_of(transform: Transform, spin: bool) -> Prox:
    """The proximal operator of ‖Wx‖₁; with `spin` the grid of W moves from call to call."""
    moved = 0

    def prox(v: Tensor, strength: float) -> tuple[Tensor, float]:
        nonlocal moved
        if spin:
            moved = (moved + _STRIDE) % transform.period
        code = soft_threshold(transform.forward(v, moved), strength)
        return transform.inverse(code, moved), magnitudes(code)

    return prox


@dataclass(frozen=True)
class Sparse(Weighted):
    """The options that `ista` and `fista` share, besides those of every weighted solver.

    The defaults were chosen on images of T91, noiseless, at ratios 0.1 and 0.4.

    Attributes:
        transform: W.
        size: side of the blocks of the DCT in pixels.
        wavelet: an orthogonal wavelet, by its name in PyWavelets.
        levels: of the wavelet transform.
        spin: whether the grid of W moves from step to step (cycle spinning).
    """

    transform: Literal["dct", "wavelet"] = "dct"
    size: Annotated[int, Field(ge=2, le=64)] = 16
    wavelet: str = "sym4"
    levels: Annotated[int, Field(ge=1, le=16)] = 4
    spin: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown wavelet, or without PyWavelets."""
        if self.transform == "wavelet":
            filters(self.wavelet)

    def rule(self, m: Measurement) -> float:
        """`last`, or 1.5 σ if that is more."""
        return max(self.last, _PER_NOISE * m.noise)

    def chosen(self) -> Transform:
        """The transform W."""
        return dct(self.size) if self.transform == "dct" else wavelet(self.wavelet, self.levels)

    def descend(self, m: Measurement, start: Tensor | None, accelerate: bool) -> Iterator[Iterate]:
        """Proximal gradient steps, with momentum or without."""
        prox = prox_of(self.chosen(), self.spin)
        return proximal_gradient(m, prox, self.strengths(m, start), accelerate, start)
