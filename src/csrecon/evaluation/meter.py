"""Seconds and memory of a run, for `bench` and for the scripts in benchmarks/."""

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
T = TypeVar("T")
LONG = 10.0
"""Seconds; a run that takes longer needs no warm-up and no repetition."""


def process_peak() -> int | None:
    """Peak resident set size of this process in bytes; None if unknown."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes of the CUDA device since its last reset, else of this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return process_peak()


class Memory:
    """Peak memory in bytes above that at construction (on the CPU only under Linux)."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        elif _RESET.exists():
            ctypes.CDLL(None).malloc_trim(0)  # otherwise reused memory would not count
            _RESET.write_text("5")  # resets the peak to the present size (man 5 proc)
            self.before = _status("VmRSS")

    def taken(self) -> int | None:
        """Peak bytes so far; None if this system does not report them."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self.before
        return _status("VmHWM") - self.before if _RESET.exists() else None


def _status(field: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def timed(run: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """The result of a run and its wall time in seconds, until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    made = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return made, time.perf_counter() - began


@dataclass(frozen=True)
class Timed:
    """Seconds of the fastest of several runs, its first image, and the peak memory in bytes."""

    seconds: float
    image: Tensor
    memory: int | None


def best(run: Callable[[], Tensor], device: torch.device, times: int) -> Timed:
    """The fastest of several runs after a warm-up; a warm-up longer than LONG is the only run."""
    memory = Memory(device)
    image, seconds = timed(run, device)
    image = image[:1]
    if seconds <= LONG:
        for attempt in range(times):
            made, took = timed(run, device)
            if attempt == 0 or took < seconds:
                image, seconds = made[:1], took
    return Timed(seconds, image, memory.taken())
