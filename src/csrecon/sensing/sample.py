"""Measuring an image: y = A x + noise."""

import numpy as np
import torch

from csrecon.errors import UsageError, enough_memory
from csrecon.io.images import Picture, PixelFormat
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import Noise
from csrecon.sensing.operators import Domain, SamplingOptions, make_operator

NOISELESS = Noise()


def domain_of(picture: Picture) -> Domain:
    """C, H, W of one plane of a picture."""
    channels, height, width = picture.planes.shape[1:]
    return channels, height, width


def sample(picture: Picture, options: SamplingOptions, noise: Noise = NOISELESS) -> Measurement:
    """Measure every plane of a picture.

    Args:
        picture: planes (P, C, H, W).
        options: of the operator; their seed also seeds the noise.
        noise: added to y.

    Raises:
        UsageError: options that contradict each other.
        InputError: a picture that the operator cannot measure.
        ResourceError: out of memory.
    """
    channels, height, width = domain_of(picture)
    with enough_memory(f"measuring {len(picture.planes)} plane(s) of {height}×{width} pixels"):
        operator = make_operator((channels, height, width), options)
        clean = Measurement.of(operator, operator(picture.planes), picture.format)
        return noise.added(clean, picture.planes, options.seed)


def with_phase(picture: Picture, seed: int) -> Picture:
    """A gray picture as a complex one, with a smooth phase between -π and π.

    The phase is a sum of three waves of less than one period across the image, as fields that vary
    slowly and shifts of the echo cause it.

    Raises:
        UsageError: a picture with colours or a phase.
    """
    if picture.format.color != "gray":
        raise UsageError(f"--phase: a {picture.format.color} image; expected a gray one.")
    height, width = picture.planes.shape[2:]
    draw = np.random.Generator(np.random.PCG64(seed))
    down, across = (np.linspace(0, 1, side) for side in (height, width))
    phase = np.zeros((height, width))
    for _ in range(3):
        ahead, aside, shift = draw.uniform(-1, 1, 3)
        phase += np.cos(2 * np.pi * (ahead * down[:, None] + aside * across + shift)) * np.pi / 3
    turn = torch.from_numpy(np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32))
    return Picture(picture.planes * turn, PixelFormat("complex", picture.format.bit_depth))
