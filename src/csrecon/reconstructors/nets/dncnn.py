"""DnCNN: a plain residual network that denoises one noise level.

x = r - D(r), where D has `layers` convolutions of 3x3 with bias and a ReLU after each but the last.
Its batch normalization is merged into the convolutions, as in the published weights. It takes no
gradient step, so it has no step length.

Source: Zhang, Zuo, Chen, Meng and Zhang, IEEE TIP 2017 (DnCNN-S).
"""

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import relu

from csrecon.reconstructors.base import State
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.unfolding import ProxBlock


class DncnnBlock(ProxBlock):
    """The network.

    Args:
        features: of every layer but the last.
        layers: number of convolutions.
        noise: the standard deviation of the noise of its training, for images in [0, 1].
    """

    def __init__(
        self,
        features: Count = 64,
        layers: Annotated[int, Field(ge=2, le=64)] = 17,
        noise: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 25 / 255,
    ) -> None:
        super().__init__()
        self.register_parameter("rho", None)
        self.noise = noise
        self.reach = layers
        widths = [1, *[features] * (layers - 1), 1]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in pairwise(widths)
        )

    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """The image without noise; gains and gradient are not used, and there is no penalty."""
        h = state.image
        for conv in self.convs[:-1]:
            h = relu(conv(h), inplace=True)
        return State(state.image - self.convs[-1](h)), h.new_zeros(())
