"""Blueprints: everything about a network but its weights.

A blueprint is part of a model's card and, as JSON, of the metadata of every weights file that
csrecon writes. Version 1, which had one list of arguments for all parts, is still read.
"""

import json
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator

from csrecon.errors import ModelError
from csrecon.reconstructors.modulation import MODULATIONS
from csrecon.reconstructors.nets import BLOCKS
from csrecon.reconstructors.options import build, options_of
from csrecon.reconstructors.schedule import Count
from csrecon.reconstructors.starts import STARTS
from csrecon.reconstructors.unfolding import Recursion, Trained, Unfolding

MOST_WEIGHTS = 2**28
"""Of a network, which takes four bytes for each: metadata of a file may ask for any number."""

Task = Literal["compressive-sensing", "denoising", "mri"]


class Part(BaseModel):
    """A part of a network by name; other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options of the part."""
        return dict(self.model_extra or {})


class BlockPart(Part):
    """The proximal block; every block has features."""

    features: Count = 32

    @property
    def options(self) -> dict[str, Any]:
        """The options of the block, including its features."""
        return {"features": self.features, **super().options}


class Blueprint(BaseModel):
    """Everything about a network but its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[2] = 2
    task: Task = "compressive-sensing"
    block: BlockPart
    modulation: Part = Part(name="none")
    start: Part = Part(name="adjoint")
    recursion: Recursion
    trained: Trained

    @model_validator(mode="before")
    @classmethod
    def _of_version_1(cls, given: Any) -> Any:
        return upgraded(given) if isinstance(given, dict) and "architecture" in given else given

    @model_validator(mode="after")
    def _allows_what_it_uses(self) -> Self:
        if max(*self.recursion.schedule, self.trained.ipl) > self.trained.max_ipl:
            raise ValueError("the schedule and the trained IPL must lie within the allowed IPL")
        low, high = self.trained.ratios
        if not 0 < low <= high <= 1:
            raise ValueError(f"ratios {self.trained.ratios}: expected 0 < lowest <= highest <= 1")
        return self

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the network's weights by name; no memory is allocated for them.

        Raises:
            ModelError: as in `build`.
        """
        with torch.device("meta"):
            weights = self._built().state_dict()
        count = sum(value.numel() for value in weights.values())
        if count > MOST_WEIGHTS:
            raise ModelError(
                f"a network of {count:,} weights: expected at most {MOST_WEIGHTS:,}. Give fewer "
                "layers or features."
            )
        return {name: tuple(value.shape) for name, value in weights.items()}

    def build(self) -> Unfolding:
        """Build the network with initial weights.

        Raises:
            ModelError: an unknown part, options that it does not take, or more than
                MOST_WEIGHTS weights.
        """
        self.shapes()
        return self._built()

    def _built(self) -> Unfolding:
        if self.block.name not in BLOCKS:
            build(BLOCKS, "architecture", self.block.name, {})  # raises, with the known names
        options = self.modulation.options
        shaped = {"features": self.block.features, "sites": BLOCKS[self.block.name].sites}
        for option in options.keys() & shaped.keys():
            raise ModelError(
                f"modulation {self.modulation.name!r} has no option {option!r}: the block sets it."
            )
        if "max_steps" in options_of(MODULATIONS.get(self.modulation.name, Part)):
            options = {"max_steps": sum(self.recursion.schedule), **options}
        modulation = build(MODULATIONS, "modulation", self.modulation.name, options | shaped)
        blocks = [
            build(BLOCKS, "architecture", self.block.name, self.block.options)
            for _ in self.recursion.schedule
        ]
        start = build(STARTS, "start", self.start.name, self.start.options)
        network = Unfolding(blocks, self.recursion, modulation, start, self.trained)
        network.task = self.task
        own = self.model_dump(mode="json", include=set(Blueprint.model_fields))
        network.blueprint = json.dumps(own, sort_keys=True)
        return network


def upgraded(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a version 1 blueprint, and any fields beside them, as version 2."""
    rest = dict(given)
    architecture = str(rest.pop("architecture"))
    arguments = rest.pop("arguments", None) or {}
    if not isinstance(arguments, dict):
        return given
    parts = dict(arguments)
    ista = architecture == "ista-net-plus"
    modulation: dict[str, Any] = {"name": parts.pop("modulation", "none" if ista else "ratio")}
    for name in ("max_steps", "noise_scale"):
        value = parts.pop(name, None)
        if value is not None and modulation["name"] == "rfmu":
            modulation[name] = value
    if ista and modulation["name"] == "rfmu":
        modulation["level_scale"] = None
    start = parts.pop("start", None)
    if start is None or isinstance(start, str):
        start = {"name": start or "adjoint"}
    elif isinstance(start, dict):
        start = {"name": "matrix", **start}
    order = rest.pop("order", "layers")
    trained, allowed = rest.pop("trained", None), rest.pop("allowed", None)
    if isinstance(trained, dict) and isinstance(allowed, dict):
        trained = {**trained, "max_ipl": allowed.get("ipl")}
    recursion = {
        "schedule": rest.pop("schedule", None),
        "relax_after": parts.pop("halved_after", None),
        "rotate": parts.pop("turning", False),
        "projection": parts.pop("projection", False),
        "order": "looped" if order == "stack" else order,
        "blockwise": parts.pop("blockwise", ista),
    }
    return {
        **rest,
        "block": {"name": architecture, **parts},
        "modulation": modulation,
        "start": start,
        "recursion": recursion,
        "trained": trained,
    }
