"""The three public functions: `sample`, `reconstruct`, `load`. The command line calls these."""

import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon import _default, zoo
from csrecon.errors import UsageError
from csrecon.evaluation import heldout, plausible
from csrecon.io import images
from csrecon.io.files import read_npy
from csrecon.io.images import Color, Picture
from csrecon.reconstructors import calibration
from csrecon.reconstructors.base import Reconstructor, Step
from csrecon.reconstructors.solvers.frame import started
from csrecon.runtime import execution
from csrecon.sensing import lab, native
from csrecon.sensing import sample as sampling
from csrecon.sensing.lab import Arrangement
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.noise import Noise
from csrecon.sensing.operators import FourierOptions, Phi, SamplingOptions

Array = NDArray[Any] | Tensor
Init = Array | Path | str | Reconstructor | None


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
    mask: Array | str | None = None,
    fourier: FourierOptions | None = None,
    block: int | tuple[int, int] | None = None,
    color: Color | None = None,
    noise_sigma: float = 0.0,
    photons: float | None = None,
) -> Measurement:
    """Measure an image, y = Ax, by block sampling (y = Φx), Fourier sampling or the identity.

    Args:
        image: (H, W) or (H, W, 3), NumPy or PyTorch, uint8, uint16 or float in [0, 1]; or complex
            (H, W) in the unit disc, for kind fourier or identity.
        ratio: sampling ratio m/n in (0, 1], for Φ of `kind` and `seed`.
        m: measurements per block, instead of a ratio.
        phi: your own Φ (m, n), instead of both.
        seed: of Φ or the mask, and of the noise; a non-negative integer.
        kind: kind of Φ: gaussian (orthonormal rows, as in the papers), bernoulli, binary, hadamard,
            hadamard-cake, dct or pixels; or kind of operator: fourier or identity.
        mask: for kind fourier: (H, W) of 0 and 1 with the zero frequency in the corner, or a kind
            of mask: random2d, random1d, radial, poisson or equispaced.
        fourier: the centre of the mask, and coils (csrecon.sensing.operators.FourierOptions).
        block: side of a block in pixels, or (height, width); None for 33 (32 for the Hadamard
            kinds), or for the square that fits `phi`.
        color: gray (luma), ycbcr or rgb; None keeps the colours of the image.
        noise_sigma: standard deviation of Gaussian noise on y, independent for every image.
        photons: number of photons per unit of y, for Poisson noise.

    Returns:
        The measurement; `.y` is float32 (planes, gh, gw, m) for blocks.

    Raises:
        UsageError: an invalid ratio, m, seed or block, or options that contradict each other.
        InputError: an image that cannot be measured, or an invalid Φ or mask.

    Example:
        >>> m = csrecon.sample(image, ratio=0.1)
        >>> x = csrecon.reconstruct(m, model="rcoast", ipl=6)
    """
    picture = image if isinstance(image, Picture) else images.from_array(image, color)
    options = SamplingOptions(
        kind=kind,
        ratio=ratio,
        m=None if m is None else _integer(m, "m"),
        phi=_as_phi(phi),
        mask=mask if mask is None or isinstance(mask, str) else images.as_numpy(mask),
        seed=_integer(seed, "seed"),
        block=_sides(block),
        fourier=fourier,
    )
    return sampling.sample(picture, options, Noise(noise_sigma, photons))


def _sides(block: int | tuple[int, int] | None) -> tuple[int, int] | None:
    if block is None:
        return None
    sides = block if isinstance(block, tuple) else (block, block)
    shape = (_integer(sides[0], "block"), _integer(sides[1], "block"))
    if min(shape) < 1:
        raise UsageError(f"block {shape}: expected positive sides.")
    return shape


def _size(shape: tuple[int, int]) -> tuple[int, int]:
    sides = tuple(shape)
    if len(sides) != 2:
        raise UsageError(f"shape {sides}: expected (H, W), the size of the image.")
    return _integer(sides[0], "shape"), _integer(sides[1], "shape")


