"""Recipes: everything that a training run depends on, by name, in recipes.yaml.

A recipe has parts: the task (how images are measured), the data, the objective (the loss) and the
optimiser. The names of the parts' fields are unique, so a field may also be given at the top level;
recipes.yaml and the recipes of the first release use this form.
"""

import itertools
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    field_validator,
    model_validator,
)

from csrecon.errors import UsageError, nearest
from csrecon.io import documents
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.training.tasks import TASKS, AnyTask, TaskOptions
from csrecon.training.tasks.blocks import BlocksOptions
from csrecon.zoo import cards

_MOST_STEPS = 10**9
_MOST_PIXELS = 2**28  # of a step


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _encodable(name: str | None) -> str | None:
    """A name without the halves of characters that stand for its undecodable bytes."""
    return name and name.encode("utf-8", "backslashreplace").decode("utf-8")


_AsJson = PlainSerializer(_encodable, when_used="json")


class Stage(_Part):
    """A stage of the run: every R_i is in 1..cap while progress < until.

    Attributes:
        until, cap: the end of the stage, and the largest iteration count.
        patch, batch: side and number of the training patches; None for those of the data.
    """

    until: float = Field(gt=0, le=1)
    cap: int = Field(ge=1, le=1000)
    patch: int | None = Field(default=None, ge=8, le=4096)
    batch: int | None = Field(default=None, ge=1, le=2**16)


