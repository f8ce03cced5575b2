"""The three public functions: `sample`, `reconstruct`, `load`. The command line calls these."""

import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon import execution, images, lab, measurement_file, zoo
from csrecon.errors import UsageError
from csrecon.images import Color, Picture
from csrecon.lab import Arrangement
from csrecon.measurement import Measurement
from csrecon.noise import Noise
from csrecon.operators import BlockOperator, Phi, Sampling, count_measurements, make
from csrecon.operators.kinds import default_block
from csrecon.recursion import Reconstructor, Step, Unfolding

Array = NDArray[Any] | Tensor


def _as_phi(phi: Array | Phi | None) -> Phi | None:
    if phi is None or isinstance(phi, Phi):
        return phi
    return Phi.given(images.as_numpy(phi))


def _integer(value: Any, name: str) -> int:
    """A whole number of any integer type.

    Raises:
        UsageError: anything else.
    """
    try:
        return operator.index(value)
    except TypeError as error:
        raise UsageError(f"{name} {value!r}: expected a whole number.") from error


def sample(
    image: Array | Picture,
    ratio: float | None = None,
    *,
    m: int | None = None,
    phi: Array | Phi | None = None,
    seed: int = 0,
    kind: str = "gaussian",
    block: int | tuple[int, int] | None = None,
    color: Color | None = None,
    noise_sigma: float = 0.0,
    photons: float | None = None,
) -> Measurement:
    """Measure an image block by block, y = Φx.

    Args:
        image: (H, W) or (H, W, 3), NumPy or PyTorch, uint8, uint16 or float in [0, 1].
        ratio: m/n in (0, 1]; makes the Φ of `kind` and `seed`.
        m: measurements per block, instead of a ratio.
        phi: a Φ of your own, (m, n), instead of both.
        seed: of Φ; a non-negative integer.
        kind: of Φ: gaussian (orthonormal rows, as in the papers), bernoulli, binary, hadamard,
            hadamard-cake, dct or pixels.
        block: pixels of a block's side, or (height, width); None for 33 (32 for the Hadamard
            kinds), or for the square that fits `phi`.
        color: gray (luma), ycbcr or rgb; None keeps what the image is.
        noise_sigma: standard deviation of Gaussian noise on y, of the same `seed`.
        photons: Poisson noise where a value of 1 stands for so many photons.

    Returns:
        The measurement; `.y` is float32 (C, gh, gw, m).

    Raises:
        UsageError: a ratio, m, seed or block that cannot be.
        InputError: an image or Φ that cannot be measured or measure.

    Example:
        >>> m = csrecon.sample(image, ratio=0.1)
        >>> x = csrecon.reconstruct(m, model="rcoast", ipl=6)
    """
    picture = image if isinstance(image, Picture) else images.from_array(image, color)
    given = _as_phi(phi)
    shape = None
    if block is not None:
        sides = block if isinstance(block, tuple) else (block, block)
        shape = (_integer(sides[0], "block"), _integer(sides[1], "block"))
        if min(shape) < 1:
            raise UsageError(f"block {shape}: expected positive sides.")
    sampling: Sampling
    if given is None:
        shape = shape or default_block(kind)
        rows = count_measurements(
            shape[0] * shape[1], ratio, None if m is None else _integer(m, "m")
        )
        sampling = make(kind, rows, shape, _integer(seed, "seed"))
    elif ratio is not None or m is not None:
        raise UsageError("a given Φ has its own ratio: leave out ratio and m.")
    elif kind != "gaussian":
        raise UsageError(f"a given Φ is no Φ of kind {kind!r}: leave out one of both.")
    else:
        sampling = given
    height, width = picture.planes.shape[-2:]
    measuring = BlockOperator(sampling, (height, width), shape)
    clean = Measurement.of(measuring, measuring(picture.planes), picture.format)
    return Noise(noise_sigma, photons).added(clean, picture.planes, _integer(seed, "seed"))


def load(name: str | Path, ratio: float | None = None) -> Reconstructor:
    """A reconstructor by name or path: a network in evaluation mode, or a classical solver.

    Args:
        name: a name of `csrecon models list`, the path of a .safetensors file, or
            `hf:owner/name[@revision]` on the Hugging Face hub.
        ratio: m/n of the measurement, for the models that have weights a ratio.

    Raises:
        ModelError: unknown, without weights, or damaged.
    """
    return zoo.load(name, ratio)


