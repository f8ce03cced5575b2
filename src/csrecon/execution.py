"""How a reconstructor runs: on which device, how precisely, and what happens when memory ends.

Networks stay plain; everything about hardware is decided here.
"""

import logging
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.measurement import Measurement
from csrecon.recursion import Reconstructor, Schedule, Step, Unfolding, last
from csrecon.tiles import SMALLEST, Tiles

log = logging.getLogger(__name__)

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

_IMPLAUSIBLE = 2.0  # root mean square of an image's pixels that its values would need

Precision = Literal["fp32", "bf16", "fp16"]
_TILES = {"cpu": 512, "cuda": 4096}  # features of a tile take about 150 MB, 9 GB
_TYPES: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """Where and how a reconstructor runs.

    Attributes:
        device: of images and weights.
        precision: of the convolutions; images and the gradient step are always fp32.
        tile: side of the tiles in pixels; None for whole images.
    """

    device: torch.device
    precision: Precision = "fp32"
    tile: int | None = None

    def __str__(self) -> str:
        """`cpu, bf16`."""
        return f"{self.device}, {self.precision}"

    def autocast(self) -> torch.autocast:
        """The context in which the convolutions run in their precision."""
        dtype = _TYPES.get(self.precision)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


def choose(
    device: str | torch.device = "auto", precision: str = "fp32", tile: str | int = "auto"
) -> Setup:
    """The setup of what a user asks for.

    Args:
        device: auto, cpu, cuda, cuda:N or mps.
        precision: fp32, bf16 or fp16.
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
    for known in get_args(Precision):
        if precision == known:
            return Setup(chosen, known, side)
    raise UsageError(f"precision {precision!r}: expected {', '.join(get_args(Precision))}.")


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


def prepare(model: Reconstructor, setup: Setup) -> Reconstructor:
    """Move a network to its device, in the memory layout its convolutions run fastest in."""
    if isinstance(model, nn.Module):
        return model.to(setup.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
    return model


@torch.inference_mode()
def steps(
    model: Reconstructor, m: Measurement, schedule: Schedule | None, setup: Setup
) -> Iterator[Step]:
    """Run a prepared reconstructor on a measurement; yield every iterate, on the device.

    The measurement is whitened first (Measurement.whiten) and left as it is. Where half precision
    overflows, everything is computed once more in fp32, and the steps count from 1 again.

    Raises:
        UsageError: a schedule that the model does not allow.
        InputError: values far larger than any image in [0, 1] gives.
        ResourceError: not enough memory.
    """
    try:
        white = m.whiten()
        _check_scale(white)
        here = white.to(setup.device)
        for precision in dict.fromkeys((setup.precision, "fp32")):
            step = None
            for step in _run(model, here, schedule, replace(setup, precision=precision)):
                yield step
            if step is None or bool(torch.isfinite(step.image).all()):
                return
            if precision != "fp32":
                log.warning("%s overflowed: everything is computed again in fp32.", precision)
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(m, setup.device) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _out_of_memory(m, setup.device) from error


def _run(
    model: Reconstructor, m: Measurement, schedule: Schedule | None, setup: Setup
) -> Iterator[Step]:
    if setup.tile and isinstance(model, Unfolding):
        return _cast(model.steps(m, schedule, Tiles(setup.tile)), setup)
    return _cast(model.steps(m, schedule), setup)


def _check_scale(m: Measurement) -> None:
    """Refuse values that no image in [0, 1] gives: with orthonormal rows ‖y‖ ≤ ‖x‖."""
    height, width = m.operator.image_shape
    brightness = math.sqrt(float(m.y.double().square().sum()) / (len(m.y) * height * width))
    if brightness > _IMPLAUSIBLE:
        raise InputError(
            f"the values are at least {brightness:.3g} times too large for an image in [0, 1]: is "
            "the scale of y (or of Φ) another one, such as 0..255? Divide y by it, or say --gain G "
            "or --gain auto."
        )


def _cast(iterates: Iterator[Step], setup: Setup) -> Iterator[Step]:
    """Compute every iterate in the setup's precision, which ends where the step is handed on."""
    while True:
        with setup.autocast():
            step = next(iterates, None)
        if step is None:
            return
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
