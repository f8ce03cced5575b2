"""The contract of denoisers, alone or as the prior of plug-and-play.

A denoiser estimates x from x + σn with n standard Gaussian: images (B, C, H, W) of about [0, 1],
not clipped, and σ in the same units. At σ = 0 it returns its input.
"""

import importlib
from collections.abc import Callable
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon.errors import UsageError

Denoiser = Callable[[Tensor, float], Tensor]
"""Images (B, C, H, W) with noise, and its σ -> the estimated images without it."""


def one_by_one(x: Tensor, denoised: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Tensor:
    """Images (B, C, H, W) denoised by a function of one NumPy image (C, H, W)."""
    given = x.detach().float().cpu().numpy()
    return torch.from_numpy(np.stack([denoised(image) for image in given])).to(x)


def extra(name: str) -> ModuleType:
    """A library of the extra `solvers`.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"this denoiser needs {name.partition('.')[0]}, which is not installed: "
            "pip install 'csrecon[solvers]'. `tv` needs nothing more."
        ) from error
