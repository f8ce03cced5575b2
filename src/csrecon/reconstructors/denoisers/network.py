"""A network that was trained for denoising, as a denoiser."""

import json
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from csrecon.errors import ModelError
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import IdentityOperator


@dataclass(frozen=True)
class NetworkDenoiser:
    """An unfolding network of the task `denoising`, applied to identity measurements.

    For noise above the trained range, image and noise are scaled down around 1/2 to the largest σ
    of the range, and the result is scaled back. A network for one noise level only is given every
    image scaled to that level, up or down.

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
        only = cast(ProxBlock, network.blocks[0]).noise
        scale = only / sigma if only else min(1.0, network.modulation.most_noise / sigma)
        channels, height, width = x.shape[1:]
        operator, y = IdentityOperator((channels, height, width)), 0.5 + scale * (x - 0.5)
        denoised: Tensor = network(Measurement(operator, y, noise=scale * sigma))
        return 0.5 + (denoised - 0.5) / scale
