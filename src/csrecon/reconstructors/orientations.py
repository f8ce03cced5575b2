"""The eight orientations of a square: rotations by 90° of the image and of its mirror image."""

import torch
from torch import Tensor

COUNT = 8


def oriented(image: Tensor, orientation: int) -> Tensor:
    """Images (…, H, W) in an orientation 0..7: mirrored from 4 on, then rotated.

    An odd orientation exchanges height and width; 0 is the identity. Applied to the kernels of a
    convolution, it makes the convolution commute with the orientation of the image.
    """
    mirrored = image.flip(-1) if orientation >= COUNT // 2 else image
    return torch.rot90(mirrored, orientation % 4, (-2, -1)) if orientation % 4 else mirrored


def upright(image: Tensor, orientation: int) -> Tensor:
    """The inverse of `oriented`."""
    turned = torch.rot90(image, -(orientation % 4), (-2, -1)) if orientation % 4 else image
    return turned.flip(-1) if orientation >= COUNT // 2 else turned
