"""Training data: images decoded once to uint8, cropped and augmented on the device."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from csrecon.errors import InputError
from csrecon.io import images, volumes
from csrecon.training import slices
from csrecon.training.recipe import DataOptions

PAPER_BLOCKS = 88_912
BLOCK = 33


class Patches:
    """Random square crops of images that are stored as uint8 on the device.

    Args:
        paths: image files, whose luma is used, or volumes, whose slices are.
        options: the scales, the patch size, and whether a fixed pool of crops is used.
        sizes: all patch sizes in use, if there are others.
        device: of the images and the crops.
        seed: of the fixed pool.

    Raises:
        InputError: an unreadable image, or no image as large as a crop.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        options: DataOptions,
        device: torch.device,
        seed: int,
        sizes: Collection[int] = (),
    ) -> None:
        self._patch, self._intensity = options.patch, options.intensity
        self._share = options.volumes
        sizes = sizes or [options.patch]
        found = ((plane, volumes.is_volume(path)) for path in paths for plane in _planes(path))
        scaled = ((one, of) for plane, of in found for one in _scaled(plane, options.scales))
        kept = [(plane, of) for plane, of in scaled if min(plane.shape) >= min(sizes)]
        planes = [plane for plane, _ in kept]
        self._is_volume = torch.tensor([of for _, of in kept])
        largest = max(sizes)
        if not any(min(plane.shape) >= largest for plane in planes):
            raise InputError(f"no training image is as large as a patch of {largest}×{largest}.")
        shapes = torch.tensor([p.shape for p in planes])
        sizes = shapes.prod(dim=1)
        self._pixels = torch.from_numpy(np.concatenate([p.ravel() for p in planes])).to(device)
        self._offsets = sizes.cumsum(0) - sizes
        self._shapes = shapes
        self._pool: Tensor | None = None
        if options.fraction < 1:
            count = max(1, round(options.fraction * PAPER_BLOCKS * BLOCK**2 / options.patch**2))
            self._pool = self._corners(count, torch.Generator().manual_seed(seed), options.patch)

    def _corners(self, count: int, draw: torch.Generator, patch: int) -> Tensor:
        """(count, 2): index of a crop's first pixel in the flat array, and the row length."""
        room = (self._shapes - patch + 1).clamp(min=0).prod(dim=1).double()
        of_volumes = room[self._is_volume].sum()
        of_images = room.sum() - of_volumes
        if self._share is not None and of_volumes > 0 and of_images > 0:
            even = room / torch.where(self._is_volume, of_volumes, of_images)
            room = even * torch.where(self._is_volume, self._share, 1 - self._share)
        which = torch.multinomial(room, count, replacement=True, generator=draw)
        free = self._shapes[which] - patch + 1
        top, left = (torch.rand(count, 2, generator=draw) * free).long().unbind(1)
        width = self._shapes[which, 1]
        return torch.stack([self._offsets[which] + top * width + left, width], dim=1)

    def batch(self, count: int, draw: torch.Generator, patch: int | None = None) -> Tensor:
        """Random crops (count, 1, patch, patch) in [0, 1], randomly flipped and transposed."""
        patch = patch or self._patch
        if self._pool is None:
            corners = self._corners(count, draw, patch)
        else:
            corners = self._pool[torch.randint(len(self._pool), (count,), generator=draw)]
        turns = torch.randint(2, (3, count, 1, 1), generator=draw).bool()
        along = torch.arange(patch)
        row, column = along[None, :, None], along[None, None, :]
        row, column = (torch.where(turns[0], a, b) for a, b in ((row, column), (column, row)))
        row = torch.where(turns[1], patch - 1 - row, row)
        column = torch.where(turns[2], patch - 1 - column, column)
        index = corners[:, 0, None, None] + row * corners[:, 1, None, None] + column
        x = self._pixels[index.to(self._pixels.device)][:, None].float() / 255
        return self._varied(x, draw) if self._intensity else x

    def _varied(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """Every patch as g x^γ."""
        spread = math.log1p(self._intensity)
        gamma, gain = torch.rand(2, len(x), 1, 1, 1, generator=draw).to(x.device)
        varied: Tensor = torch.exp(-spread * gain) * x ** torch.exp(spread * (2 * gamma - 1))
        return varied


def _planes(path: Path) -> list[NDArray[np.uint8]]:
    """The luma of an image, or the slices of a volume."""
    if volumes.is_volume(path):
        return slices.training(path)
    plane = images.read(path).planes[0, 0].numpy()
    return [np.round(plane * 255).astype(np.uint8)]


def _scaled(plane: NDArray[np.uint8], scales: Sequence[float]) -> list[NDArray[np.uint8]]:
    whole = Image.fromarray(plane)
    sizes = [(round(whole.width * s), round(whole.height * s)) for s in scales]
    return [
        np.asarray(whole if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC))
        for size in sizes
        if min(size) > 0
    ]
