"""Cards: what models.yaml says of every model, validated.

A network is a blueprint (architecture, arguments, schedule, limits) and weights. The blueprint
stands on the card and, as JSON, in the metadata of every weights file that csrecon writes.
"""

import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field

from csrecon import files
from csrecon.errors import ModelError, nearest
from csrecon.fetch import Remote
from csrecon.metrics import Protocol
from csrecon.nets.coast import coast
from csrecon.nets.ista_net_plus import ista_net_plus
from csrecon.recursion import Limits, Order, Schedule, Unfolding
from csrecon.solvers import SOLVERS

ARCHITECTURES: dict[str, Callable[..., Unfolding]] = {
    "coast": coast,
    "ista-net-plus": ista_net_plus,
}
"""Builders of networks: name -> function of a schedule, limits and the card's arguments."""

PACKAGE = Path(__file__).parent
_SAME_RATIO = 0.05  # m is rounded, so that a level may differ a little from its ratio


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Trained(_Part):
    """What training covered."""

    ipl: int = Field(ge=1)
    ratios: tuple[float, float]

    @pydantic.model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 < self.ratios[0] <= self.ratios[1] <= 1:
            raise ValueError(f"ratios {self.ratios}: expected 0 < lowest <= highest <= 1")
        return self


class Allowed(_Part):
    """What a user may ask for."""

    ipl: int = Field(ge=1, le=1000)


class Blueprint(_Part):
    """Everything about a network but its weights."""

    architecture: str
    arguments: dict[str, Any] = {}
    schedule: tuple[Annotated[int, Field(ge=1, le=1000)], ...] = Field(min_length=1, max_length=256)
    order: Order = "layers"
    trained: Trained
    allowed: Allowed

    @pydantic.model_validator(mode="after")
    def _allows_what_it_uses(self) -> Self:
        if max(*self.schedule, self.trained.ipl) > self.allowed.ipl:
            raise ValueError("the schedule and the trained IPL must lie within the allowed IPL")
        return self

    def build(self) -> Unfolding:
        """Build the network with fresh weights.

        Raises:
            ModelError: unknown architecture, or arguments that it does not take.
        """
        if self.architecture not in ARCHITECTURES:
            raise ModelError(
                f"unknown architecture {self.architecture!r}: "
                f"{nearest(self.architecture, ARCHITECTURES)}"
            )
        builder = pydantic.validate_call(ARCHITECTURES[self.architecture])
        limits = Limits(self.trained.ipl, self.allowed.ipl, self.trained.ratios)
        try:
            return builder(Schedule(self.schedule, self.order), limits, **self.arguments)
        except (pydantic.ValidationError, TypeError) as error:
            raise ModelError(
                f"architecture {self.architecture!r} does not take {self.arguments}: {error}"
            ) from error


class Bundled(_Part):
    """A weights file that comes with the package."""

    file: str = Field(pattern=r"^[\w][\w.-]*\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Checkpoint(_Part):
    """One of the authors' `.pkl` files, converted once it is here.

    `phi` and `start` are the MATLAB files of its Φ and Q, where it works with no others.
    """

    checkpoint: Remote
    phi: Remote | None = None
    start: Remote | None = None


class Hub(_Part):
    """A file on the Hugging Face hub, at a pinned commit."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    file: str = Field("model.safetensors", pattern=r"^[\w][\w.-]*\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


Weights = Bundled | Checkpoint | Hub | Remote


class Result(_Part):
    """One table of figures: ratio -> (PSNR in dB, SSIM)."""

    dataset: str
    protocol: Protocol
    ipl: int
    values: dict[float, tuple[float, float]]
    source: str


class ModelCard(Blueprint):
    """An entry of models.yaml; weights may be one file, or one a ratio."""

    summary: str
    parameters: int
    licence: str
    source: str
    provenance: str
    weights: Weights | dict[float, Weights] | None
    published: tuple[Result, ...] = ()
    measured: tuple[Result, ...] = ()

    def blueprint(self) -> Blueprint:
        """The part of the card that weights files carry too."""
        return Blueprint(**{name: getattr(self, name) for name in Blueprint.model_fields})

    @property
    def per_ratio(self) -> bool:
        """Whether there is one weights file a ratio."""
        return isinstance(self.weights, Mapping)

    def weights_at(self, level: float | None) -> Weights:
        """The weights for a measurement of this level m/n, where there is one file a ratio.

        Raises:
            ModelError: no weights, or none for this level.
        """
        if self.weights is None:
            raise ModelError(f"no weights of this network are released yet ({self.summary}).")
        if not isinstance(self.weights, Mapping):
            return self.weights
        known = ", ".join(f"{ratio:g}" for ratio in self.weights)
        if level is None:
            raise ModelError(f"this network has weights for the ratios {known}: say which.")
        ratio = min(self.weights, key=lambda known: abs(known - level))
        if abs(ratio - level) > _SAME_RATIO * ratio:
            raise ModelError(
                f"this network has weights for the ratios {known}, and none for {level:.4g}."
            )
        return self.weights[ratio]

    def published_at(
        self, dataset: str, protocol: Protocol, ipl: str, ratio: float
    ) -> tuple[float, float] | None:
        """The paper's PSNR and SSIM there, or None."""
        for result in self.published:
            if (result.dataset, result.protocol, str(result.ipl)) == (dataset, protocol, ipl):
                return result.values.get(ratio)
        return None


class _Zoo(_Part):
    version: Literal[1]
    models: dict[str, ModelCard]


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(map(str, keys))):
            raise yaml.constructor.ConstructorError(
                None, None, f"a key stands twice among {keys}", node.start_mark
            )
        return super().construct_mapping(node, deep)


def read_cards(path: Path) -> dict[str, ModelCard]:
    """Read and validate a models.yaml.

    Raises:
        ModelError: not YAML, a key given twice, an unknown or a missing field.
    """
    try:
        files.require_file(path)
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
        return _Zoo.model_validate(content).models
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a valid list of models: {error}") from error


@cache
def cards() -> dict[str, ModelCard]:
    """The cards of the zoo by name, with those of the file that $CSRECON_MODELS names."""
    packed = PACKAGE / "models.yaml"  # in an installed package; a checkout has it at its root
    own = read_cards(packed if packed.exists() else PACKAGE.parents[1] / "models.yaml")
    extra = os.environ.get("CSRECON_MODELS")
    added = read_cards(Path(extra)) if extra else {}
    if taken := own.keys() & added:
        raise ModelError(f"{extra}: {', '.join(sorted(taken))}: names of csrecon's own models.")
    return own | added


def card(name: str) -> ModelCard:
    """The card of a model.

    Raises:
        ModelError: no model of that name; the nearest one is named.
    """
    if name in SOLVERS:
        raise ModelError(f"{name!r} is a classical solver: it has no card and no weights.")
    if name not in cards():
        raise ModelError(f"no model named {name!r}: {nearest(name, [*cards(), *SOLVERS])}")
    return cards()[name]
