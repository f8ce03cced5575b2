"""The zoo: networks built from blueprints and loaded from weights files, by name or path.

A `.safetensors` file that csrecon wrote has its blueprint in its metadata, so it can be loaded
without any other file.
"""

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_bytes

from csrecon import _default
from csrecon.errors import ModelError, UsageError, nearest
from csrecon.reconstructors.base import Reconstructor
from csrecon.reconstructors.denoisers import DENOISERS, Denoiser
from csrecon.reconstructors.denoisers.network import NetworkDenoiser
from csrecon.reconstructors.options import build, options_of
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.reconstructors.solvers.denoise import Prior
from csrecon.reconstructors.solvers.frame import Solver
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator, IdentityOperator, SenseOperator
from csrecon.zoo import hub, store, weights_file
from csrecon.zoo.cards import card, cards

_WITH = "with"  # the option of a solver that names its denoiser


def split_name(text: str) -> tuple[str, dict[str, str]]:
    """`tv:iterations=200,last=0.001` -> the name of a model and its options, as texts.

    A path of a .safetensors file and `hf:owner/name` have no options.

    Raises:
        UsageError: text after the colon that is not name=value.
    """
    name, colon, rest = text.partition(":")
    if text.startswith(hub.PREFIX) or (text.endswith(".safetensors") and name not in SOLVERS):
        return text, {}
    return name, _options(f"model {text!r}", rest.split(",") if colon else [], "NAME:a=1,b=2")


def _options(label: str, parts: list[str], form: str) -> dict[str, str]:
    """Options by name, as texts, from parts that are each name=value."""
    options: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not (equals and key.strip() and value.strip()):
            raise UsageError(
                f"{label}: {part!r} is no option; expected NAME:option=value, as {form}."
            )
        if key.strip() in options:
            raise UsageError(f"{label}: {key.strip()!r} is given twice.")
        options[key.strip()] = value.strip()
    return options


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


def split_ipl(text: str) -> tuple[str, int | None]:
    """`rcoast@6` or `mine.safetensors@6` -> the model and its IPL, None without one.

    The `@` of a path and of `hf:owner/name@revision` belongs to the name.

    Raises:
        UsageError: no number after the @.
    """
    name, at, count = text.rpartition("@")
    if not at or text.startswith(hub.PREFIX) or text.endswith(".safetensors"):
        return text, None
    if not re.fullmatch(r"\d{1,4}", count):
        raise UsageError(f"model {text!r}: expected {name}@IPL, as {name}@4.")
    return name, int(count)


def default(m: Measurement) -> str:
    """The model for a measurement if none is named, by its operator and kind of image."""
    is_complex = m.operator.domain[0] == 2
    if isinstance(m.operator, IdentityOperator):
        return _default.COMPLEX_IDENTITY if is_complex else _default.IDENTITY
    kspace = isinstance(m.operator, FourierOperator | SenseOperator)
    return _default.KSPACE if kspace or is_complex else _default.MODEL


def is_solver(text: str) -> bool:
    """Whether a name, with or without options, is that of a classical solver."""
    return split_name(text)[0] in SOLVERS


def load(name: str | Path, ratio: float | None = None) -> Reconstructor:
    """Load a model.

    Args:
        name: a network of the zoo, a classical solver with options as `tv:iterations=200`, the
            path of a .safetensors file, or `hf:owner/name[@revision]` on the Hugging Face hub. A
            network of the zoo or a path in a text may have an IPL, as `rcoast@6`.
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
        return _solver(model, options)
    if model.endswith(".safetensors"):
        return weights_file.load(Path(model))
    if model.startswith(hub.PREFIX):
        return weights_file.load(hub.model(model))
    model, ipl = split_ipl(model)
    if ipl is not None:
        return execution.at_ipl(load(model, ratio), ipl)
    entry = card(model)
    if options:
        raise ModelError(
            f"model {name!r}: a network has no options; iterations per layer are --ipl, or "
            f"{model}@IPL."
        )
    path = store.weights_path(model, ratio)
    if entry.per_ratio:  # each file has its own blueprint, with its Φ
        return weights_file.load(path)
    return weights_file.build(entry.blueprint(), path)


def _solver(name: str, options: dict[str, Any]) -> Reconstructor:
    if _WITH in options_of(SOLVERS[name]):
        options = {**options, _WITH: denoiser(options.get(_WITH, _default.DENOISER))}
    try:
        return build(SOLVERS, "solver", name, options)
    except ModelError as error:
        raise UsageError(str(error)) from error


def denoiser(text: str) -> Denoiser:
    """A denoiser by name.

    Args:
        text: `wavelet`, or with options `nlm:patch=5:distance=9`; or a network that was trained
            for denoising, as in `load`.

    Raises:
        UsageError: unknown name or option.
        ModelError, InputError, ResourceError: of a network, as in `load`, or one that was trained
            for something else.
    """
    name, *parts = text.split(":")
    if name in DENOISERS:
        options = _options(f"denoiser {text!r}", parts, "NAME:a=1:b=2")
        try:
            return build(DENOISERS, "denoiser", name, options)
        except ModelError as error:
            raise UsageError(str(error)) from error
    model, _ = split_ipl(text)
    is_file = model.endswith(".safetensors") or model.startswith(hub.PREFIX)
    if not is_file and model not in cards():
        known = [*DENOISERS, *(name for name, c in cards().items() if c.task == "denoising")]
        raise UsageError(f"unknown denoiser {model!r}: {nearest(model, known)}")
    network = load(text)
    if not isinstance(network, Unfolding):
        raise UsageError(f"{text!r} is no denoiser.")
    network.check_allowed()
    try:
        return NetworkDenoiser(network)
    except ModelError as error:
        raise ModelError(f"model {text!r}: {error}") from error


def identity(model: Reconstructor | Denoiser) -> dict[str, Any]:
    """What results depend on: blueprint and weights, or the name and options of a solver.

    Raises:
        ModelError: a model that was not built by name.
    """
    if isinstance(model, NetworkDenoiser):
        return {**identity(model.network), "ipl": str(model.network.schedule)}
    if isinstance(model, Unfolding) and model.blueprint is not None:
        return {
            "blueprint": json.loads(model.blueprint),
            "weights": hashlib.sha256(to_bytes(weights_file.tensors(model))).hexdigest(),
        }
    for name, solver in SOLVERS.items():
        if type(model) is solver and isinstance(model, Solver):
            found = {"solver": name, **model.identity()}
            return found | {_WITH: identity(model.with_)} if isinstance(model, Prior) else found
    for name, build_denoiser in DENOISERS.items():
        if type(model) is build_denoiser and dataclasses.is_dataclass(model):
            return {"denoiser": name, **dataclasses.asdict(model)}
    raise ModelError(f"{type(model).__name__}: has no name in the zoo, so it cannot be identified.")
