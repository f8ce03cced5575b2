"""How a reconstructor runs: device, precision, tiles, and what to do when out of memory.

Networks are plain modules; all decisions about hardware are made here.
"""

import logging
import math
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from csrecon.errors import InputError, ResourceError, UsageError, is_out_of_memory
from csrecon.reconstructors.base import Reconstructor, Step, last
from csrecon.reconstructors.denoisers.network import NetworkDenoiser
from csrecon.reconstructors.solvers.denoise import Prior
from csrecon.reconstructors.unfolding import ProxBlock, Unfolding
from csrecon.runtime.tiles import SMALLEST, Tiles, planes_in_a_tile
from csrecon.sensing.measurement import Measurement

log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:[0-9]{1,4})?")

_IMPLAUSIBLE = 2.0  # RMS of the pixels, as computed from ‖y‖, that is refused

Precision = Literal["fp32", "bf16", "fp16"]
# In pixels of the features: on a CPU those of a tile fit the cache (7 MB in bf16), on CUDA they
# take about 9 GB.
_TILES = {"cpu": 320, "cuda": 4096}
_CPU = torch.device("cpu")
_PRECISE = 10  # the last 1/10 of the iterations is computed in fp32
_CPU_BF16 = ("avx512_bf16", "amx_bf16", "bf16")  # the last is what ARM calls it
_TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """Device, precision and tiles of a reconstruction.

    Attributes:
        device: of images and weights.
        precision: of the convolutions. The last tenth of the iterations (at least one), images and
            gradient steps are always fp32.
        tile: side of the tiles in pixels; `auto` for the side that suits the device and the
            resolution of the network's features, None for whole images.
        fallback: fallback device if this one is out of memory for any tile; None raises.
    """

    device: torch.device
    precision: Precision = "fp32"
    tile: int | Literal["auto"] | None = None
    fallback: torch.device | None = None

    def __str__(self) -> str:
        """`cpu, bf16`."""
        return f"{self.device}, {self.precision}"

    @property
    def numerics(self) -> str:
        """Everything that rounding depends on, as text (part of the keys of the result cache)."""
        rest = (
            ""
            if self.precision == "fp32"
            else f", the last 1 in {_PRECISE} iterations, at least 1, fp32"
        )
        return self.precision + rest

    def planes_at_once(self, m: Measurement) -> int:
        """How many planes like those of a measurement fill a tile, at least 1."""
        return planes_in_a_tile(self.tile_side() or 0, *m.operator.image_shape)

    def tile_side(self, scale: int = 1) -> int | None:
        """The side of the tiles in pixels, for features at 1/scale of the resolution."""
        if self.tile != "auto":
            return self.tile
        side = _TILES.get(self.device.type)
        return side and scale * side

    def autocast(self) -> torch.autocast:
        """The context in which the convolutions run in their precision."""
        dtype = _TYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


def choose(
    device: str | torch.device = "auto", precision: str = "auto", tile: str | int = "auto"
) -> Setup:
    """The setup for the options of a user.

    Args:
        device: auto, cpu, cuda, cuda:N or mps; when out of memory only `auto` falls back to the
            CPU.
        precision: auto (`fastest_precision`), fp32, bf16 or fp16.
        tile: side in pixels, `off`, or `auto` for the side that suits device and network.

    Raises:
        UsageError: an unknown name, or a tile that is too small.
        ResourceError: an unavailable device.
    """
    chosen = choose_device(device)
    side: int | Literal["auto"] | None
    if tile == "auto":
        side = "auto"
    elif tile == "off":
        side = None
    elif str(tile).isdecimal() and int(tile) >= SMALLEST:
        side = int(tile)
    else:
        raise UsageError(f"tile {tile!r}: expected auto, off, or at least {SMALLEST} pixels.")
    fallback = _CPU if str(device) == "auto" and chosen != _CPU else None
    if precision == "auto":
        precision = fastest_precision(chosen)
    for known in get_args(Precision):
        if precision == known:
            return Setup(chosen, known, side, fallback)
    raise UsageError(f"precision {precision!r}: expected auto, {', '.join(get_args(Precision))}.")


