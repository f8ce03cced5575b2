"""Parts that are chosen by name, with options checked against their signature.

Networks, modulations, starts and solvers are chosen by a name and options, in a weights file, in
models.yaml or on the command line. The signature of the class or function defines the options.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pydantic
from pydantic import ConfigDict

from csrecon.errors import ModelError, nearest
from csrecon.io.documents import short

Built = TypeVar("Built")


def options_of(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options that a class or function takes, by name.

    An option `with` is the argument `with_`, because Python keeps the word for itself (PEP 8).
    """
    found = inspect.signature(build).parameters.values()
    return {p.name.rstrip("_"): p for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def build(
    registry: Mapping[str, Callable[..., Built]], what: str, name: str, options: Mapping[str, Any]
) -> Built:
    """Build a part by name with its options; texts are converted to the annotated types.

    Args:
        registry: name -> class or function.
        what: the kind of part in messages, such as `solver`.
        name: of the part.
        options: by name.

    Raises:
        ModelError: an unknown name, an option that the part does not take, or an invalid value.
    """
    if name not in registry:
        raise ModelError(f"unknown {what} {name!r}: {nearest(name, registry)}")
    known = options_of(registry[name])
    for option in options:
        if option not in known:
            hint = nearest(option, known) if known else "it takes none."
            raise ModelError(f"{what} {name!r} has no option {option!r}: {hint}")
    fields: dict[str, Any] = {
        key: (p.annotation, ... if p.default is p.empty else p.default) for key, p in known.items()
    }
    model = pydantic.create_model("Options", __config__=ConfigDict(extra="forbid"), **fields)
    try:
        checked = model(**options)
    except pydantic.ValidationError as error:
        faults: dict[str, list[str]] = {}
        for e in error.errors()[:3]:  # several for a value that may be of several types
            faults.setdefault(f"{e['loc'][0]}={short(e['input'])}", []).append(e["msg"].lower())
        told = "; ".join(f"{value}: {' or '.join(said)}" for value, said in faults.items())
        raise ModelError(f"{what} {name!r}: {told}.") from error
    return registry[name](**{p.name: getattr(checked, key) for key, p in known.items()})