def measurement(
    m: Measurement | Array,
    phi: Array | Phi | None = None,
    seed: int | None = None,
    shape: tuple[int, int] | None = None,
    arrangement: Arrangement | None = None,
) -> Measurement:
    """`m` itself, or the measurement of bare values (see measurement_file.from_values)."""
    if isinstance(m, Measurement):
        if any(said is not None for said in (phi, seed, shape, arrangement)):
            raise UsageError(
                "a Measurement has its own Φ, shape and order: leave out phi, seed, shape and "
                "arrangement."
            )
        return m
    if shape is None:
        raise UsageError("bare measurements need shape=(H, W), the size of the image.")
    if arrangement is not None:
        matrix = _as_phi(phi)
        if matrix is None or seed is not None:
            raise UsageError("an arrangement is of values with a Φ of their own: give phi.")
        return lab.measurement(images.as_numpy(m), matrix, shape, arrangement)[0]
    whole = None if seed is None else _integer(seed, "seed")
    return measurement_file.from_values(images.as_numpy(m), shape, _as_phi(phi), whole)


def reconstruct_steps(
    m: Measurement,
    model: str | Path | Reconstructor = "rcoast",
    ipl: int | Sequence[int] | None = None,
    setup: execution.Setup | None = None,
) -> Iterator[Step]:
    """Every iterate of `reconstruct`, for progress bars, film strips and plots.

    Args:
        m: the measurement.
        model, ipl: as of `reconstruct`.
        setup: where and how; None for execution.choose().

    Raises:
        UsageError: an IPL that the model does not allow.
        ModelError: a model that cannot be loaded.
        ResourceError: not enough memory.
    """
    setup = setup or execution.choose()
    network = zoo.load(model, m.level) if isinstance(model, str | Path) else model
    schedule = None
    if ipl is not None:
        if not isinstance(network, Unfolding):
            raise UsageError("a classical solver has no layers: leave out the IPL.")
        counts: int | list[int]
        if isinstance(ipl, Iterable) and np.ndim(ipl) == 1:
            counts = [_integer(count, "ipl") for count in ipl]
        else:
            counts = _integer(ipl, "ipl")
        schedule = network.schedule.with_ipl(counts)
    return execution.steps(network, m, schedule, setup)


def reconstruct(
    m: Measurement | Array,
    model: str | Path | Reconstructor = "rcoast",
    ipl: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    *,
    precision: str = "auto",
    tile: str | int = "auto",
    phi: Array | Phi | None = None,
    seed: int | None = None,
    shape: tuple[int, int] | None = None,
    arrangement: Arrangement | None = None,
) -> NDArray[np.float32]:
    """Reconstruct the image of a measurement.

    Args:
        m: a Measurement; or bare values y, with `shape` and either `phi` or `seed`.
        model: a name of the zoo, the path of a .safetensors file, or a network already loaded.
        ipl: iterations per layer, one number or one a layer; None for the model's own.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: of the convolutions: fp32, bf16, fp16, or auto for what was measured fastest at
            no visible loss.
        tile: side in pixels of the tiles that big images are worked on in, `auto` or `off`; the
            result is the same.
        phi: the (m, n) matrix that made y; its rows need not be orthonormal.
        seed: of csrecon's gaussian Φ, instead of `phi`.
        shape: (H, W) of the image.
        arrangement: the orders and units of a laboratory's values (csrecon.lab.Arrangement).

    Returns:
        float32 (H, W), or RGB (H, W, 3) for a colour measurement; about [0, 1], not clipped, and
        NaN where no block was measured.

    Raises:
        UsageError: arguments that are missing, contradict each other, or are not allowed.
        InputError: values that are not finite or do not fit Φ and the shape.
        ModelError: a model that cannot be loaded.
        ResourceError: an absent device, or not enough memory.

    Source: R, eqs. 3 to 5.
    """
    ready = measurement(m, phi, seed, shape, arrangement)
    setup = execution.choose(device, precision, tile)
    final = execution.final(reconstruct_steps(ready, model, ipl, setup))
    pixels = images.to_array(final.image, ready.format.color)
    seen = ready.operator.seen()
    if seen is not None:
        pixels[~seen.numpy()] = np.nan
    return pixels
