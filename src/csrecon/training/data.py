"""Training data: images decoded once to uint8, cropped, turned and measured on the device."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from csrecon import images
from csrecon.errors import InputError
from csrecon.measurement import Measurement
from csrecon.operators import BlockOperator, Phi
from csrecon.training.recipe import Recipe

PAPER_BLOCKS = 88_912
BLOCK = 33


class Patches:
    """Random square crops of images that lie, flat and uint8, in the device's memory.

    Args:
        paths: image files; their luma is used.
        recipe: says the scales, the patch, and whether a fixed pool of crops is drawn once.
        device: where everything happens.

    Raises:
        InputError: an unreadable image, or none as large as a crop.
    """

    def __init__(self, paths: Sequence[Path], recipe: Recipe, device: torch.device) -> None:
        self.patch = patch = recipe.patch
        scaled = (plane for path in paths for plane in _scaled(path, recipe.scales))
        planes = [plane for plane in scaled if min(plane.shape) >= patch]
        if not planes:
            raise InputError(f"no training image is as large as a patch of {patch}×{patch}.")
        shapes = torch.tensor([p.shape for p in planes])
        sizes = shapes.prod(dim=1)
        self._pixels = torch.from_numpy(np.concatenate([p.ravel() for p in planes])).to(device)
        self._offsets = sizes.cumsum(0) - sizes
        self._shapes = shapes
        self._pool: Tensor | None = None
        if recipe.data_fraction < 1:
            count = max(1, round(recipe.data_fraction * PAPER_BLOCKS * BLOCK**2 / patch**2))
            self._pool = self._corners(count, torch.Generator().manual_seed(recipe.seed))

    def _corners(self, count: int, draw: torch.Generator) -> Tensor:
        """(count, 2): where a crop begins in the flat pixels, and its row length."""
        room = (self._shapes - self.patch + 1).prod(dim=1).double()
        which = torch.multinomial(room, count, replacement=True, generator=draw)
        free = self._shapes[which] - self.patch + 1
        top, left = (torch.rand(count, 2, generator=draw) * free).long().unbind(1)
        width = self._shapes[which, 1]
        return torch.stack([self._offsets[which] + top * width + left, width], dim=1)

    def batch(self, count: int, draw: torch.Generator) -> Tensor:
        """Random crops (count, 1, patch, patch) in [0, 1], flipped and turned at random."""
        if self._pool is None:
            corners = self._corners(count, draw)
        else:
            corners = self._pool[torch.randint(len(self._pool), (count,), generator=draw)]
        turns = torch.randint(2, (3, count, 1, 1), generator=draw).bool()
        along = torch.arange(self.patch)
        row, column = along[None, :, None], along[None, None, :]
        row, column = (torch.where(turns[0], a, b) for a, b in ((row, column), (column, row)))
        row = torch.where(turns[1], self.patch - 1 - row, row)
        column = torch.where(turns[2], self.patch - 1 - column, column)
        index = corners[:, 0, None, None] + row * corners[:, 1, None, None] + column
        return self._pixels[index.to(self._pixels.device)][:, None].float() / 255


def _scaled(path: Path, scales: Sequence[float]) -> list[NDArray[np.uint8]]:
    plane = images.read(path).planes[0, 0].numpy()
    whole = Image.fromarray(np.round(plane * 255).astype(np.uint8))
    sizes = [(round(whole.width * s), round(whole.height * s)) for s in scales]
    return [
        np.asarray(whole if size == whole.size else whole.resize(size, Image.Resampling.BICUBIC))
        for size in sizes
        if min(size) > 0
    ]


class Measurer:
    """Measures batches, at every step with another random orthonormal Φ.

    A random row subset, column order and column signs of a Haar-random orthogonal matrix is
    again one, so that a fresh Φ costs an indexing instead of a factorisation.

    Args:
        bases: matrices alive at once.
        fixed: instead, so many fixed Φ per count of rows; 0 for none.
        seed: of the matrices.
    """

    def __init__(self, bases: int, fixed: int, seed: int) -> None:
        self._fixed = fixed
        self._seed = seed
        self._alive = list(range(bases))
        self._cache: dict[tuple[int, int], NDArray[np.float32]] = {}

    @property
    def alive(self) -> list[int]:
        """Numbers of the base matrices in use: with the seed, all the state there is."""
        return list(self._alive)

    @alive.setter
    def alive(self, numbers: list[int]) -> None:
        self._alive = list(numbers)
        self._cache.clear()

    def refresh(self) -> None:
        """Replace the oldest base by a new one."""
        gone = self._alive.pop(0)
        self._cache.pop((BLOCK**2, gone), None)
        self._alive.append(max([gone, *self._alive]) + 1)

    def _matrix(self, rows: int, number: int) -> NDArray[np.float32]:
        key = (rows, number)
        if key not in self._cache:
            self._cache[key] = Phi.make(rows, BLOCK**2, self._seed + number).matrix
        return self._cache[key]

    def __call__(self, x: Tensor, m: int, draw: torch.Generator, sigma: float = 0.0) -> Measurement:
        """Measure (B, 1, H, W) with m rows and noise of deviation sigma, on the device of x."""
        n = BLOCK**2
        if self._fixed:
            matrix = self._matrix(m, int(torch.randint(self._fixed, (), generator=draw)))
        else:
            which = self._alive[int(torch.randint(len(self._alive), (), generator=draw))]
            rows = torch.randperm(n, generator=draw)[:m].numpy()
            columns = torch.randperm(n, generator=draw).numpy()
            signs = (2 * torch.randint(2, (n,), generator=draw) - 1).numpy().astype(np.float32)
            matrix = self._matrix(n, which)[np.ix_(rows, columns)] * signs
        operator = BlockOperator(Phi(matrix), (x.shape[-2], x.shape[-1])).to(x.device)
        y = operator(x)
        if sigma:
            y = y + sigma * torch.randn(y.shape, generator=draw).to(y.device)
        return Measurement(operator, y, operator.ratio, noise=sigma)
