"""Weights files: .safetensors with the blueprint of the network in the metadata.

One file is enough to build the network and load its weights.
"""

import json
from pathlib import Path

import pydantic
import safetensors
import torch
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from csrecon.errors import ModelError, enough_memory
from csrecon.io import documents, files
from csrecon.io.text import printable
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.unfolding import Unfolding

_METADATA_KEY, _MADE_FROM = "csrecon", "made_from"
_LONGEST = 2000  # characters of what a file was made from
_TYPES = ("F16", "BF16", "F32", "F64")


def read_blueprint(path: Path) -> Blueprint:
    """The blueprint in the metadata of a weights file.

    Raises:
        InputError: no such file.
        ModelError: not a safetensors file, or one without csrecon's metadata.
    """
    metadata = _metadata(path)
    if _METADATA_KEY not in metadata:
        raise ModelError(
            f"{path}: carries no architecture in its metadata (key {_METADATA_KEY!r}), so it "
            "cannot be built. Weights saved by csrecon have one; `csrecon models convert` adds it "
            "to the authors' checkpoints."
        )
    if len(metadata[_METADATA_KEY]) > documents.LARGEST:
        raise ModelError(f"{path}: its metadata are too long to describe a network.")
    try:
        return Blueprint.model_validate_json(metadata[_METADATA_KEY])
    except pydantic.ValidationError as error:
        faults = documents.faults(error)
        raise ModelError(f"{path}: its metadata do not describe a network: {faults}") from error


def _metadata(path: Path) -> dict[str, str]:
    files.require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            return stream.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error


def load(path: Path) -> Unfolding:
    """The network of a weights file with a blueprint, in evaluation mode.

    Raises:
        InputError: no such file.
        ModelError: no blueprint, or weights that do not fit it.
    """
    return build(read_blueprint(path), path)


def build(blueprint: Blueprint, path: Path) -> Unfolding:
    """The network of a blueprint with the weights of a file, in evaluation mode.

    Raises:
        ModelError: weights that do not fit the blueprint, or hold NaN.
    """
    _check_shapes(blueprint, path)
    network = blueprint.build()
    try:
        with enough_memory(str(path)):
            network.load_state_dict(load_file(path))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: its weights do not fit the network: {error}") from error
    if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
        raise ModelError(f"{path}: its weights hold NaN or infinite values.")
    return network.float().eval()


def _check_shapes(blueprint: Blueprint, path: Path) -> None:
    """Compare the header of a weights file with its blueprint before anything is allocated."""
    expected = blueprint.shapes()
    found = {}
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - not a mapping
                part = stream.get_slice(name)
                if part.get_dtype() not in _TYPES:
                    raise ModelError(
                        f"{path}: {name!r} is of type {part.get_dtype()}; expected one of "
                        f"{', '.join(_TYPES)}."
                    )
                found[name] = tuple(part.get_shape())
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable safetensors file ({error}).") from error
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ModelError(
                f"{path}: its weights do not fit the network: {name[:100]!r} has the shape "
                f"{found.get(name, 'of nothing, as it is missing')}, and the blueprint gives "
                f"{expected.get(name, 'no such weights')}."
            )


def tensors(network: Unfolding) -> dict[str, Tensor]:
    """The weights of a network by name, on the CPU."""
    return {key: value.cpu().contiguous() for key, value in network.state_dict().items()}


def read_made_from(path: Path) -> str | None:
    """What the weights of a file were made from, as `save` was told; None if it was not.

    Raises:
        InputError: no such file.
        ModelError: not a safetensors file.
    """
    text = _metadata(path).get(_MADE_FROM)
    return text if text is None else printable(text[:_LONGEST])


def save(
    network: Unfolding,
    blueprint: Blueprint,
    path: Path,
    overwrite: bool = False,
    made_from: str | None = None,
) -> None:
    """Write a network's weights with its blueprint as a .safetensors file.

    Args:
        network, blueprint: the weights, and what they are of.
        path: of the file.
        overwrite: replace an existing file.
        made_from: plain text about what the weights were made from. Nothing depends on it, and
            readers without this key ignore it.

    Raises:
        UsageError: the file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    metadata = {_METADATA_KEY: json.dumps(blueprint.model_dump(mode="json"))}
    if made_from is not None:
        metadata[_MADE_FROM] = made_from
    with files.new_files(path, overwrite=overwrite) as (temporary,):
        temporary.write_bytes(to_bytes(tensors(network), metadata))
