"""Tiles: a block applied to an image tile by tile, with the result for the whole image.

The receptive field of `prox` has a radius of `reach` pixels, so a tile with a margin of that many
pixels, clipped at the image border, gives exactly the result of the whole image. Tiles begin at
multiples of the block's stride, and features are cropped with the image. The memory of the
convolutions then depends on the tile, not on the image. A block without a reach gets whole images.
"""

import logging
import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from csrecon.errors import is_out_of_memory
from csrecon.reconstructors.base import State
from csrecon.reconstructors.unfolding import ProxBlock

log = logging.getLogger(__name__)

SMALLEST = 64


def planes_in_a_tile(side: int, height: int, width: int) -> int:
    """How many planes of height × width pixels fill a tile of side × side, at least 1."""
    return max(1, side**2 // (height * width))


class Tiles:
    """Applies blocks tile by tile; when out of memory it continues with smaller tiles.

    Args:
        side: of the largest tile in pixels, without its margin. An image with no more pixels than
            that tile is processed whole, whatever its shape.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(
        self, block: ProxBlock, state: State, gradient: Tensor, gain: Tensor
    ) -> tuple[State, Tensor]:
        """A state, the gradient there (B, C, H, W) and gains -> the next state; no penalty.

        Raises:
            RuntimeError: not even the smallest tile fits (see is_out_of_memory).
        """
        image = state.image
        while True:
            try:
                return self._tiled(block, state, gradient, gain), image.new_zeros(())
            except (RuntimeError, MemoryError) as error:
                if self.side <= SMALLEST or not is_out_of_memory(error):
                    raise
            self.side = max(SMALLEST, min(self.side, math.isqrt(image.numel())) // 2)
            torch.cuda.empty_cache()
            log.warning("out of memory: continuing with tiles of %d pixels.", self.side)

    def _tiled(self, block: ProxBlock, state: State, gradient: Tensor, gain: Tensor) -> State:
        batch, _, height, width = state.image.shape
        many = planes_in_a_tile(self.side, height, width)
        out: State | None = None
        for first in range(0, batch, many):
            images = slice(first, first + many)
            for inner, outer, core in _windows(height, width, self.side, block):
                part = _cut(state, images, outer)
                made, _ = block.prox(part, gradient[images, :, *outer], gain)
                if made.image.shape == state.image.shape:
                    return made
                out = _empty(state, made) if out is None else out
                place = _cut(out, images, inner)
                kept = _cut(made, slice(None), core)
                place.image.copy_(kept.image)
                if place.features is not None and kept.features is not None:
                    place.features.copy_(kept.features)
        assert out is not None
        return out


def _empty(state: State, made: State) -> State:
    """A state for whole images, with features as convolutions make them for a tile."""
    features = made.features
    if features is not None and state.features is not None:
        features = torch.empty(
            state.features.shape,
            dtype=features.dtype,
            device=features.device,
            memory_format=torch.channels_last,
        )
    return State(torch.empty_like(state.image), features)


Window = tuple[slice, slice]


def _cut(state: State, images: slice, window: Window) -> State:
    """The part of a state in a window of pixels, as views."""
    features = None
    if state.features is not None:
        scale = state.image.shape[-1] // state.features.shape[-1]
        coarse = (slice(s.start // scale, s.stop // scale) for s in window)
        features = state.features[images, :, *coarse]
    return State(state.image[images, :, *window], features)


def _windows(
    height: int, width: int, side: int, block: ProxBlock
) -> Iterator[tuple[Window, Window, Window]]:
    """Every tile: its window, its window with margin, and its window inside the latter."""
    reach = block.reach
    if height * width <= side**2 or reach is None:
        side, reach = max(height, width), 0
    for rows in _spans(height, side, reach, block.stride):
        for columns in _spans(width, side, reach, block.stride):
            yield (rows[0], columns[0]), (rows[1], columns[1]), (rows[2], columns[2])


def _spans(
    length: int, side: int, margin: int, stride: int = 1
) -> Iterator[tuple[slice, slice, slice]]:
    """Equal spans of at most `side` pixels, in strides: a narrow one would be mostly margin."""
    cells, margin = length // stride, -(-margin // stride) * stride
    count = -(-cells // max(1, side // stride))
    edges = [cells * index // count * stride for index in range(count + 1)]
    for start, end in pairwise(edges):
        low, high = max(0, start - margin), min(length, end + margin)
        yield slice(start, end), slice(low, high), slice(start - low, end - low)
