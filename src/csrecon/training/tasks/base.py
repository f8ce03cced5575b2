"""The contract of a training task."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement

_VALIDATED_IPLS = (1, 2, 4, 6, 8, 12, 20)

Scores = dict[str, dict[str, float]]
"""Mean PSNR in dB by condition and IPL."""


class Camera(Protocol):
    """The random operator and noise of one step, drawn before the batch."""

    @property
    def ratio(self) -> float:
        """The nominal m/n of the step."""

    def images(self, x: Tensor) -> Tensor:
        """The images (B, C, H, W) that it measures, from patches (B, 1, H, W) in [0, 1]."""

    def __call__(self, x: Tensor, draw: torch.Generator) -> Measurement:
        """Measure images (B, C, H, W), on their device."""


class Task(Protocol):
    """How batches are measured, with a state that is part of the checkpoint."""

    def draw(self, step: int, draw: torch.Generator) -> Camera:
        """The camera of a step; all randomness comes from `draw`."""

    @property
    def state(self) -> Any:
        """The state for an exact continuation: numbers and lists."""

    @state.setter
    def state(self, kept: Any) -> None: ...

    def validate(self, network: Unfolding, paths: Sequence[Path], setup: execution.Setup) -> Scores:
        """Score a network on images, with operators that are not used in training."""


class TaskOptions(BaseModel, ABC):
    """The options of a task, told apart by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str

    validation: ClassVar[str] = "set11"
    """The image set that `validate` gets, or as many files of it as are quick."""

    @abstractmethod
    def begin(self, seed: int) -> Task:
        """The task with what is drawn from a seed."""


def drawn_noise(most: float, noiseless: float, draw: torch.Generator) -> float:
    """The σ of a step: zero in a share of the steps, else most · u² with u uniform."""
    if not most:
        return 0.0
    none, drawn = torch.rand(2, generator=draw).tolist()
    return 0.0 if none < noiseless else most * drawn**2


def validated_ipls(network: Unfolding) -> list[int]:
    """The iterations per layer of a validation, as far as a network allows them."""
    return [ipl for ipl in _VALIDATED_IPLS if ipl <= network.trained.max_ipl]
