"""The zoo: networks built from blueprints and loaded from weights files, by name or path.

A `.safetensors` file that csrecon wrote carries its blueprint in its metadata, so it alone is
enough to load it.
"""

import json
from pathlib import Path

import pydantic
import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from csrecon import depot, files, hub
from csrecon.cards import Blueprint, card
from csrecon.errors import ModelError
from csrecon.recursion import Reconstructor, Unfolding
from csrecon.solvers import SOLVERS

_METADATA_KEY = "csrecon"


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


def load(name: str | Path, level: float | None = None) -> Reconstructor:
    """Load a model.

    Args:
        name: a network of the zoo, a classical solver, the path of a .safetensors file, or
            `hf:owner/name[@revision]` on the Hugging Face hub.
        level: m/n of the measurement, for networks that have weights a ratio.

    Raises:
        ModelError: unknown name, no weights, or weights that are damaged or do not fit.
        InputError: a path to no file.
        ResourceError: downloaded weights cannot be kept.
    """
    if isinstance(name, Path) or name.endswith(".safetensors"):
        return load_file_model(Path(name))
    if name.startswith(hub.PREFIX):
        return load_file_model(hub.model(name))
    if name in SOLVERS:
        return SOLVERS[name]()
    entry = card(name)
    path = depot.weights_path(name, level)
    if entry.per_ratio:  # its files say themselves which Φ they fit
        return load_file_model(path)
    return _with_weights(entry.blueprint(), path)


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
