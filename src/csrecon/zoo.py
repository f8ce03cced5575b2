"""The model zoo: cards read from models.yaml, and networks built and loaded from them.

A network is a blueprint (architecture, arguments, schedule, limits) and weights. The blueprint
stands on the card in models.yaml and, as JSON, in the metadata of every weights file that
csrecon writes, so a `.safetensors` file alone is enough to load it.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic
import safetensors
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from csrecon import files
from csrecon.errors import ModelError, nearest
from csrecon.metrics import Protocol
from csrecon.nets.coast import coast
from csrecon.nets.ista_net_plus import ista_net_plus
from csrecon.recursion import Limits, Order, Reconstructor, Schedule, Unfolding
from csrecon.solvers import SOLVERS

ARCHITECTURES: dict[str, Callable[..., Unfolding]] = {
    "coast": coast,
    "ista-net-plus": ista_net_plus,
}
"""Builders of networks: name -> function of a schedule, limits and the card's arguments."""

_PACKAGE = Path(__file__).parent
_METADATA_KEY = "csrecon"


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


class Weights(_Part):
    """A weights file that comes with the package."""

    file: str = Field(pattern=r"^[\w.-]+\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Result(_Part):
    """One table of figures: ratio -> (PSNR in dB, SSIM)."""

    dataset: str
    protocol: Protocol
    ipl: int
    values: dict[float, tuple[float, float]]
    source: str


class ModelCard(Blueprint):
    """An entry of models.yaml."""

    summary: str
    parameters: int
    licence: str
    source: str
    provenance: str
    weights: Weights | None
    published: tuple[Result, ...] = ()
    measured: tuple[Result, ...] = ()

    def blueprint(self) -> Blueprint:
        """The part of the card that weights files carry too."""
        return Blueprint(**{name: getattr(self, name) for name in Blueprint.model_fields})

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
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
        return _Zoo.model_validate(content).models
    except (yaml.YAMLError, pydantic.ValidationError) as error:
        raise ModelError(f"{path}: not a valid list of models: {error}") from error


@cache
def cards() -> dict[str, ModelCard]:
    """The cards of the zoo, by name."""
    packed = _PACKAGE / "models.yaml"  # in an installed package; a checkout has it at its root
    return read_cards(packed if packed.exists() else _PACKAGE.parents[1] / "models.yaml")


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


def weights_path(name: str) -> Path:
    """The verified weights file of a model.

    Raises:
        ModelError: the model has no weights yet, or the file is missing or altered.
    """
    weights = card(name).weights
    if weights is None:
        ready = ", ".join(n for n, c in cards().items() if c.weights)
        raise ModelError(f"model {name!r} has no released weights yet; models with: {ready}.")
    path = _PACKAGE / "weights" / weights.file
    if not path.exists() or files.sha256_file(path) != weights.sha256:
        raise ModelError(
            f"{path}: the weights of {name!r} are missing or altered; reinstall csrecon."
        )
    return path


def read_blueprint(path: Path) -> Blueprint:
    """The blueprint in the metadata of a weights file.

    Raises:
        InputError: no such file.
        ModelError: not a safetensors file, or one without csrecon's metadata.
    """
    files.require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error
    if _METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: carries no architecture in its metadata (key {_METADATA_KEY!r}), so it "
            "cannot be built. Weights saved by csrecon do; `csrecon models convert` adds it to "
            "the authors' checkpoints."
        )
    try:
        return Blueprint.model_validate_json(metadata[_METADATA_KEY])
    except pydantic.ValidationError as error:
        raise ModelError(f"{path}: its metadata describe no network: {error}") from error


def load_file_model(path: Path) -> Unfolding:
    """The network of a weights file that carries its blueprint, in evaluation mode.

    Raises:
        InputError: no such file.
        ModelError: not such a file, or weights that do not fit the blueprint.
    """
    return _with_weights(read_blueprint(path), path)


def _with_weights(blueprint: Blueprint, path: Path) -> Unfolding:
    network = blueprint.build()
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: its weights do not fit the network: {error}") from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise ModelError(f"{path}: its weights hold NaN or infinite values.")
    return network.float().eval()


def load(name: str | Path) -> Reconstructor:
    """Load a network of the zoo or a classical solver by name, or a .safetensors file by path.

    Raises:
        ModelError: unknown name, no weights, or weights that are damaged or do not fit.
        InputError: a path to no file.
    """
    if isinstance(name, Path) or name.endswith(".safetensors"):
        return load_file_model(Path(name))
    if name in SOLVERS:
        return SOLVERS[name]()
    return _with_weights(card(name).blueprint(), weights_path(name))


def save(network: Unfolding, blueprint: Blueprint, path: Path, overwrite: bool = False) -> None:
    """Write a network's weights with its blueprint as a .safetensors file.

    Raises:
        UsageError: the file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    metadata = {_METADATA_KEY: json.dumps(blueprint.model_dump(mode="json"))}
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    with files.new_files(path, overwrite=overwrite) as (temporary,):
        temporary.write_bytes(to_bytes(tensors, metadata))
