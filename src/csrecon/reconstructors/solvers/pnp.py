"""Plug-and-play: a denoiser D takes the place of the proximal operator of a penalty.

`pg` is the accelerated proximal gradient step x ← D(v - Aᵀ(A v - y), σ). `hqs` (half-quadratic
splitting) and `admm` alternate

v = argmin_v ‖A v - y‖²/σ_y² + ‖v - (x - u)‖²/σ²,    x = D(v + u, σ),    u ← u + v - x,

with u = 0 in `hqs` and σ_y the noise on y. With μ = σ_y²/σ² and w = x - u the first is
v = w + Aᵀ(AAᵀ + μ)⁻¹(y - A w): closed for AAᵀ = I, else by conjugate gradients. Without noise and
with AAᵀ = I, `hqs` is `pg` without acceleration. σ falls geometrically from iteration to iteration,
to no less than σ_y; x begins as the linear estimate of `MarkovStart`. What is shown of an iterate
is Measurement.consistent(x); its facts are those of x.

D changes its input by at most σ in the root mean square, which is the noise that it is to remove.
So the iterates come to rest as σ falls, also with a denoiser that is inaccurate at small σ.

Source: Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013 (ADMM); Zhang et al., IEEE TPAMI 2022
(HQS, and σ falling over few iterations); Chan, Wang and Elgendy, IEEE TCI 2017 (bounded denoisers);
Kamilov et al., IEEE SPM 2023 (a survey).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers.denoise import NoiseLevel, Prior
from csrecon.reconstructors.solvers.frame import Iterate, Tolerance
from csrecon.reconstructors.solvers.proximal import facts, falling, proximal_gradient
from csrecon.reconstructors.starts import MarkovStart, conjugate_gradients
from csrecon.sensing.measurement import Measurement

_JITTER = 1e-4  # least μ of an operator whose AAᵀ may be singular


@dataclass(frozen=True)
class PlugAndPlay(Prior):
    """The solver: `iterations` steps with the σ of the denoiser from `first` to `last`.

    The defaults were chosen with `wavelet` on two images of BSD400, noiseless, at ratios 0.1, 0.25
    and 0.5.
    """

    method: Literal["admm", "hqs", "pg"] = "admm"
    iterations: Count = 20
    first: NoiseLevel = 0.2
    last: NoiseLevel = 0.02
    tolerance: Tolerance = 0.0

    def most(self, m: Measurement) -> int:
        """The iterations asked for."""
        return self.iterations

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The images after every application of the denoiser, made consistent with y."""
        with torch.autocast(m.y.device.type, enabled=False):
            x = MarkovStart()(m)[0] if start is None else start
        lowest = max(self.last, m.noise)
        sigmas = falling(max(self.first, lowest), lowest, self.iterations)
        steps = self._proximal if self.method == "pg" else self._split
        for made in steps(m, x, sigmas):
            yield replace(made, image=m.consistent(made.image))

    def _proximal(self, m: Measurement, x: Tensor, sigmas: list[float]) -> Iterator[Iterate]:
        def prox(v: Tensor, sigma: float) -> tuple[Tensor, None]:
            return self._bounded(v, sigma), None

        return proximal_gradient(m, prox, sigmas, start=x)

    def _split(self, m: Measurement, x: Tensor, sigmas: list[float]) -> Iterator[Iterate]:
        u = torch.zeros_like(x)
        for index, sigma in enumerate(sigmas):
            v = fitted(m, x - u, (m.noise / sigma) ** 2)
            x = self._bounded(v + u, sigma)
            if self.method == "admm":
                u = u + v - x
            settled = sigmas[max(0, index - 1)] == sigma == sigmas[-1]
            yield Iterate(x, facts(m.operator(x) - m.y, sigma, None), settled)

    def _bounded(self, v: Tensor, sigma: float) -> Tensor:
        """D(v, σ), at most σ away from v in the root mean square of every image."""
        change = self.with_(v, sigma) - v
        rms = change.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return v + change * (sigma / rms.clamp(min=sigma))


def fitted(m: Measurement, w: Tensor, mu: float) -> Tensor:
    """w + Aᵀ(AAᵀ + μ)⁻¹(y - A w)."""
    misfit = m.y - m.operator(w)
    if m.operator.tight:
        return w + m.operator.adjoint(misfit) / (1 + mu)
    least = max(mu, _JITTER)

    def system(u: Tensor) -> Tensor:
        seen: Tensor = m.operator(m.operator.adjoint(u))
        return seen + least * u

    return w + m.operator.adjoint(conjugate_gradients(system, lambda u: u, misfit))
