"""LPIPS: how different two images look, by the features of AlexNet; 0 for equal images.

The definition and its linear weights are those of the package `lpips` (extra `lpips`). AlexNet's
weights are downloaded once, 233 MiB pinned by SHA-256, and read as tensors only.

Source: Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric,
CVPR 2018; version 0.1.
"""

import warnings
from functools import cache

import torch
from torch import Tensor, nn

from csrecon.errors import UsageError
from csrecon.io import downloads

ALEXNET = downloads.Remote(
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    digest="sha256:7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
    bytes=244_408_911,
)
SMALLEST = 32
"""Shortest side in pixels that AlexNet's five stages accept."""


@cache
def network(device: torch.device) -> nn.Module:
    """The metric as a module, in evaluation mode.

    Raises:
        UsageError: the package `lpips` is not installed.
        ModelError, ResourceError: AlexNet cannot be downloaded (see downloads.fetch).
    """
    try:
        import lpips  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError(
            "LPIPS needs another package: pip install 'csrecon[lpips]', or leave out lpips."
        ) from error
    path = downloads.fetch(
        ALEXNET, downloads.cache_dir() / "metrics" / ALEXNET.url.rpartition("/")[2]
    )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses a deprecated option of torchvision
        metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    stages = metric.net.state_dict()  # slice2.3.weight is torchvision's features.3.weight
    metric.net.load_state_dict(
        {name: weights[f"features.{name.partition('.')[2]}"] for name in stages}
    )
    prepared: nn.Module = metric.eval().to(device)
    return prepared


@torch.inference_mode()
def lpips(x: Tensor, reference: Tensor) -> Tensor:
    """LPIPS, (N,), of images (N, 1 or 3, H, W) in [0, 1]; gray is repeated as RGB. Lower is better.

    NaN for images with a side below 32 pixels.

    Raises:
        UsageError, ModelError, ResourceError: as in `network`.
    """
    if min(x.shape[-2:]) < SMALLEST:
        return torch.full((len(x),), torch.nan)
    shape = (-1, 3, -1, -1)
    distance: Tensor = network(x.device)(
        x.expand(shape), reference.to(x.device).expand(shape), normalize=True
    )
    return distance.flatten()
