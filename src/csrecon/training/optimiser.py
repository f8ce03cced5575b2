"""What every training shares: the learning-rate curve, one update, and the averaged weights."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def annealed(first: float, last: float, progress: float) -> float:
    """The learning rate of a cosine from `first` to `last` at a progress in [0, 1]."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameters a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """The exponential moving average of a network's weights.

    Args:
        network: its weights of now are the first average.
        decay: of the average. It is smaller early on, so that the average forgets the first
            weights.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._decay = decay
        self.values = {k: v.detach().clone() for k, v in network.state_dict().items()}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Include the weights after `step` finished steps."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for key, value in network.state_dict().items():
            self.values[key].lerp_(value, 1 - decay)

    def load(self, values: Mapping[str, Tensor]) -> None:
        """Continue from the `values` of another."""
        for key, value in values.items():
            self.values[key].copy_(value)
