"""Non-local means: every pixel becomes a mean of pixels whose surroundings look alike.

The weight of a pixel is exp(-max(0, d² - 2σ²)/h²), with d² the mean squared difference of the two
patches and h a multiple of σ. Computed by scikit-image.

Source: Buades, Coll and Morel, Image Processing On Line 2011; Froment, the same 2014 (fast form).
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from csrecon.reconstructors.denoisers.base import extra, one_by_one


@dataclass(frozen=True)
class NonLocalMeans:
    """Patches of `patch` × `patch` pixels, compared up to `distance` pixels apart; h = `decay` σ.

    The defaults were chosen on four images of BSD400 at σ 0.05, 0.1 and 0.2.
    The channels of a complex image are compared together.
    """

    patch: Annotated[int, Field(ge=1, le=31)] = 5
    distance: Annotated[int, Field(ge=1, le=63)] = 7
    decay: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.6

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        """Images (B, C, H, W) and σ -> images.

        Raises:
            UsageError: scikit-image is not installed.
        """
        if not sigma:
            return x
        restoration = extra("skimage.restoration")

        def denoised(image: NDArray[np.float32]) -> NDArray[np.float32]:
            pixels = np.moveaxis(image, 0, -1)
            found: NDArray[Any] = restoration.denoise_nl_means(
                pixels,
                patch_size=self.patch,
                patch_distance=self.distance,
                h=self.decay * sigma,
                sigma=sigma,
                fast_mode=True,
                channel_axis=-1,
            )
            return np.moveaxis(found.reshape(pixels.shape), -1, 0)  # it drops axes of length 1

        return one_by_one(x, denoised)
