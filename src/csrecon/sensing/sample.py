"""Measuring an image: y = A x + noise."""

from csrecon.errors import enough_memory
from csrecon.io.images import Picture
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