def fastest_precision(device: torch.device) -> Precision:
    """bf16 if the device multiplies it in hardware, else fp32.

    Its cost in dB and its gain in time are listed in benchmarks/NOTES.md.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32"
    if device.type == "cpu":
        known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        return "bf16" if any(known.get(name) for name in _CPU_BF16) else "fp32"
    return "fp32"


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of a name: auto, cpu, cuda, cuda:N or mps.

    `auto` chooses CUDA, else MPS, else the CPU, and logs the choice.

    Raises:
        UsageError: an unknown name.
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
            f"device {name!r} is unavailable: PyTorch {torch.__version__} finds {cuda} CUDA "
            "device(s). Use --device auto or cpu, or install a CUDA build of PyTorch."
        )
    if device.type == "mps" and not mps:
        raise ResourceError("device 'mps' is unavailable. Use --device auto or cpu.")
    return device


def at_ipl(model: Reconstructor, ipl: int | Sequence[int] | None) -> Reconstructor:
    """A model with iterations per layer, one number or one per layer; None does not change it.

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
        raise UsageError(f"ipl {ipl!r}: expected a whole number, or one per layer.") from error
    return model.at(counts)


def _prepared(model: Reconstructor, setup: Setup) -> Reconstructor:
    """Move a network to its device, in the memory layout of the fastest convolutions."""
    if isinstance(model, nn.Module):
        with torch.inference_mode(False):  # inference tensors could not be trained later
            return model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return model


@torch.inference_mode()
def steps(model: Reconstructor, m: Measurement, setup: Setup) -> Iterator[Step]:
    """Run a reconstructor on a measurement; yield every iterate, on the device.

    The measurement is normalized first (Measurement.normalized); `m` is not changed. If half
    precision overflows, the reconstruction is repeated in fp32; if the device is out of memory, on
    the fallback device. The steps then count from 1 again.

    Raises:
        UsageError: iterations per layer that the model does not allow.
        InputError: values far larger than those of any image in [0, 1].
        ResourceError: out of memory.
    """
    try:
        normalized = m.normalized()
        check_scale(normalized)
        yield from _precisely(_prepared(model, setup), normalized, setup)
        return
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if setup.fallback is None:
            raise _out_of_memory(m, setup.device) from error
    log.warning(
        "%s is out of memory: continuing on the fallback device %s.", setup.device, setup.fallback
    )
    precision = "fp32" if setup.precision == "fp32" else fastest_precision(setup.fallback)
    there = Setup(setup.fallback, precision, "auto")
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
            log.warning("%s overflowed: repeating the reconstruction in fp32.", precision)


def _run(model: Reconstructor, m: Measurement, setup: Setup) -> Iterator[Step]:
    return _cast(_tiled(model, setup).steps(m), setup)


def _tiled(model: Reconstructor, setup: Setup) -> Reconstructor:
    """A network, or the network that is the prior of a solver, applied tile by tile."""
    if isinstance(model, Unfolding):
        side = setup.tile_side(max(cast(ProxBlock, block).scale for block in model.blocks))
        return model.applied(Tiles(side)) if side else model
    if isinstance(model, Prior) and isinstance(model.with_, NetworkDenoiser):
        tiled = _tiled(model.with_.network, setup)
        return replace(model, with_=NetworkDenoiser(cast(Unfolding, tiled)))
    return model


def check_scale(m: Measurement) -> None:
    """Raise InputError for normalized values that no image in [0, 1] has: ‖y‖ ≤ ‖x‖ as ‖A‖ ≤ 1."""
    height, width = m.operator.image_shape
    energy = m.y.double().square().flatten(1).sum(1).max()  # of the brightest plane
    brightness = math.sqrt(float(energy) / (height * width))
    if brightness > _IMPLAUSIBLE:
        raise InputError(
            f"the values are at least {brightness:.3g} times too large for an image in [0, 1]: "
            "does y (or Φ) have another scale, such as 0..255? Divide y by it, or give --gain G "
            "or --gain auto."
        )


def _cast(iterates: Iterator[Step], setup: Setup) -> Iterator[Step]:
    """Compute every iterate in the setup's precision; autocast ends before a step is yielded.

    The last tenth, at least one, is computed in fp32. This recovers most of the loss of half
    precision, because later iterates correct small errors of earlier ones.
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
        f"out of memory on {device} for {len(m.y)} plane(s) of {height}×{width} pixels. "
        "Free memory, or use --device cpu."
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


def image(model: Reconstructor, m: Measurement, setup: Setup) -> Tensor:
    """The reconstruction of a measurement, (C, …, H, W) on the CPU, not clipped.

    Raises:
        CsreconError: as in `steps` and `final`.
    """
    return final(steps(model, m, setup)).image
