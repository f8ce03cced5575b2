"""D-AMP: a denoiser in approximate message passing, for random Φ with orthonormal rows.

With δ = m/n, D the denoiser and α its mean derivative,

z = y - A x,    r = x + Aᵀz / δ,    x̂ = D(r, σ),    x ← (x̂ - α r) / (1 - α).

r is the image plus noise that is nearly white and Gaussian, of variance
σ² = (1/δ - 1)(‖z‖²/m - σ_y²) + σ_y²/δ with σ_y the noise on y, because what x̂ and r have in common
is removed from x. For Gaussian Φ with independent entries the same role is played by the Onsager
term z ← y - A x̂ + (α/δ) z of D-AMP; for orthonormal rows, which every normalized block measurement
has, this is the exact form. α = bᵀ(D(r + εb) - D(r)) / (ε n) is estimated with one Gaussian b in
every iteration. x̂ is the result, after Measurement.consistent.

Every block has its own z, and therefore its own σ and α: with one σ for all, the noise of the worst
blocks would be underestimated, and would grow from iteration to iteration. D is applied at a few
levels of σ, and every block is taken from the lowest level that is not below its own σ.

Source: Metzler, Maleki and Baraniuk, IEEE Trans. Information Theory 2016 (D-AMP and α); Ma and
Ping, IEEE Access 2017 (orthonormal rows); Xue, Ma and Yuan, IEEE Access 2017 (with denoisers).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from csrecon.errors import UsageError
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.solvers.denoise import SIGMA, Prior
from csrecon.reconstructors.solvers.frame import RESIDUAL, Iterate
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator

_MEAN = 0.5  # the image before anything is known of it
_PROBE = 1e-3  # ε, as a share of the largest value
_LARGEST = 0.95  # of α: a denoiser that removes nothing has α = 1
_FALLS, _PATIENCE = 0.99, 2  # factor by which σ has to fall, and how often it may not
_APART = 1.5  # factor between two levels of σ
_LEVELS = 6  # at most


@dataclass(frozen=True)
class Damp(Prior):
    """The solver: at most `iterations` steps, until σ no longer falls; `seed` draws b."""

    iterations: Count = 15
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    tolerance = 0.0

    def most(self, m: Measurement) -> int:
        """The iterations asked for.

        Raises:
            UsageError: another operator than block sampling with orthonormal rows.
        """
        if not (isinstance(m.operator, BlockOperator) and m.operator.tight):
            raise UsageError(
                "damp: needs block sampling with a random Φ, and the measurement was made by "
                f"{type(m.operator).__name__}. Use pnp, which takes any operator."
            )
        return self.iterations

    def iterates(self, m: Measurement, start: Tensor | None) -> Iterator[Iterate]:
        """The denoised images, made consistent with y.

        Raises:
            UsageError: a warm start.
        """
        if start is not None:
            raise UsageError(
                "damp has no warm start: its noise level is estimated from what y adds to an image "
                "that does not depend on y. Leave out --init and --init-model."
            )
        operator = m.operator
        assert isinstance(operator, BlockOperator)
        draw = torch.Generator().manual_seed(self.seed)
        x = torch.full((len(m.y), *operator.domain), _MEAN, device=m.y.device)
        pixels = operator.blocks(torch.ones_like(x[:1])).sum(dim=-1)
        delta, least, resting = operator.ratio, math.inf, 0
        for _ in range(self.iterations):
            z = m.y - operator(x)
            r = x + operator.adjoint(z) / delta
            power = (z.square().mean(dim=-1) - m.noise**2).clamp(min=0)
            sigmas = ((1 / delta - 1) * power + m.noise**2 / delta).sqrt()
            b = torch.randn(r.shape, generator=draw).to(r)
            step = _PROBE * float(r.abs().max())
            denoised, probed = self._denoised(r, r + step * b, sigmas, operator)
            slope = operator.blocks(b * (probed - denoised)).sum(dim=-1) / (step * pixels)
            alpha = _spread(slope.clamp(0, _LARGEST), operator)
            x = (denoised - alpha * r) / (1 - alpha)
            misfit = operator(denoised) - m.y
            found = {RESIDUAL: float(misfit.norm()), SIGMA: float(sigmas.max())}
            level = float(sigmas.mean())
            resting = resting + 1 if level > _FALLS * least else 0
            least = min(least, level)
            stopped = "σ no longer falls" if resting == _PATIENCE else ""
            yield Iterate(m.consistent(denoised), found, settled=False, stopped=stopped)

    def _denoised(
        self, r: Tensor, probe: Tensor, sigmas: Tensor, operator: BlockOperator
    ) -> tuple[Tensor, Tensor]:
        """D of r and of the probe, (B, 1, H, W), at the σ of every block, (B, gh, gw)."""
        out = torch.empty_like(r), torch.empty_like(probe)
        for plane, own in enumerate(_spread(sigmas, operator)):
            pair = torch.stack([r[plane], probe[plane]])
            for level in _levels(sigmas[plane]):  # the highest first
                low = own <= level * (1 + 1e-6)
                for to, made in zip(out, self.with_(pair, level), strict=True):
                    to[plane] = torch.where(low, made, to[plane])
        return out


def _spread(values: Tensor, operator: BlockOperator) -> Tensor:
    """A value per block, (B, gh, gw), at every pixel of its block, (B, 1, H, W)."""
    return operator.assemble(values[..., None].expand(*values.shape, operator.n))


def _levels(sigmas: Tensor) -> list[float]:
    """Levels of σ that are _APART, from the largest on."""
    most, least = float(sigmas.max()), float(sigmas.min())
    between = math.log(most / max(least, 1e-9), _APART) if most else 0.0
    return [most / _APART**index for index in range(max(1, min(_LEVELS, math.ceil(between))))]
