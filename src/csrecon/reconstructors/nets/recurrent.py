"""Recursion in feature space: what FR-COAST and its variants share.

With the gradient step r = x - ρ∇: f = lift([r, 4∇]) + c ⊙ f_previous; f ← refine(f, α);
x = r + project(f). f is carried to the next iteration and rotated with the image; α and c are the
two rows of gains. A variant differs in lift, refine and project.

Source: R, section 5, names recursion in feature space as future work.
"""

from abc import abstractmethod

import torch
from torch import Tensor

from csrecon.reconstructors.base import State
from csrecon.reconstructors.unfolding import ProxBlock

_GRADIENT_SCALE = 4.0  # scales the gradient to the magnitude of the features


class RecurrentBlock(ProxBlock):
    """A layer that carries features.

    Attributes:
        features: their number.
    """

    sites = 2
    features: int

    @abstractmethod
    def lift(self, inputs: Tensor) -> Tensor:
        """Features of image and gradient in turn of every channel, (B, 2C, H, W)."""

    @abstractmethod
    def refine(self, f: Tensor, gain: Tensor) -> Tensor:
        """Features after features, with gains (F,)."""

    @abstractmethod
    def project(self, f: Tensor, channels: int) -> Tensor:
        """The change of the image, (B, channels, H, W)."""

    def begin(self, x: Tensor) -> State:
        """x⁰ and zero features."""
        height, width = (side // self.scale for side in x.shape[-2:])
        return State(x, x.new_zeros(x.shape[0], self.features, height, width))

    def prox(self, state: State, gradient: Tensor, gain: Tensor) -> tuple[State, Tensor]:
        """One iteration on image and features; there is no penalty."""
        assert state.features is not None
        r = self.descend(state, gradient)
        f = self.lift(torch.stack([r, _GRADIENT_SCALE * gradient], dim=2).flatten(1, 2))
        f = f + gain[1].to(f.dtype).view(-1, 1, 1) * state.features.to(f.dtype)
        f = self.refine(f, gain[0])
        return State(r + self.project(f, r.shape[1]), f), r.new_zeros(())
