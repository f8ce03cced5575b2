"""A network that was trained for denoising, as a denoiser."""

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from csrecon.errors import ModelError
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import IdentityOperator


@dataclass(frozen=True)
class NetworkDenoiser:
    """An unfolding network of the task `denoising`, applied to identity measurements.

    The network is conditioned on σ; above the trained range it assumes the largest trained σ.

    Raises:
        ModelError: a network that was trained for something else.
    """

    network: Unfolding

    def __post_init__(self) -> None:
        """Check the task."""
        task = json.loads(self.network.blueprint or "{}").get("task")
        if task != "denoising":
            raise ModelError(
                f"this network was trained for {task or 'an unknown task'}: expected a denoiser, "
                "such as rdenoise, or one of wavelet, nlm and tv."
            )

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Images (B, 1, H, W) and σ -> images.

        Raises:
            UsageError: complex images, which have two channels.
        """
        if not sigma:
            return x
        with torch.inference_mode(False):  # inference tensors could not be trained later
            network = self.network.to(x.device)
        channels, height, width = x.shape[1:]
        operator = IdentityOperator((channels, height, width))
        denoised: Tensor = network(Measurement(operator, x, noise=sigma))
        return denoised
