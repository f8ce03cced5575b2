"""ISTA-Net+ and RISTA-Net+: a learned sparsifying transform with soft thresholding.

x_D = D(r); s = soft(F(x_D), θ); x = r + G(F̃(s)), with F and F̃ two 3×3 convolutions around a
ReLU and no biases. The symmetry penalty ‖F̃(F(x_D)) - x_D‖² asks F̃ to undo F. The recursive form
multiplies the features after D and before G by the gains of two RFMUs that all layers share.

Source: I, section 4; R, section 3.2.
"""

from typing import Literal

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
    Schedule,
    Unfolding,
)
from csrecon.starts import LinearStart, MarkovStart, StartMatrix

_SITES = 2  # after the first convolution, before the last
_THRESHOLD = 0.01


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class IstaNetPlusBlock(ProxBlock):
    """One ISTA-Net+ layer."""

    reach = 6

    def __init__(self, features: int) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(_THRESHOLD))
        self.head = _conv(1, features)
        self.analysis = nn.ModuleList([_conv(features, features), _conv(features, features)])
        self.synthesis = nn.ModuleList([_conv(features, features), _conv(features, features)])
        self.tail = _conv(features, 1)

    @staticmethod
    def _transform(pair: nn.ModuleList, h: Tensor) -> Tensor:
        out: Tensor = pair[1](relu(pair[0](h), inplace=True))
        return out

    def prox(self, r: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 1, H, W) and gains (2, F) -> images and the symmetry penalty.

        The gains are folded into the weights of the first and the last convolution.
        """
        after_head = gain[0].view(-1, 1, 1, 1) * self.head.weight
        before_tail = gain[1].view(1, -1, 1, 1) * self.tail.weight
        features = conv2d(r, after_head, padding=1)
        code = self._transform(self.analysis, features)
        sparse = torch.sign(code) * relu(code.abs() - self.threshold)
        image = r + conv2d(self._transform(self.synthesis, sparse), before_tail, padding=1)
        if not (self.training and self.penalised):
            return image, r.new_zeros(())
        asymmetry = self._transform(self.synthesis, code) - features
        return image, asymmetry.square().mean()

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (2, F) into the first and the last convolution."""
        with torch.no_grad():
            self.head.weight.mul_(gain[0].view(-1, 1, 1, 1))
            self.tail.weight.mul_(gain[1].view(1, -1, 1, 1))


def ista_net_plus(
    schedule: Schedule,
    limits: Limits | None = None,
    *,
    features: Count = 32,
    modulation: Literal["none", "rfmu"] = "none",
    max_steps: Count | None = None,
    start: StartMatrix | Literal["markov"] | None = None,
    blockwise: bool = True,
    projection: bool = False,
    turning: bool = False,
) -> Unfolding:
    """Build ISTA-Net+ (`modulation="none"`) or RISTA-Net+ (`"rfmu"`).

    Args:
        schedule: one count a layer.
        limits: what the weights were trained for.
        features: channels of the transform.
        modulation: where the gains come from.
        max_steps: R_max of the RFMUs; None for the sum of the schedule's counts.
        start: the Φ that the weights' start matrix Q belongs to, or `markov` for the best linear
            estimate with any Φ; None starts from Φᵀy.
        blockwise: every block is an image of its own, as published.
        projection: end with a projection onto the measurements.
        turning: every iteration of a layer sees the image in another orientation.
    """
    units: Modulation = (
        RFMU(features, max_steps or sum(schedule.counts), _SITES, level_scale=None)
        if modulation == "rfmu"
        else NoModulation(features, _SITES)
    )
    blocks = [IstaNetPlusBlock(features) for _ in schedule.counts]
    first: nn.Module | None = None
    if start is not None:
        first = MarkovStart() if start == "markov" else LinearStart(start)
    return Unfolding(
        blocks,
        schedule,
        units,
        limits,
        first,
        blockwise=blockwise,
        projection=projection,
        turning=turning,
    )
