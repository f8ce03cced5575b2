"""ISTA-Net+ and RISTA-Net+: a learned sparsifying transform with soft thresholding.

x_D = D(r); s = soft(F(x_D), θ); x = r + G(F̃(s)), with F and F̃ two 3×3 convolutions around a
ReLU and no biases. The symmetry penalty ‖F̃(F(x_D)) - x_D‖² makes F̃ invert F. The recursive form
multiplies the features after D and before G by the gains of two RFMUs that all layers share.

A threshold learned without a constraint becomes negative, and soft thresholding then jumps by 2|θ|
at 0: rounding errors become gray levels. With `nonnegative` the threshold is |θ|, and the block is
continuous. The authors' weights and their training do without.

Source: I, section 4; R, section 3.2.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from csrecon.reconstructors.base import State
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.unfolding import ProxBlock

_THRESHOLD = 0.01


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)


class IstaNetPlusBlock(ProxBlock):
    """One ISTA-Net+ layer.

    Args:
        features: of the transform.
        nonnegative: the threshold is |θ| instead of θ.
    """

    sites = 2  # after the first convolution, before the last
    reach = 6

    def __init__(self, features: Count = 32, nonnegative: bool = False) -> None:
        super().__init__()
        self.nonnegative = nonnegative
        self.threshold = nn.Parameter(torch.tensor(_THRESHOLD))
        self.head = _conv(1, features)
        self.analysis = nn.ModuleList([_conv(features, features), _conv(features, features)])
        self.synthesis = nn.ModuleList([_conv(features, features), _conv(features, features)])
        self.tail = _conv(features, 1)

    @staticmethod
    def _transform(pair: nn.ModuleList, h: Tensor) -> Tensor:
        out: Tensor = pair[1](relu(pair[0](h), inplace=True))
        return out

    def shrunk(self, code: Tensor) -> Tensor:
        """Soft thresholding of coefficients of any shape."""
        threshold = self.threshold.abs() if self.nonnegative else self.threshold
        return torch.sign(code) * relu(code.abs() - threshold)

    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """One iteration with gains (2, F), and the symmetry penalty.

        The gains are folded into the weights of the first and the last convolution.
        """
        r = self.descend(state, gradient)
        after_head = gain[0].view(-1, 1, 1, 1) * self.head.weight
        before_tail = gain[1].view(1, -1, 1, 1) * self.tail.weight
        features = conv2d(r, after_head, padding=1)
        code = self._transform(self.analysis, features)
        decoded = self._transform(self.synthesis, self.shrunk(code))
        image = r + conv2d(decoded, before_tail, padding=1)
        if not (self.training and self.penalised):
            return State(image), r.new_zeros(())
        asymmetry = self._transform(self.synthesis, code) - features
        return State(image), asymmetry.square().mean()

    def fold(self, gain: Tensor) -> None:
        """Multiply gains (2, F) into the first and the last convolution."""
        with torch.no_grad():
            self.head.weight.mul_(gain[0].view(-1, 1, 1, 1))
            self.tail.weight.mul_(gain[1].view(1, -1, 1, 1))
