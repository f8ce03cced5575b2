"""Model cards: the validated entries of models.yaml.

A card holds a blueprint (csrecon.reconstructors.blueprint), the location of the weights, and the
published and measured results. $CSRECON_MODELS names a file with your own models.
"""

import os
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import ModelError, nearest
from csrecon.io import documents, files
from csrecon.io.downloads import Remote
from csrecon.metrics import Protocol
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.solvers import SOLVERS

_HERE = Path(__file__).parent
BUNDLED = _HERE / "bundled"
"""Folder of the weights that come with the package."""
REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"
"""Pattern of owner/name on the hub; like a model's name, it is part of paths in the cache."""
_NAME = r"^\w[\w.+-]*$"  # of a model: a folder of the cache has it
_Ratio = Annotated[float, Field(gt=0, le=1)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_SAME_RATIO = 0.05  # relative; m is rounded, so a ratio may differ slightly from the nominal one


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Bundled(_Part):
    """A weights file that comes with the package."""

    file: str = Field(pattern=r"^[\w][\w.-]*\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Checkpoint(_Part):
    """A checkpoint of the authors, converted after the download: a `.pkl`, or `.mat` of DnCNN.

    `phi` and `start` are the MATLAB files of its Φ and Q, if it works with these only.
    """

    checkpoint: Remote
    phi: Remote | None = None
    start: Remote | None = None


class Hub(_Part):
    """A file on the Hugging Face hub, at a pinned commit."""

    repository: str = Field(pattern=f"^{REPOSITORY}$")
    revision: str = Field(pattern="^[0-9a-f]{40}$")
    file: str = Field("model.safetensors", pattern=r"^[\w][\w.-]*\.safetensors$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


Weights = Bundled | Checkpoint | Hub | Remote


class Result(_Part):
    """One table of results: ratio -> (PSNR in dB, SSIM)."""

    dataset: str
    protocol: Protocol
    ipl: _Count
    values: dict[_Ratio, tuple[float, float]]
    source: str


class ModelCard(Blueprint):
    """An entry of models.yaml; per-ratio weights are one file per ratio."""

    summary: str
    parameters: _Count
    licence: str
    source: str
    provenance: str
    weights: Weights | Annotated[dict[_Ratio, Weights], Field(min_length=1)] | None
    published: tuple[Result, ...] = ()
    measured: tuple[Result, ...] = ()

    def blueprint(self) -> Blueprint:
        """The part of the card that weights files also contain."""
        return Blueprint(**{name: getattr(self, name) for name in Blueprint.model_fields})

    @property
    def per_ratio(self) -> bool:
        """Whether there are per-ratio weights."""
        return isinstance(self.weights, Mapping)

    def weights_at(self, asked: float | None) -> Weights:
        """The weights for a measurement of this ratio m/n.

        Raises:
            ModelError: no weights, or per-ratio weights and none for this ratio.
        """
        if self.weights is None:
            raise ModelError(f"no weights of this network are released yet ({self.summary}).")
        if not isinstance(self.weights, Mapping):
            return self.weights
        known = ", ".join(f"{ratio:g}" for ratio in self.weights)
        if asked is None:
            raise ModelError(f"this network has weights for the ratios {known}: give the ratio.")
        ratio = min(self.weights, key=lambda known: abs(known - asked))
        if abs(ratio - asked) > _SAME_RATIO * ratio:
            raise ModelError(
                f"this network has weights for the ratios {known}, and none for {asked:.4g}."
            )
        return self.weights[ratio]

    def published_at(
        self, dataset: str, protocol: Protocol, ipl: str, ratio: float
    ) -> tuple[float, float] | None:
        """The paper's PSNR and SSIM under these conditions, or None."""
        for result in self.published:
            if (result.dataset, result.protocol, str(result.ipl)) == (dataset, protocol, ipl):
                return result.values.get(ratio)
        return None


class _Zoo(_Part):
    version: Literal[1, 2]
    models: dict[Annotated[str, Field(pattern=_NAME, max_length=100)], ModelCard]


def read_cards(path: Path) -> dict[str, ModelCard]:
    """Read and validate a models.yaml.

    Raises:
        ModelError: not YAML, a key given twice, an unknown or a missing field.
    """
    files.require_file(path)
    try:
        with files.reading(path), path.open(encoding="utf-8") as stream:
            text = stream.read(documents.LARGEST + 1)
        return _Zoo.model_validate(documents.plain(text)).models
    except pydantic.ValidationError as error:
        raise ModelError(
            f"{path}: not a valid list of models: {documents.faults(error)}"
        ) from error
    except ValueError as error:
        raise ModelError(f"{path}: not a valid list of models: {error}") from error


@cache
def _own() -> dict[str, ModelCard]:
    packed = _HERE / "models.yaml"  # of an installed package; a checkout has the file at its root
    return read_cards(packed if packed.exists() else _HERE.parents[2] / "models.yaml")


@lru_cache(maxsize=4)
def _added(path: Path, _changed: int) -> dict[str, ModelCard]:
    added = read_cards(path)
    if taken := (_own().keys() | SOLVERS.keys()) & added.keys():
        raise ModelError(
            f"{path}: {', '.join(sorted(taken))}: names that csrecon's own models have."
        )
    return added


def cards() -> dict[str, ModelCard]:
    """All model cards by name, including those of the file in $CSRECON_MODELS."""
    extra = os.environ.get("CSRECON_MODELS")
    if not extra:
        return _own()
    path = Path(extra)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return _own() | _added(path, changed)


def card(name: str) -> ModelCard:
    """The card of a model.

    Raises:
        ModelError: no model of that name; the message names the closest one.
    """
    if name in SOLVERS:
        raise ModelError(f"{name!r} is a classical solver: it has no card and no weights.")
    if name not in cards():
        raise ModelError(f"no model named {name!r}: {nearest(name, [*cards(), *SOLVERS])}")
    return cards()[name]
