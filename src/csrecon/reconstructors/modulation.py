"""Modulation: gains α of an iteration, conditioned on measurement and place in the recursion.

A modulation does not depend on the image. Its gains multiply features of a block at one or more
sites.

Source: C (You et al. 2021), section III-C; R (Alhejaili et al. 2023), section 3.2.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from csrecon.reconstructors.schedule import Count, Visit
from csrecon.sensing.measurement import Condition

_Finite = Annotated[float, Field(allow_inf_nan=False)]


class Modulation(nn.Module, ABC):
    """Makes the gains α of an iteration, (sites, features): one row per site in the block.

    Attributes:
        most_noise: the largest noise σ that it tells apart from larger ones.
    """

    most_noise = math.inf

    @abstractmethod
    def forward(self, condition: Condition, visit: Visit) -> Tensor:
        """Gains for a measurement of this condition at this place in the recursion."""


class NoModulation(Modulation):
    """Gains that are all 1."""

    ones: Tensor

    def __init__(self, features: Count, sites: Count = 1) -> None:
        super().__init__()
        self.register_buffer("ones", torch.ones(sites, features), persistent=False)

    def forward(self, condition: Condition, visit: Visit) -> Tensor:
        """Return ones."""
        return self.ones


class RatioGain(Modulation):
    """COAST's modulation: Linear(1 → features) of the ratio m/n, shared by all blocks.

    Source: C, section III-C.
    """

    def __init__(self, features: Count, sites: Count = 1) -> None:
        super().__init__()
        self.sites = sites
        self.linear = nn.Linear(1, sites * features)

    def forward(self, condition: Condition, visit: Visit) -> Tensor:
        """Gains from the ratio alone."""
        gains: Tensor = self.linear(self.linear.weight.new_tensor([[condition.ratio]]))
        return gains.view(self.sites, -1)


class RFMU(Modulation):
    """Recursion feature modulation unit: Linear, ReLU, Linear of z, shared by all blocks.

    z = (level_scale · ratio, R_tot / max_steps, R_cur / max_steps, noise_scale · σ); without
    `level_scale` the ratio is left out, as in RISTA-Net+, and without `noise_scale` the noise, as
    in both networks of the paper. Without `total` R_tot is left out: in the order `looped` the
    iterations of IPL k are then the first ones of IPL k+1.

    Args:
        features: gains per site.
        max_steps: R_max, layers × IPL that the network is trained for.
        sites: places in a block, each with its own unit.
        level_scale: factor on the ratio (2 for ratios up to 1/2), or None.
        noise_scale: factor on the standard deviation of the noise on y, the product clamped to 1;
            or None.
        initial: approximate initial gains; None for PyTorch's initialization.
        total: whether z contains R_tot.

    Source: R, section 3.2.
    """

    def __init__(
        self,
        features: Count,
        max_steps: Count,
        sites: Count = 1,
        level_scale: _Finite | None = 2.0,
        noise_scale: _Finite | None = None,
        initial: _Finite | None = None,
        total: bool = True,
    ) -> None:
        super().__init__()
        self.max_steps = max_steps
        self.level_scale = level_scale
        self.noise_scale = noise_scale
        if noise_scale:
            self.most_noise = 1 / noise_scale
        self.total = total
        inputs = 1 + total + (level_scale is not None) + (noise_scale is not None)
        self.units = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, features), nn.ReLU(), nn.Linear(features, features))
            for _ in range(sites)
        )
        if initial is not None:
            for name, parameter in self.units.named_parameters():
                if name.endswith("2.bias"):
                    nn.init.constant_(parameter, initial)

    def forward(self, condition: Condition, visit: Visit) -> Tensor:
        """Gains from the ratio, the noise and the place in the recursion."""
        z = [visit.r_tot / self.max_steps] if self.total else []
        z.append(visit.r_cur / self.max_steps)
        if self.level_scale is not None:
            z.insert(0, self.level_scale * condition.ratio)
        if self.noise_scale is not None:
            z.append(min(1.0, self.noise_scale * condition.noise))  # clamped to the trained range
        inputs = next(self.parameters()).new_tensor(z)
        return torch.stack([unit(inputs) for unit in self.units])


MODULATIONS: dict[str, type[Modulation]] = {
    "none": NoModulation,
    "ratio": RatioGain,
    "rfmu": RFMU,
}
"""Name -> modulation; each takes (features, sites) and its own options."""
