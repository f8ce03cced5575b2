"""Muon: momentum whose matrices are orthogonalized, for the kernels of convolutions.

The momentum M of a kernel, as a matrix of outputs by (inputs × kernel area), is replaced by the
nearest semi-orthogonal matrix UVᵀ of its SVD M = U S Vᵀ, so that all directions of a layer learn
equally fast. Five Newton-Schulz iterations approximate it: they bring the singular values near 1.
All other parameters (steps, biases, modulation, last convolutions) take Adam's update.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic of the source: steepest at 0
_ITERATIONS = 5
_MOMENTUM = 0.95
_SCALE = 15.0  # Muon's learning rate by Adam's: the entries of both updates are then as large
_TINY = 1e-8


def orthogonalized(matrix: Tensor) -> Tensor:
    """UVᵀ of the SVD of a matrix (rows, columns), up to singular values between 0.7 and 1.2."""
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = (matrix if wide else matrix.T) / (matrix.norm() + _TINY)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x if wide else x.T


class Muon(torch.optim.Optimizer):
    """Muon for the kernels of convolutions but the last of each block, Adam for the rest.

    Args:
        network: whose parameters are trained.
        lr: Adam's learning rate; that of Muon is proportional to it.
        betas: of Adam.
    """

    def __init__(self, network: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        kernels: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            inner = parameter.ndim > 2 and "tail" not in name.split(".")
            (kernels if inner else rest).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": kernels, "orthogonal": True},
            {"params": rest, "orthogonal": False},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients; there is no closure."""
        assert closure is None
        for group in self.param_groups:
            update = self._muon if group["orthogonal"] else self._adam
            for parameter in _with_gradient(group["params"]):
                update(parameter, self.state[parameter], group)

    def _muon(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
        ahead = parameter.grad.lerp(momentum, _MOMENTUM).flatten(1)
        rows, columns = ahead.shape
        rate = group["lr"] * _SCALE * max(1.0, rows / columns) ** 0.5
        parameter.sub_(orthogonalized(ahead).view(parameter.shape), alpha=rate)

    def _adam(self, parameter: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        first, second = group["betas"]
        if not state:
            state.update(
                step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter)
            )
        state["step"] += 1
        mean = state["mean"].lerp_(parameter.grad, 1 - first)
        square = state["square"].lerp_(parameter.grad.square(), 1 - second)
        mean = mean / (1 - first ** state["step"])
        root = (square / (1 - second ** state["step"])).sqrt()
        parameter.sub_(mean / (root + _TINY), alpha=group["lr"])


def _with_gradient(parameters: Iterable[Tensor]) -> Iterable[Tensor]:
    return (parameter for parameter in parameters if parameter.grad is not None)