def load(name: str | Path, ratio: float | None = None) -> Reconstructor:
    """A reconstructor by name or path: a network in evaluation mode, or a classical solver.

    Args:
        name: a name of `csrecon models list`, of a solver with its options
            (`tv:iterations=200`), the path of a .safetensors file, or `hf:owner/name[@revision]`
            on the Hugging Face hub.
        ratio: m/n of the measurement, for the models that have per-ratio weights.

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
    """`m` itself, or a measurement of bare values (see native.from_values)."""
    if isinstance(m, Measurement):
        if any(said is not None for said in (phi, seed, shape, arrangement)):
            raise UsageError(
                "a Measurement has its own Φ, shape and order: leave out phi, seed, shape and "
                "arrangement."
            )
        return m
    if shape is None and (arrangement is None or arrangement.positions is None):
        raise UsageError("bare measurements need shape=(H, W), the size of the image.")
    if shape is not None:
        shape = _size(shape)
    if arrangement is not None:
        matrix = _as_phi(phi)
        if matrix is None or seed is not None:
            raise UsageError(
                "an arrangement needs the Φ that measured the values: give phi, and no seed."
            )
        return lab.measurement(
            images.as_numpy(m), matrix, shape, arrangement, estimator=calibration.estimate
        )[0]
    assert shape is not None
    whole = None if seed is None else _integer(seed, "seed")
    return native.from_values(images.as_numpy(m), shape, _as_phi(phi), whole)


def reconstruct_steps(
    m: Measurement,
    model: str | Path | Reconstructor | None = None,
    ipl: int | Sequence[int] | None = None,
    setup: execution.Setup | None = None,
    init: Init = None,
    keep_going: bool = False,
) -> Iterator[Step]:
    """Every iterate of `reconstruct`, for progress bars, film strips and plots.

    Args:
        m: the measurement.
        model, ipl, init: as in `reconstruct`.
        setup: device, precision and tiles; None for execution.choose().
        keep_going: end with the best iterate of a solver that diverges, instead of an error.

    Raises:
        UsageError: an IPL that the model does not allow.
        ModelError: a model that cannot be loaded.
        ResourceError: out of memory.
    """
    model = zoo.default(m) if model is None else model
    network = zoo.load(model, m.operator.ratio) if isinstance(model, str | Path) else model
    chosen = setup or execution.choose()
    begun = started(execution.at_ipl(network, ipl), None, keep_going)
    if init is not None:
        started(network, torch.empty(0))  # a network is refused before another model runs
        begun = started(network, _start(init, m, chosen), keep_going)
    return execution.steps(begun, m, chosen)


def _start(
    init: Array | Path | str | Reconstructor, m: Measurement, setup: execution.Setup
) -> Tensor:
    """A warm start (B, C, H, W): the result of a model, or an image in the colours of m."""
    color = m.format.color
    if isinstance(init, Path) and init.suffix.lower() != ".npy":
        return images.read(init, "gray" if color == "complex" else color).planes
    if isinstance(init, Path):
        init = read_npy(init)
    if not isinstance(init, np.ndarray | Tensor):
        network = zoo.load(init, m.operator.ratio) if isinstance(init, str) else init
        return execution.image(network, m, setup)
    array = np.nan_to_num(images.as_numpy(init))  # a result has NaN in masked blocks
    if array.dtype.kind == "c":
        array = array / np.maximum(1, np.abs(array))
    elif array.dtype.kind == "f":
        array = array.clip(0, 1)
    return images.from_array(array, None if color == "complex" else color).planes


def reconstruct(
    m: Measurement | Array,
    model: str | Path | Reconstructor | None = None,
    ipl: int | Sequence[int] | None = None,
    device: str | torch.device = "auto",
    *,
    precision: str = "auto",
    tile: str | int = "auto",
    phi: Array | Phi | None = None,
    seed: int | None = None,
    shape: tuple[int, int] | None = None,
    arrangement: Arrangement | None = None,
    init: Init = None,
) -> NDArray[Any]:
    """Reconstruct the image of a measurement.

    Args:
        m: a Measurement; or bare values y, with `shape` and either `phi` or `seed`.
        model: a name of the zoo, the path of a .safetensors file, or a network already loaded; None
            for `zoo.default`: frcoast, for k-space mri-frcoast, for noisy images rdenoise.
        ipl: iterations per layer, one number or one per layer; None for the model's default.
        device: auto, cpu, cuda, cuda:N or mps.
        precision: of the convolutions: fp32, bf16, fp16, or auto for the fastest one without
            visible loss on this device.
        tile: side in pixels of the tiles for large images, `auto` or `off`; the result is the
            same.
        phi: the (m, n) matrix that made y; its rows need not be orthonormal.
        seed: of csrecon's gaussian Φ, instead of `phi`.
        shape: (H, W) of the image.
        arrangement: order and calibration of lab values (sensing.lab.Arrangement).
        init: warm start of a classical solver: an image as an array or a Path, or a model, by name
            or loaded, whose result it is.

    Returns:
        float32 (H, W), RGB (H, W, 3) for a colour measurement, or complex64 (H, W); about [0, 1],
        not clipped, and NaN in masked blocks.

    Raises:
        UsageError: arguments that are missing, contradict each other, or are not allowed.
        InputError: values that are not finite or do not fit Φ and the shape.
        ModelError: a model that cannot be loaded.
        ResourceError: an unavailable device, or out of memory.
        CheckError: a classical solver diverges.

    Source: R, eqs. 3 to 5.
    """
    ready = measurement(m, phi, seed, shape, arrangement)
    setup = execution.choose(device, precision, tile)
    final = execution.final(reconstruct_steps(ready, model, ipl, setup, init))
    pixels = images.to_array(final.image, ready.format.color)
    observed = ready.operator.observed()
    plausible.notice(pixels, ready)
    if observed is not None:
        pixels[~observed.numpy()] = np.nan
    return pixels


def check(
    m: Measurement,
    model: str | Path | Reconstructor = _default.MODEL,
    ipl: int | Sequence[int] | None = None,
    folds: int = 8,
    setup: execution.Setup | None = None,
) -> heldout.Check:
    """Estimate the error of a reconstruction without the original, from rows that are held out.

    Args:
        m: block sampling.
        model, ipl: as in `reconstruct`.
        folds: further reconstructions, each from nine tenths of the rows.
        setup: device, precision and tiles; None for execution.choose().

    Returns:
        The estimated `psnr` in dB with its standard `error`, `mse` of every block, and more.

    Raises:
        UsageError: another operator than block sampling, or too few rows.
        ModelError, ResourceError: as in `reconstruct_steps`.

    Example:
        >>> found = csrecon.api.check(m)
        >>> print(f"{found.psnr:.1f} ± {found.error:.1f} dB")
    """
    network = zoo.load(model, m.operator.ratio) if isinstance(model, str | Path) else model
    chosen, at = setup or execution.choose(), execution.at_ipl(network, ipl)

    def reconstructed(part: Measurement) -> Tensor:
        return execution.image(at, part, chosen)

    weights = images.error_weights(m.format.color)
    options = heldout.HoldoutOptions(folds)
    return heldout.check(m, reconstructed(m), reconstructed, options, weights)
