"""FR-COAST: COAST with recursion in feature space, computed at half resolution.

With u the pixel-unshuffle by 2: lift(z) = head(u(z)); refine(f) is three units
f ← f + α ⊙ conv(ReLU(conv(f))); project(f) = u⁻¹(tail(f)). All convolutions are 3×3 with bias.

With two channels the same weights serve complex and real images: for a real one the imaginary part
is zero in what the head gets, and what the tail gives for it is left out. So neither is computed.

Source: R, section 5; the residual units are COAST's (C, section III).
"""

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

from csrecon.reconstructors.nets.coast import UNITS, ResidualUnit
from csrecon.reconstructors.nets.recurrent import RecurrentBlock
from csrecon.reconstructors.schedule import Count


class FrcoastBlock(RecurrentBlock):
    """One FR-COAST layer.

    Args:
        features: of the state.
        channels: 1 for real images, 2 for real and complex ones.
    """

    stride = 2
    reach = stride * (2 + 2 * UNITS)

    def __init__(self, features: Count = 32, channels: Literal[1, 2] = 1) -> None:
        super().__init__()
        self.features = features
        self.channels = channels
        planes = self.stride**2 * channels
        self.head = nn.Conv2d(2 * planes, features, 3, padding=1)
        self.residual = nn.ModuleList(ResidualUnit(features) for _ in range(UNITS))
        self.tail = nn.Conv2d(features, planes, 3, padding=1)

    def lift(self, inputs: Tensor) -> Tensor:
        """Features at half resolution."""
        return _first(self.head, pixel_unshuffle(inputs, self.stride), self.features)

    def refine(self, f: Tensor, gain: Tensor) -> Tensor:
        """The residual units."""
        for unit in self.residual:
            f = unit(f, gain)
        return f

    def project(self, f: Tensor, channels: int) -> Tensor:
        """The change of the image."""
        return pixel_shuffle(_first(self.tail, f, self.stride**2 * channels), self.stride)


def _first(conv: nn.Conv2d, x: Tensor, outputs: int) -> Tensor:
    """A 3×3 convolution with the kernels of its first inputs, those in x, and first outputs."""
    bias = conv.bias
    assert bias is not None
    return conv2d(x, conv.weight[:outputs, : x.shape[1]], bias[:outputs], padding=1)
