"""Recipes: everything that a training run depends on, by name, in recipes.yaml."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from csrecon import cards
from csrecon.errors import UsageError, nearest


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Part):
    """Iteration counts of a part of the run: every R_i in 1..cap while progress < until."""

    until: float = Field(gt=0, le=1)
    cap: int = Field(ge=1)


class Recipe(_Part):
    """One training run.

    Attributes:
        model: the entry of models.yaml whose network is trained.
        init: the entry or .safetensors file it begins with; a recursive network begins its
            unrolled one, and the one without its RFMU. None for random weights.
        arguments: changes to the entry's own arguments.
        data: names of image sets or folders.
        data_fraction: share of the paper's 88,912 blocks of 33×33, as a fixed pool of patches
            with that many pixels; 1 crops anew at every step.
        scales: every image is also used at these sizes.
        patch: side of a training patch in pixels.
        batch: patches per step and process.
        ratios: one is drawn per step.
        noise: largest standard deviation σ of Gaussian noise on y; a step draws σ = noise · u²,
            u uniform, and none in a quarter of the steps.
        phi_bases: Haar-random n×n matrices alive at once; every step takes Φ from one of them by
            random rows, column order and signs, which is again a random orthonormal Φ.
        phi_refresh: steps between the replacement of one of them; 0 keeps them.
        fixed_phis: instead, this many fixed Φ per ratio, as the paper does; 0 for none.
        stages: caps of the iteration counts against progress; the last reaches 1.
        equal: probability that all R_i of a step are one number; else each is drawn by itself.
        loss: `mse` of the last iterate, or its mean over images of log10 (`log`).
        every: weight of the mean loss over all iterates beside that of the last.
        worse: weight of the penalty on iterates whose loss exceeds the one before.
        rising: weight of the penalty on images that are worse than with one iteration less of
            every layer.
        penalty: weight of the blocks' own penalty, summed over the iterations; 0 computes none.
        zero_tail: the last convolution of every block begins at zero, so that the untrained
            network leaves x⁰ as it is.
        learning_rate, final_learning_rate: ends of the curve (cosine after the warm-up).
        warmup: steps of linear rise.
        betas, clip, ema: of Adam, of the gradient's norm (0 for none), of the averaged weights.
        precision: of the convolutions; images and the gradient step stay fp32.
        steps: length of the run.
        seed: of everything random.
    """

    model: str
    init: str | None = None
    arguments: dict[str, Any] = {}
    data: tuple[str, ...] = ("t91",)
    data_fraction: float = Field(1.0, gt=0, le=1)
    scales: tuple[float, ...] = (1.0, 0.85, 0.7)
    patch: int = Field(66, ge=8)
    batch: int = Field(8, ge=1)
    ratios: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    noise: float = Field(0.0, ge=0)
    phi_bases: int = Field(8, ge=1)
    phi_refresh: int = Field(50, ge=0)
    fixed_phis: int = Field(0, ge=0)
    stages: tuple[Stage, ...] = Field(min_length=1)
    equal: float = Field(0.0, ge=0, le=1)
    loss: Literal["mse", "log"] = "mse"
    every: float = Field(0.0, ge=0)
    worse: float = Field(0.0, ge=0)
    rising: float = Field(0.0, ge=0)
    penalty: float = Field(0.0, ge=0)
    zero_tail: bool = True
    learning_rate: float = Field(1e-3, gt=0)
    final_learning_rate: float = Field(1e-5, ge=0)
    warmup: int = Field(300, ge=0)
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = Field(0.1, ge=0)
    ema: float = Field(0.999, ge=0, lt=1)
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    steps: int = Field(ge=1)
    seed: int = Field(0, ge=0)

    def blueprint(self) -> cards.Blueprint:
        """The network to train: the entry's, with the recipe's arguments."""
        entry = cards.card(self.model).blueprint()
        return entry.model_copy(update={"arguments": entry.arguments | self.arguments})

    def cap(self, progress: float) -> int:
        """The largest iteration count at a progress in [0, 1]."""
        return next((s.cap for s in self.stages if progress < s.until), self.stages[-1].cap)

    def changed(self, settings: dict[str, str]) -> "Recipe":
        """This recipe with some fields replaced; the values are YAML.

        Raises:
            UsageError: an unknown field or a value that does not fit.
        """
        fields: dict[str, Any] = self.model_dump()
        for name, text in settings.items():
            if name not in fields:
                raise UsageError(f"recipe field {name!r}: {nearest(name, fields)}")
            try:
                fields[name] = yaml.safe_load(text)
            except yaml.YAMLError as error:
                raise UsageError(f"recipe field {name}={text!r} is not valid YAML.") from error
        try:
            return Recipe.model_validate(fields)
        except pydantic.ValidationError as error:
            raise UsageError(f"recipe: {error}") from error


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
