"""COAST and R-COAST: a residual proximal network on the whole image.

head conv 1→F; three units h ← h + α ⊙ conv(ReLU(conv(h))); tail conv F→1; plus r. All 3×3 with
bias. COAST takes α from the ratio (RatioGain), R-COAST from the place in the recursion (RFMU).

Source: C, section III; R, section 3.2.
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from csrecon.recursion import (
    RFMU,
    Count,
    Limits,
    Modulation,
    NoModulation,
    ProxBlock,
    RatioGain,
    Schedule,
    Unfolding,
)

_UNITS = 3


class ResidualUnit(nn.Module):
    """h + α ⊙ conv2(ReLU(conv1(h))), the gain folded into the weights of conv2."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, h: Tensor, gain: Tensor) -> Tensor:
        """Features (B, F, H, W) and gains (F,) -> features."""
        weight = gain.view(-1, 1, 1, 1) * self.conv2.weight
        assert self.conv2.bias is not None
        return h + conv2d(
            relu(self.conv1(h), inplace=True), weight, gain * self.conv2.bias, padding=1
        )


class CoastBlock(ProxBlock):
    """One COAST layer."""

    reach = 2 + 2 * _UNITS

    def __init__(self, features: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, features, 3, padding=1)
        self.residual = nn.ModuleList(ResidualUnit(features) for _ in range(_UNITS))
        self.tail = nn.Conv2d(features, 1, 3, padding=1)

    def prox(self, r: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W) and gains (1, F) -> images; there is no penalty."""
        h = self.head(r)
        for unit in self.residual:
            h = unit(h, gain[0])
        return r + self.tail(h), r.new_zeros(())

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (1, F) into the second convolution of every unit."""
        with torch.no_grad():
            for name, parameter in self.residual.named_parameters():
                if ".conv2." in name:
                    parameter.mul_(gain[0].view(-1, *[1] * (parameter.ndim - 1)))


def coast(
    schedule: Schedule,
    limits: Limits | None = None,
    *,
    features: Count = 32,
    modulation: Literal["ratio", "rfmu", "none"] = "ratio",
    max_steps: Count | None = None,
    noise_scale: float | None = None,
    projection: bool = False,
    halved_after: Count | None = None,
    turning: bool = False,
) -> Unfolding:
    """Build COAST (`modulation="ratio"`) or R-COAST (`"rfmu"`).

    Args:
        schedule: one count a layer.
        limits: what the weights were trained for.
        features: channels of the proximal network.
        modulation: where the gains come from.
        max_steps: R_max of the RFMU; None for the sum of the schedule's counts.
        noise_scale: the RFMU also hears the noise on y, times this; None for a network that
            does not.
        projection: end with a projection onto the measurements.
        halved_after: iterations of a layer after which its updates are halved.
        turning: every iteration of a layer sees the image in another orientation.
    """
    units: Modulation
    if modulation == "rfmu":
        units = RFMU(features, max_steps or sum(schedule.counts), noise_scale=noise_scale)
    else:
        units = RatioGain(features) if modulation == "ratio" else NoModulation(features)
    blocks = [CoastBlock(features) for _ in schedule.counts]
    return Unfolding(
        cast(list[ProxBlock], blocks),
        schedule,
        units,
        limits,
        projection=projection,
        halved_after=halved_after,
        turning=turning,
    )
