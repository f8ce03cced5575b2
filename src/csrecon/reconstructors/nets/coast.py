"""COAST and R-COAST: a residual proximal network on the whole image.

head conv 1→F; three units h ← h + α ⊙ conv(ReLU(conv(h))); tail conv F→1; plus r. All 3×3 with
bias. α is conditioned on the ratio in COAST (RatioGain), on ratio and place in the recursion in
R-COAST (RFMU).

Source: C, section III; R, section 3.2.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from csrecon.reconstructors.base import State
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.unfolding import ProxBlock

UNITS = 3
"""Residual units of a layer."""


class ResidualUnit(nn.Module):
    """h + α ⊙ conv2(ReLU(conv1(h))), the gain folded into the weights of conv2.

    Args:
        features: of h.
        hidden: those between the convolutions, if there are others.
    """

    def __init__(self, features: int, hidden: int | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, hidden or features, 3, padding=1)
        self.conv2 = nn.Conv2d(hidden or features, features, 3, padding=1)

    def change(self, h: Tensor, gain: Tensor) -> Tensor:
        """What is added to features (B, F, H, W), with gains (F,)."""
        weight = gain.view(-1, 1, 1, 1) * self.conv2.weight
        assert self.conv2.bias is not None
        return conv2d(relu(self.conv1(h), inplace=True), weight, gain * self.conv2.bias, padding=1)

    def forward(self, h: Tensor, gain: Tensor) -> Tensor:
        """Features (B, F, H, W) and gains (F,) -> features."""
        return h + self.change(h, gain)


class CoastBlock(ProxBlock):
    """One COAST layer."""

    reach = 2 + 2 * UNITS

    def __init__(self, features: Count = 32) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, features, 3, padding=1)
        self.residual = nn.ModuleList(ResidualUnit(features) for _ in range(UNITS))
        self.tail = nn.Conv2d(features, 1, 3, padding=1)

    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """One iteration with gains (1, F); there is no penalty."""
        r = self.descend(state, gradient)
        h = self.head(r)
        for unit in self.residual:
            h = unit(h, gain[0])
        return State(r + self.tail(h)), r.new_zeros(())

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (1, F) into the second convolution of every unit."""
        with torch.no_grad():
            for name, parameter in self.residual.named_parameters():
                if ".conv2." in name:
                    parameter.mul_(gain[0].view(-1, *[1] * (parameter.ndim - 1)))
