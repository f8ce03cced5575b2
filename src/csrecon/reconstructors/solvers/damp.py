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
levels of σ, and every block is interpolated between the two levels around c times its own σ. Of a
few factors c, that with the least Σ ‖x̂ - r‖² + n (2α - 1) σ² over the blocks is taken: the unbiased
estimate of the squared error (SURE), so D may smooth too much or too little at its nominal σ.

Source: Metzler, Maleki and Baraniuk, IEEE Trans. Information Theory 2016 (D-AMP and α); Ma and
Ping, IEEE Access 2017 (orthonormal rows); Xue, Ma and Yuan, IEEE Access 2017 (with denoisers); Guo
and Davies, IEEE Trans. Signal Processing 2015 (SURE in approximate message passing).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any

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
_LEVELS = 8  # at most
_FACTORS = (1.0, 0.8, 0.65)  # c
_TINY = 1e-12  # a σ of nothing


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

    def identity(self) -> dict[str, Any]:
        """The options without the denoiser, and the levels at which it is applied."""
        return {**super().identity(), "levels": [_APART, _LEVELS], "factors": list(_FACTORS)}

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
        delta, least, resting = operator.ratio, math.inf, 0
        for _ in range(self.iterations):
            z = m.y - operator(x)
            r = x + operator.adjoint(z) / delta
            power = (z.square().mean(dim=-1) - m.noise**2).clamp(min=0)
            sigmas = ((1 / delta - 1) * power + m.noise**2 / delta).sqrt()
            b = torch.randn(r.shape, generator=draw).to(r)
            step = _PROBE * float(r.abs().max())
            denoised, slope = self._denoised(r, b, step, sigmas, operator)
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
        self, r: Tensor, b: Tensor, step: float, sigmas: Tensor, operator: BlockOperator
    ) -> tuple[Tensor, Tensor]:
        """D of r, (B, 1, H, W), and its mean derivative in every block, (B, gh, gw).

        Args:
            r: (B, 1, H, W).
            b: the Gaussian probe, (B, 1, H, W), and `step`, by which it is scaled.
            step: ε.
            sigmas: σ of every block, (B, gh, gw).
            operator: of the blocks.
        """
        found = [
            self._plane(r[i : i + 1], b[i : i + 1], step, sigmas[i : i + 1], operator)
            for i in range(len(r))
        ]
        images, slopes = zip(*found, strict=True)
        return torch.cat(images), torch.cat(slopes)

    def _plane(
        self, r: Tensor, b: Tensor, step: float, sigmas: Tensor, operator: BlockOperator
    ) -> tuple[Tensor, Tensor]:
        """`_denoised` of one plane, which has its own levels and its own factor c."""
        levels = _levels(sigmas)
        wanted = sigmas.new_tensor(_FACTORS).view(-1, 1, 1) * sigmas  # (factors, gh, gw)
        below = torch.log(levels[0] / wanted.clamp(min=_TINY)) / math.log(_APART)
        below = below.clamp(0, len(levels) - 1)
        both = torch.cat([r, r + step * b])
        mixed = torch.zeros_like(both).expand(len(_FACTORS), *both.shape).clone()
        for index, level in enumerate(levels):
            weights = _spread((1 - (below - index).abs()).clamp(min=0), operator)
            mixed += weights[:, None] * self.with_(both, level)
        images, probed = mixed.unbind(1)
        pixels = operator.blocks(torch.ones_like(r)).sum(dim=-1)
        slopes = operator.blocks(b * (probed - images)).sum(dim=-1) / (step * pixels)
        moved = operator.blocks((images - r).square()).sum(dim=-1)
        risks = (moved + pixels * (2 * slopes - 1) * sigmas.square()).sum(dim=(1, 2))
        best = int(risks.argmin())
        return images[best : best + 1], slopes[best : best + 1]


def _spread(values: Tensor, operator: BlockOperator) -> Tensor:
    """A value per block, (B, gh, gw), at every pixel of its block, (B, 1, H, W)."""
    return operator.assemble(values[..., None].expand(*values.shape, operator.n))


def _levels(sigmas: Tensor) -> list[float]:
    """Levels of σ that are _APART, from the largest that a factor gives to the smallest."""
    most = max(_FACTORS) * float(sigmas.max())
    least = max(min(_FACTORS) * float(sigmas.min()), most / _APART ** (_LEVELS - 1), _TINY)
    between = math.log(most / least, _APART) if most else 0.0
    return [most / _APART**index for index in range(1 + math.ceil(between - 1e-6))]
