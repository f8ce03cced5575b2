"""The contract of a training task."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement

Scores = dict[str, dict[str, float]]
"""Mean PSNR in dB by condition and IPL."""


class Camera(Protocol):
    """What measures the batch of one step; drawn before the batch is."""

    @property
    def ratio(self) -> float:
        """The nominal m/n of the step."""

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Measure images (B, C, H, W) in [0, 1], on their device."""


class Task(Protocol):
    """How batches are measured, with a state that a checkpoint keeps."""

    def draw(self, step: int, draw: torch.Generator) -> Camera:
        """The camera of a step; everything random comes from `draw`."""

    @property
    def state(self) -> Any:
        """What continuing exactly needs: numbers and lists."""

    @state.setter
    def state(self, kept: Any) -> None: ...

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Score a network on images, with operators that training does not use."""


@dataclass(frozen=True)
class Ipls:
    """Iterations per layer that a validation runs."""

    ipls: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 20)

    def allowed(self, network: Unfolding) -> list[int]:
        """Those that a network allows."""
        return [ipl for ipl in self.ipls if ipl <= network.trained.max_ipl]
