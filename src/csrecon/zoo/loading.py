"""The zoo: networks built from blueprints and loaded from weights files, by name or path.

A `.safetensors` file that csrecon wrote has its blueprint in its metadata, so it can be loaded
without any other file.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes

from csrecon.errors import ModelError, UsageError
from csrecon.reconstructors.base import Reconstructor
from csrecon.reconstructors.options import build
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.reconstructors.solvers.frame import Solver
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.zoo import hub, store, weights_file
from csrecon.zoo.cards import card


def split_name(text: str) -> tuple[str, dict[str, str]]:
    """`tv:iterations=200,last=0.001` -> the name of a model and its options, as texts.

    A path of a .safetensors file and `hf:owner/name` have no options.

    Raises:
        UsageError: text after the colon that is not name=value.
    """
    if text.startswith(hub.PREFIX) or text.endswith(".safetensors"):
        return text, {}
    name, colon, rest = text.partition(":")
    options = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = part.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise UsageError(
                f"model {text!r}: {part!r} is no option; expected NAME:option=value,option=value."
            )
        if key.strip() in options:
            raise UsageError(f"model {text!r}: {key.strip()!r} is given twice.")
        options[key.strip()] = value.strip()
    return name, options


def split_names(text: str) -> list[str]:
    """`tv,fista:iterations=9,size=8,omp` -> the names of several models, each with its options.

    A part after a comma that is name=value is an option of the model before it. The path of a
    .safetensors file is one name.
    """
    if text.endswith(".safetensors"):
        return [text]
    names: list[str] = []
    for part in text.split(","):
        if names and ":" in names[-1] and ":" not in part and "=" in part:
            names[-1] += f",{part}"
        else:
            names.append(part)
    return names


def is_solver(text: str) -> bool:
    """Whether a name, with or without options, is that of a classical solver."""
    return split_name(text)[0] in SOLVERS


def load(name: str | Path, ratio: float | None = None) -> Reconstructor:
    """Load a model.

    Args:
        name: a network of the zoo, a classical solver with options as `tv:iterations=200`, the
            path of a .safetensors file, or `hf:owner/name[@revision]` on the Hugging Face hub.
        ratio: m/n of the measurement, for networks with per-ratio weights.

    Raises:
        ModelError: unknown name, no weights, or weights that are damaged or do not fit.
        UsageError: options not written as name=value, or that the solver does not take.
        InputError: a path to no file.
        ResourceError: downloaded weights cannot be stored.
    """
    if isinstance(name, Path):
        return weights_file.load(name)
    model, options = split_name(name)
    if model in SOLVERS:
        try:
            return build(SOLVERS, "solver", model, options)
        except ModelError as error:
            raise UsageError(str(error)) from error
    if model.endswith(".safetensors"):
        return weights_file.load(Path(model))
    if model.startswith(hub.PREFIX):
        return weights_file.load(hub.model(model))
    entry = card(model)
    if options:
        raise ModelError(
            f"model {name!r}: a network has no options; iterations per layer are --ipl, or "
            f"{model}@IPL in `compare`."
        )
    path = store.weights_path(model, ratio)
    if entry.per_ratio:  # each file has its own blueprint, with its Φ
        return weights_file.load(path)
    return weights_file.build(entry.blueprint(), path)


def identity(model: Reconstructor) -> dict[str, Any]:
    """What a model's results depend on: blueprint and weights, or a solver's name and options.

    Raises:
        ModelError: a model that was not built by name.
    """
    if isinstance(model, Unfolding) and model.blueprint is not None:
        return {
            "blueprint": json.loads(model.blueprint),
            "weights": hashlib.sha256(to_bytes(weights_file.tensors(model))).hexdigest(),
        }
    for name, solver in SOLVERS.items():
        if type(model) is solver and isinstance(model, Solver):
            return {"solver": name, **model.identity()}
    raise ModelError(f"{type(model).__name__}: has no name in the zoo, so it cannot be identified.")
