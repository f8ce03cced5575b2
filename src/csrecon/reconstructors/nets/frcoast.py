"""FR-COAST: COAST with recursion in feature space, computed at half resolution.

With u the pixel-unshuffle by 2 and r = x - ρ∇ the gradient step:
f = head(u([r, 4∇])) + c ⊙ f_previous; three units f ← f + α ⊙ conv(ReLU(conv(f)));
x = r + u⁻¹(tail(f)). f is carried to the next iteration and rotated with the image. All
convolutions are 3×3 with bias; α and c are the two rows of gains.

With two channels the same weights serve complex and real images: for a real one the imaginary part
is zero in what the head gets, and what the tail gives for it is left out. So neither is computed.

Source: R, section 5, names recursion in feature space as future work; the residual units are
COAST's (C, section III).
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle, pixel_unshuffle

from csrecon.reconstructors.base import State
from csrecon.reconstructors.nets.coast import UNITS, ResidualUnit
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.unfolding import ProxBlock

_GRADIENT_SCALE = 4.0  # scales the gradient to the magnitude of the features


class FrcoastBlock(ProxBlock):
    """One FR-COAST layer.

    Args:
        features: of the state.
        channels: 1 for real images, 2 for real and complex ones.
    """

    sites = 2
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

    def begin(self, x: Tensor) -> State:
        """x⁰ and zero features."""
        height, width = (side // self.stride for side in x.shape[-2:])
        return State(x, x.new_zeros(x.shape[0], self.features, height, width))

    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """One iteration on image and features; there is no penalty."""
        assert state.features is not None
        r = self.descend(state, gradient)
        inputs = torch.stack([r, _GRADIENT_SCALE * gradient], dim=2).flatten(1, 2)
        planes = pixel_unshuffle(inputs, self.stride)
        f = _first(self.head, planes, self.features)
        f = f + gain[1].to(f.dtype).view(-1, 1, 1) * state.features.to(f.dtype)
        for unit in self.residual:
            f = unit(f, gain[0])
        image = r + pixel_shuffle(_first(self.tail, f, planes.shape[1] // 2), self.stride)
        return State(image, f), r.new_zeros(())


def _first(conv: nn.Conv2d, x: Tensor, outputs: int) -> Tensor:
    """A 3×3 convolution with the kernels of its first inputs, those in x, and first outputs."""
    bias = conv.bias
    assert bias is not None
    return conv2d(x, conv.weight[:outputs, : x.shape[1]], bias[:outputs], padding=1)
