"""FR-COAST: COAST with recursion in feature space, computed at half resolution.

With u the pixel-unshuffle by 2: lift(z) = head(u(z)); refine(f) is three units
f ← f + α ⊙ conv(ReLU(conv(f))); project(f) = u⁻¹(tail(f)). All convolutions are 3×3 with bias.

With `context`, a unit at a quarter of the resolution comes first, with d the mean of 2×2 features
and v their repetition: f ← f + α ⊙ v(conv(ReLU(conv(d(f))))). It sees twice as far for a quarter of
the cost.

With two channels the same weights serve complex and real images: for a real one the imaginary part
is zero in what the head gets, and what the tail gives for it is left out. So neither is computed.

Source: R, section 5; the residual units are COAST's (C, section III).
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pixel_shuffle, pixel_unshuffle

from csrecon.reconstructors.nets.coast import UNITS, ResidualUnit
from csrecon.reconstructors.nets.recurrent import RecurrentBlock
from csrecon.reconstructors.schedule import Count

_COARSE = 2  # of the features, in a ContextUnit


class ContextUnit(ResidualUnit):
    """The residual unit at half of the features' resolution. At first it adds nothing.

    Attributes:
        reach: radius of its receptive field in features.
    """

    reach = 2 * _COARSE + _COARSE - 1

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(features, hidden)
        for parameter in self.conv2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, h: Tensor, gain: Tensor) -> Tensor:
        """Features (B, F, H, W) of even sides and gains (F,) -> features."""
        coarse = self.change(avg_pool2d(h, _COARSE), gain)
        return h + interpolate(coarse, scale_factor=_COARSE)


class FrcoastBlock(RecurrentBlock):
    """One FR-COAST layer.

    Args:
        features: of the state.
        channels: 1 for real images, 2 for real and complex ones.
        context: hidden features of the unit at a quarter of the resolution; 0 for none.
    """

    scale = stride = 2
    reach = scale * (2 + 2 * UNITS)

    def __init__(self, features: Count = 32, channels: Literal[1, 2] = 1, context: int = 0) -> None:
        super().__init__()
        self.features = features
        self.channels = channels
        planes = self.scale**2 * channels
        self.head = nn.Conv2d(2 * planes, features, 3, padding=1)
        self.context = ContextUnit(features, context) if context else None
        if self.context is not None:
            self.stride = _COARSE * self.scale
            self.reach += self.scale * ContextUnit.reach
        self.residual = nn.ModuleList(ResidualUnit(features) for _ in range(UNITS))
        self.tail = nn.Conv2d(features, planes, 3, padding=1)

    def lift(self, inputs: Tensor) -> Tensor:
        """Features at half resolution."""
        return _first(self.head, pixel_unshuffle(inputs, self.scale), self.features)

    def refine(self, f: Tensor, gain: Tensor) -> Tensor:
        """The residual units."""
        if self.context is not None:
            f = self.context(f, gain)
        for unit in self.residual:
            f = unit(f, gain)
        return f

    def project(self, f: Tensor, channels: int) -> Tensor:
        """The change of the image."""
        return pixel_shuffle(_first(self.tail, f, self.scale**2 * channels), self.scale)


def _first(conv: nn.Conv2d, x: Tensor, outputs: int) -> Tensor:
    """A 3×3 convolution with the kernels of its first inputs, those in x, and first outputs."""
    bias = conv.bias
    assert bias is not None
    return conv2d(x, conv.weight[:outputs, : x.shape[1]], bias[:outputs], padding=1)
