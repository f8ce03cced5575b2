"""How a reconstructor runs: on which device, how precisely, and what happens out of memory.

Networks stay plain; everything about hardware is decided here.
"""

import logging
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.reconstructors.base import Reconstructor, Step, last
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime.tiles import SMALLEST, Tiles, is_out_of_memory, planes_in_a_tile
from csrecon.sensing.measurement import Measurement

log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

_IMPLAUSIBLE = 2.0  # root mean square of an image's pixels that its values would need

Precision = Literal["fp32", "bf16", "fp16"]
# On a CPU the features of a tile fit the cache (7 MB in bf16); on CUDA they take about 9 GB.
_TILES = {"cpu": 320, "cuda": 4096}
_CPU = torch.device("cpu")
_PRECISE = 10  # one in so many iterations, the last ones, is computed in fp32
_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last is what ARM calls it
_TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """Where and how a reconstructor runs.

    Attributes:
        device: of images and weights.
        precision: of the convolutions, but for the last tenth of the iterations, at least one;
            images and the gradient step are always fp32.
        tile: side of the tiles in pixels; None for whole images.
        fallback: device to go on on when this one has too little memory for any tile; None fails.
    """

    device: torch.device
    precision: Precision = "fp32"
    tile: int | None = None
    fallback: torch.device | None = None

    def __str__(self) -> str:
        """`cpu, bf16`."""
        return f"{self.device}, {self.precision}"

    @property
    def numerics(self) -> str:
        """All that rounding depends on, as a text."""
        rest = (
            ""
            if self.precision == "fp32"
            else f", the last 1 in {_PRECISE} iterations, at least 1, fp32"
        )
        return self.precision + rest

    def planes_at_once(self, m: Measurement) -> int:
        """How many planes like those of a measurement fill a tile, at least 1."""
        return planes_in_a_tile(self.tile or 0, *m.operator.image_shape)

    def autocast(self) -> torch.autocast:
        """The context in which the convolutions run in their precision."""
        dtype = _TYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


def choose(
    device: str | torch.device = "auto", precision: str = "auto", tile: str | int = "auto"
) -> Setup:
    """The setup of what a user asks for.

    Args:
        device: auto, cpu, cuda, cuda:N or mps; when out of memory only `auto` falls back to the
            CPU.
        precision: auto (`fastest_precision`), fp32, bf16 or fp16.
        tile: a number of pixels, `off`, or `auto` for the side that suits the device.

    Raises:
        UsageError: another name.
        ResourceError: an absent device.
    """
    chosen = choose_device(device)
    side = {"auto": _TILES.get(chosen.type), "off": None}.get(str(tile), tile)
    if side is not None:
        if not str(side).isdecimal() or int(side) < SMALLEST:
            raise UsageError(f"tile {tile!r}: expected auto, off, or pixels from {SMALLEST} on.")
        side = int(side)
    fallback = _CPU if str(device) == "auto" and chosen != _CPU else None
    if precision == "auto":
        precision = fastest_precision(chosen)
    for known in get_args(Precision):
        if precision == known:
            return Setup(chosen, known, side, fallback)
    raise UsageError(f"precision {precision!r}: expected auto, {', '.join(get_args(Precision))}.")


def fastest_precision(device: torch.device) -> Precision:
    """bf16 where the device multiplies it in hardware, else fp32.

    What it costs in dB and gains in time is measured in benchmarks/NOTES.md.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bf16" if any(known.get(name) for name in _CPU_BF16) else "fp32"
    return "fp32"


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:N or mps.

    `auto` takes CUDA, then MPS, then the CPU, and logs which.

    Raises:
        UsageError: another name.
        ResourceError: a device that this machine, or this build of PyTorch, does not have.
    """
    name = str(name)
    if not _DEVICE.fullmatch(name):
        raise UsageError(f"device {name!r}: expected auto, cpu, cuda, cuda:N or mps.")
    cuda, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    if name == "auto":
        device = torch.device("cuda" if cuda else "mps" if mps else "cpu")
        log.info("device: %s (chosen automatically)", device)
        return device
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cuda:
        raise ResourceError(
            f"device {name!r} is not there: PyTorch {torch.__version__} sees {cuda} CUDA "
            "device(s). Use --device auto or cpu, or install a CUDA build of PyTorch."
        )
    if device.type == "mps" and not mps:
        raise ResourceError("device 'mps' is not there. Use --device auto or cpu.")
    return device