class DataOptions(_Part):
    """The training images and patches.

    Attributes:
        sets: names of image sets or folders.
        fraction: share of the paper's 88,912 blocks of 33×33, as a fixed pool of patches with that
            many pixels; 1 draws new crops at every step.
        scales: every image is also used at these sizes.
        patch: side of a training patch in pixels.
        batch: patches per step and process.
        volumes: share of the patches that is of volumes, if there are images as well; None draws
            every position in them equally often.
        intensity: v ≥ 0: a patch x becomes g x^γ, with γ from 1/(1 + v) to 1 + v and g from
            1/(1 + v) to 1, both uniform in their logarithms.
    """

    sets: tuple[Annotated[str, _AsJson], ...] = Field(default=("t91",), min_length=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    scales: tuple[Annotated[float, Field(gt=0, le=16)], ...] = Field(
        default=(1.0, 0.85, 0.7), min_length=1, max_length=64
    )
    patch: int = Field(default=66, ge=8, le=4096)
    batch: int = Field(default=8, ge=1, le=2**16)
    volumes: float | None = Field(default=None, ge=0, le=1)
    intensity: float = Field(default=0.0, ge=0, le=10)


class ObjectiveOptions(_Part):
    """The loss.

    Attributes:
        loss: `mse` of the last iterate, or the mean over images of its log10 (`log`).
        every: weight of the mean loss over all iterates, added to that of the last.
        worse: weight of the penalty on iterates whose loss exceeds that of the previous one.
        rising: weight of the penalty on images that are worse than with one iteration less of
            every layer.
        penalty: weight of the blocks' own penalty, summed over the iterations; 0 for none.
    """

    loss: Literal["mse", "log"] = "mse"
    every: float = Field(default=0.0, ge=0)
    worse: float = Field(default=0.0, ge=0)
    rising: float = Field(default=0.0, ge=0)
    penalty: float = Field(default=0.0, ge=0)


_Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimiserOptions(_Part):
    """The optimiser, its learning rate and the precision.

    Attributes:
        algorithm: `adam`, or `muon` for the kernels of convolutions and Adam for the rest.
        learning_rate, final_learning_rate: ends of the curve (cosine after the warm-up), for Adam.
        warmup: steps of linear warm-up.
        betas: of Adam.
        clip: largest norm of the gradient; 0 for no clipping.
        ema: decay of the exponential moving average of the weights.
        precision: of the convolutions; images and gradient steps are always fp32. `auto` is bf16
            on a device that multiplies it in hardware, and fp32 elsewhere.
    """

    algorithm: Literal["adam", "muon"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    final_learning_rate: float = Field(default=1e-5, ge=0)
    warmup: int = Field(default=300, ge=0, le=_MOST_STEPS)
    betas: tuple[_Decay, _Decay] = (0.9, 0.99)
    clip: float = Field(default=0.1, ge=0)
    ema: _Decay = 0.999
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"


_PARTS: dict[str, type[BaseModel]] = {
    "data": DataOptions,
    "objective": ObjectiveOptions,
    "optimiser": OptimiserOptions,
}
# Names of the first release, and where their values belong now.
_OLD_NAMES = {"data_fraction": "fraction"}
_OLD_ARGUMENTS = {
    "features": ("block", "features"),
    "modulation": ("modulation", "name"),
    "max_steps": ("modulation", "max_steps"),
    "noise_scale": ("modulation", "noise_scale"),
    "start": ("start", "name"),
    "halved_after": ("recursion", "relax_after"),
    "turning": ("recursion", "rotate"),
    "projection": ("recursion", "projection"),
    "blockwise": ("recursion", "blockwise"),
}


class Recipe(_Part):
    """One training run.

    Attributes:
        model: the entry of models.yaml whose network is trained.
        init: the entry or .safetensors file with the initial weights; a recursive network can
            initialize its unrolled form, and itself without the RFMU. None for random weights.
        changes: to the parts of the entry's blueprint.
        task, data, objective, optimiser: the parts.
        stages: caps of the iteration counts over the progress; the last reaches 1.
        equal: probability that all R_i of a step are equal; else each is drawn independently.
        zero_tail: the last convolution of every block is initialized to zero, so that the
            untrained network does not change x⁰.
        steps: length of the run.
        seed: of everything random.
    """

    model: str
    init: Annotated[str | None, _AsJson] = None
    changes: dict[str, dict[str, Any]] = {}
    task: AnyTask = BlocksOptions()
    data: DataOptions = DataOptions()
    objective: ObjectiveOptions = ObjectiveOptions()
    optimiser: OptimiserOptions = OptimiserOptions()
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=1000)
    equal: float = Field(default=0.0, ge=0, le=1)
    zero_tail: bool = True
    steps: int = Field(ge=1, le=_MOST_STEPS)
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("stages")
    @classmethod
    def _in_order(cls, stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
        ends = [stage.until for stage in stages]
        if any(later <= earlier for earlier, later in itertools.pairwise(ends)):
            raise ValueError(f"until {ends}: expected increasing numbers")
        return stages

    @model_validator(mode="before")
    @classmethod
    def _into_parts(cls, given: Any) -> Any:
        return into_parts(given) if isinstance(given, Mapping) else given

    def blueprint(self) -> Blueprint:
        """The blueprint of the network to train: the entry's, with the recipe's changes.

        Raises:
            UsageError: changes that describe no network.
        """
        fields = cards.card(self.model).blueprint().model_dump()
        for part, options in self.changes.items():
            known = fields.get(part)
            fields[part] = {**(known if isinstance(known, dict) else {}), **options}
        try:
            return Blueprint.model_validate(fields)
        except pydantic.ValidationError as error:
            raise UsageError(f"recipe: changes: {documents.faults(error)}") from error

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Self:
        for stage in self.stages:
            batch, patch = self.batch(stage)
            if batch * patch**2 > _MOST_PIXELS:
                raise ValueError(
                    f"batch={batch} of patches with patch={patch}: more than {_MOST_PIXELS} pixels "
                    "a step"
                )
        if self.data.fraction < 1 and len(self.patches) > 1:
            raise ValueError("a fixed pool of patches (fraction < 1) has one patch size")
        return self

    def stage(self, progress: float) -> Stage:
        """The stage at a progress in [0, 1]."""
        return next((s for s in self.stages if progress < s.until), self.stages[-1])

    def batch(self, stage: Stage) -> tuple[int, int]:
        """The number of patches per step and process in a stage, and their side."""
        return stage.batch or self.data.batch, stage.patch or self.data.patch

    @property
    def patches(self) -> frozenset[int]:
        """The patch sizes of all stages."""
        return frozenset(self.batch(stage)[1] for stage in self.stages)

    def changed(self, settings: Mapping[str, str]) -> "Recipe":
        """This recipe with some fields replaced; the values are YAML.

        Args:
            settings: by a field's name, or `part.name`.

        Raises:
            UsageError: an unknown field or a value that does not fit.
        """
        fields: dict[str, Any] = self.model_dump()
        for name, text in settings.items():
            _, dot, leaf = name.partition(".")
            known = [*Recipe.model_fields, *places(self.task.name), *_OLD_NAMES, "arguments"]
            if (leaf if dot else name) not in known:
                raise UsageError(f"recipe field {name!r}: {nearest(name, known)}")
            try:
                fields[leaf if dot else name] = documents.plain(text)
            except documents.DocumentError as error:
                raise UsageError(
                    f"recipe field {name}={documents.short(text)}: not a plain value ({error})."
                ) from error
        try:
            return Recipe.model_validate(fields)
        except pydantic.ValidationError as error:
            raise UsageError(f"recipe: {documents.faults(error)}") from error


def places(task: str) -> dict[str, str]:
    """Name of a field -> the part that it belongs to."""
    parts = {**_PARTS, "task": TASKS[task]}
    return {
        field: part
        for part, options in parts.items()
        for field in options.model_fields
        if field != "name"
    }


def into_parts(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recipe, with top-level fields moved into their parts."""
    fields = {_OLD_NAMES.get(name, name): value for name, value in given.items()}
    if not isinstance(fields.get("data", {}), Mapping | DataOptions):
        fields["sets"] = fields.pop("data")
    if "arguments" in fields:
        for part in ("arguments", "changes"):
            if not isinstance(fields.get(part) or {}, Mapping):
                raise ValueError(f"{part} = {documents.short(fields[part])}: expected a mapping")
        changes = dict(fields.get("changes") or {})
        for part, options in _changes(fields.pop("arguments") or {}).items():
            changes[part] = {**changes.get(part, {}), **options}
        fields["changes"] = changes
    task = fields.get("task") or {}
    if not isinstance(task, Mapping | TaskOptions):
        raise ValueError(f"task = {documents.short(task)}: expected a mapping with its name")
    name = task.get("name", "blocks") if isinstance(task, Mapping) else task.name
    for field, part in places(
        name if isinstance(name, str) and name in TASKS else "blocks"
    ).items():
        if field in fields:
            known = fields.get(part) or {}
            known = known.model_dump() if isinstance(known, BaseModel) else known
            if not isinstance(known, Mapping):
                raise ValueError(f"{part} = {documents.short(known)}: expected a mapping")
            fields[part] = {**known, field: fields.pop(field)}
    return fields


def _changes(arguments: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Changes to parts of a blueprint, from arguments of the first release's builders."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in arguments.items():
        if name not in _OLD_ARGUMENTS:
            raise ValueError(f"arguments: {name!r}: {nearest(str(name), _OLD_ARGUMENTS)}")
        part, option = _OLD_ARGUMENTS[name]
        no_start = name == "start" and value is None
        changes.setdefault(part, {})[option] = "adjoint" if no_start else value
    return changes


@cache
def recipes() -> dict[str, Recipe]:
    """The recipes that come with csrecon, by name."""
    text = Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    return {name: Recipe(**fields) for name, fields in yaml.safe_load(text).items()}


def recipe(model: str, variant: str | None = None) -> Recipe:
    """The recipe `model`, or `model-variant`.

    Raises:
        UsageError: no such recipe.
    """
    name = f"{model}-{variant}" if variant else model
    if name not in recipes():
        raise UsageError(f"no recipe {name!r}: {nearest(name, recipes())}")
    return recipes()[name]
