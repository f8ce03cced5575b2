"""Convergence: objective, residual, gap and PSNR against the iteration and against seconds.

The input is what `csrecon reconstruct --json` prints of classical solvers, or `csrecon compare
--json` of any model, which alone knows PSNR and seconds. Values of zero have no place on a
logarithmic axis and are left out.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import InputError
from csrecon.evaluation.plot import Chart, Curve, charts, targets
from csrecon.io import documents

_LARGEST = 2**26  # bytes of a report
_LABELS = {
    "objective": "objective",
    "residual": "residual ‖Ax - y‖",
    "gap": "duality gap",
    "strength": "strength λ",
    "psnr": "PSNR (dB)",
}
_ACROSS = {
    "iteration": ("objective", "residual", "gap", "strength", "psnr"),
    "seconds": ("objective", "psnr"),
}
# Fact on the x axis -> the facts that are drawn against it, each in a figure of its own.


class _Result(BaseModel):
    """What the figures take from a result."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    measurement: Annotated[str, Field(max_length=4096)] = ""
    model: Annotated[str, Field(max_length=4096)]
    convergence: Annotated[list[dict[str, float]], Field(max_length=100_000)] = []


class _Compared(BaseModel):
    """What the figures take from a comparison: its results, which share the measurement."""

    results: Annotated[list[_Result], Field(max_length=10_000)]


_Results = pydantic.TypeAdapter(Annotated[list[_Result], Field(max_length=10_000)])


@dataclass(frozen=True)
class Trace:
    """The iterates of a reconstruction: its label, and their facts by name, with `iteration`."""

    label: str
    facts: Sequence[dict[str, float]]


def is_list(path: Path) -> bool:
    """Whether a file is a JSON list, as `reconstruct --json` prints, or a comparison.

    Raises:
        InputError: no such file.
    """
    text = documents.content(path, _LARGEST).lstrip()
    return text[:1] == b"[" or _is_comparison(text)


def read(path: Path) -> list[Trace]:
    """The traces of the results in a file.

    Raises:
        InputError: no such file, or no results with convergence in it.
    """
    text = documents.content(path, _LARGEST).lstrip()
    compared = _is_comparison(text)
    command = "compare" if compared else "reconstruct"
    try:
        results = (
            _Compared.model_validate_json(text).results
            if compared
            else _Results.validate_json(text)
        )
    except pydantic.ValidationError as error:
        raise InputError(
            f"{path}: not what `csrecon {command} --json` prints ({documents.faults(error)})."
        ) from error
    found = [
        Trace(", ".join(filter(None, (r.model, Path(r.measurement).name))), r.convergence)
        for r in results
        if r.convergence
    ]
    if not found:
        raise InputError(
            f"{path}: no convergence in it: `csrecon reconstruct --json` reports that of classical "
            "solvers only, `csrecon compare --json` that of every model."
        )
    return found


def _is_comparison(text: bytes) -> bool:
    """Whether a JSON text is an object with a figure, as `compare --json` prints."""
    return re.match(rb'\{\s*"figure"\s*:', text) is not None


def outputs(folder: Path) -> list[Path]:
    """The files that `draw` may write into a folder."""
    return [
        path
        for x, facts in _ACROSS.items()
        for y in facts
        for path in targets(folder / _name(y, x))
    ]


def _name(fact: str, across: str) -> str:
    return f"convergence_{fact}" + ("" if across == "iteration" else f"_{across}")


def draw(traces: Sequence[Trace], folder: Path, overwrite: bool = False) -> list[Path]:
    """Write the figures of every fact that a trace has twice or more.

    Returns:
        The files, PNG, PDF and CSV of each.

    Raises:
        UsageError: a file exists and `overwrite` is false.
        InputError: no fact gives a curve.
    """
    found = (_chart(traces, y, x) for x, facts in _ACROSS.items() for y in facts)
    written = charts(found, folder, overwrite)
    if not written:
        raise InputError("these results give no curve: run more than one iteration.")
    return written


def _chart(traces: Sequence[Trace], y: str, x: str) -> Chart:
    """The curves of a fact against iterations or seconds; those are logarithmic for PSNR."""
    cast: Callable[[float], float] = int if x == "iteration" else float
    lines = [
        Curve(t.label, [(cast(f[x]), f[y]) for f in t.facts if x in f and f.get(y, 0) > 0])
        for t in traces
    ]
    return Chart(_name(y, x), lines, x, _LABELS[y], "x" if y == "psnr" else "y")