def at_ipl(model: Reconstructor, ipl: int | Sequence[int] | None) -> Reconstructor:
    """A model at iterations per layer, one number or one a layer; None leaves it as it is.

    Raises:
        UsageError: a classical solver, numbers that are not whole, or another number of counts
            than layers.
    """
    if ipl is None:
        return model
    if not isinstance(model, Unfolding):
        raise UsageError("a classical solver has no layers: leave out the IPL.")
    several = isinstance(ipl, Iterable) and np.ndim(ipl) == 1
    try:
        counts = [operator.index(c) for c in ipl] if several else operator.index(ipl)  # type: ignore
    except TypeError as error:
        raise UsageError(f"ipl {ipl!r}: expected a whole number, or one a layer.") from error
    return model.at(counts)


def _prepared(model: Reconstructor, setup: Setup) -> Reconstructor:
    """Move a network to its device, in the memory layout its convolutions run fastest in."""
    if isinstance(model, nn.Module):
        with torch.inference_mode(False):  # or its weights could never be trained again
            return model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return model


@torch.inference_mode()
def steps(model: Reconstructor, m: Measurement, setup: Setup) -> Iterator[Step]:
    """Run a reconstructor on a measurement; yield every iterate, on the device.

    The measurement is normalized first (Measurement.normalized) and left as it is. Where half
    precision overflows, everything is computed once more in fp32, and when out of memory, on the
    fallback device; the steps then count from 1 again.

    Raises:
        UsageError: iterations per layer that the model does not allow.
        InputError: values far larger than any image in [0, 1] gives.
        ResourceError: not enough memory.
    """
    try:
        normalized = m.normalized()
        _check_scale(normalized)
        yield from _precisely(_prepared(model, setup), normalized, setup)
        return
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if setup.fallback is None:
            raise _out_of_memory(m, setup.device) from error
    log.warning("%s has too little memory: going on on %s.", setup.device, setup.fallback)
    precision = "fp32" if setup.precision == "fp32" else fastest_precision(setup.fallback)
    there = Setup(setup.fallback, precision, _TILES.get(setup.fallback.type))
    yield from steps(model, m, there)


def _precisely(model: Reconstructor, normalized: Measurement, setup: Setup) -> Iterator[Step]:
    here = normalized.to(setup.device)
    for precision in dict.fromkeys((setup.precision, "fp32")):
        step = None
        for step in _run(model, here, replace(setup, precision=precision)):
            yield step
        if step is None or bool(torch.isfinite(step.image).all()):
            return
        if precision != "fp32":
            log.warning("%s overflowed: everything is computed again in fp32.", precision)


def _run(model: Reconstructor, m: Measurement, setup: Setup) -> Iterator[Step]:
    if setup.tile and isinstance(model, Unfolding):
        model = model.applied(Tiles(setup.tile))
    return _cast(model.steps(m), setup)


def _check_scale(m: Measurement) -> None:
    """Refuse values that no image in [0, 1] gives: with orthonormal rows ‖y‖ ≤ ‖x‖."""
    height, width = m.operator.image_shape
    energy = m.y.double().square().flatten(1).sum(1).max()  # of the brightest plane
    brightness = math.sqrt(float(energy) / (height * width))
    if brightness > _IMPLAUSIBLE:
        raise InputError(
            f"the values are at least {brightness:.3g} times too large for an image in [0, 1]: is "
            "the scale of y (or of Φ) another one, such as 0..255? Divide y by it, or say --gain G "
            "or --gain auto."
        )


def _cast(iterates: Iterator[Step], setup: Setup) -> Iterator[Step]:
    """Compute every iterate in the setup's precision, which ends where the step is handed on.

    The last tenth, at least one, is computed in fp32: it takes back most of what half precision
    loses, because a small error of an early iterate is an error that later ones correct.
    """
    precise = replace(setup, precision="fp32")
    ending = False
    while True:
        with (precise if ending else setup).autocast():
            step = next(iterates, None)
        if step is None:
            return
        ending = step.total - step.index <= max(1, step.total // _PRECISE)
        yield step


def _out_of_memory(m: Measurement, device: torch.device) -> ResourceError:
    height, width = m.operator.image_shape
    return ResourceError(
        f"not enough memory on {device} for {len(m.y)} plane(s) of {height}×{width} pixels. "
        "Free some, or use --device cpu."
    )


def final(iterates: Iterator[Step]) -> Step:
    """The final iterate, its image on the CPU.

    Raises:
        InputError: it holds NaN or infinite values.
    """
    step = last(iterates)
    image = step.image.cpu()
    if not bool(torch.isfinite(image).all()):
        raise InputError(
            "the reconstruction is not finite: the measurement's scale is implausible for images "
            "in [0, 1]."
        )
    return replace(step, image=image)
