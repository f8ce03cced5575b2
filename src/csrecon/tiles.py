"""Tiles: a block applied to one part of an image after the other, with the same result.

`prox` looks `reach` pixels far, so a tile with a margin of that many pixels, clipped at the true
border, gives exactly what the whole image gives. Memory for features then depends on the tile
and not on the image.
"""

import logging
import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from csrecon.recursion import ProxBlock

log = logging.getLogger(__name__)

SMALLEST = 64


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device said that its memory has ended, each in words of its own."""
    said = str(error)
    ended = "out of memory" in said or "can't allocate memory" in said
    return ended or isinstance(error, torch.OutOfMemoryError)


def planes_in_a_tile(side: int, height: int, width: int) -> int:
    """How many planes of height × width pixels fill a tile of a side, at least 1."""
    return max(1, side**2 // (height * width))


class Tiles:
    """Applies blocks tile by tile; where memory ends it goes on with smaller tiles.

    Args:
        side: of the largest tile in pixels, without its margin. What has no more pixels than that
            tile is worked on as a whole, whatever its shape.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(
        self, block: ProxBlock, x: Tensor, gradient: Tensor, gain: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x (B, 1, H, W), the gradient there and gains -> images; there is no penalty.

        Raises:
            RuntimeError: not even the smallest tile fits (see is_out_of_memory).
        """
        while True:
            try:
                return self._tiled(block, x, gradient, gain), x.new_zeros(())
            except RuntimeError as error:
                if self.side <= SMALLEST or not is_out_of_memory(error):
                    raise
            self.side = max(SMALLEST, min(self.side, math.isqrt(x.numel())) // 2)
            torch.cuda.empty_cache()
            log.warning("memory is short: going on with tiles of %d pixels.", self.side)

    def _tiled(self, block: ProxBlock, x: Tensor, gradient: Tensor, gain: Tensor) -> Tensor:
        out = torch.empty_like(x)
        batch, _, height, width = x.shape
        many = planes_in_a_tile(self.side, height, width)
        for first in range(0, batch, many):
            images = slice(first, first + many)
            for inner, outer, core in _windows(height, width, self.side, block.reach):
                r = x[images, :, *outer] - block.rho * gradient[images, :, *outer]
                out[images, :, *inner] = block.prox(r, gain)[0][:, :, *core]
        return out


Window = tuple[slice, slice]


def _windows(
    height: int, width: int, side: int, margin: int
) -> Iterator[tuple[Window, Window, Window]]:
    """Every tile: where it lies, where it lies with its margin, and where it lies in that."""
    if height * width <= side**2:
        side = max(height, width)
    for rows in _spans(height, side, margin):
        for columns in _spans(width, side, margin):
            yield (rows[0], columns[0]), (rows[1], columns[1]), (rows[2], columns[2])


def _spans(length: int, side: int, margin: int) -> Iterator[tuple[slice, slice, slice]]:
    """Equal parts of at most a side: a narrow rest would be mostly margin."""
    count = -(-length // side)
    edges = [length * index // count for index in range(count + 1)]
    for start, end in pairwise(edges):
        low, high = max(0, start - margin), min(length, end + margin)
        yield slice(start, end), slice(low, high), slice(start - low, end - low)
