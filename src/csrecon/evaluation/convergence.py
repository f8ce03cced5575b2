"""Convergence of classical solvers: objective, residual and gap against the iteration.

The input is what `csrecon reconstruct --json` prints. Values of zero have no place on the
logarithmic axis and are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import InputError
from csrecon.evaluation.plot import Curve, curves, targets
from csrecon.io import documents

_LARGEST = 2**26  # bytes of a report
LABELS = {
    "objective": "objective",
    "residual": "residual ‖Ax - y‖",
    "gap": "duality gap",
    "strength": "strength λ",
}
"""Fact -> label of its axis; every fact has a figure of its own."""


class _Result(BaseModel):
    """What the figures take from a result."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    measurement: Annotated[str, Field(max_length=4096)]
    model: Annotated[str, Field(max_length=4096)]
    convergence: Annotated[list[dict[str, float]], Field(max_length=100_000)] = []


_Results = pydantic.TypeAdapter(Annotated[list[_Result], Field(max_length=10_000)])


@dataclass(frozen=True)
class Trace:
    """The iterates of a reconstruction: its label, and their facts by name, with `iteration`."""

    label: str
    facts: Sequence[dict[str, float]]


def is_list(path: Path) -> bool:
    """Whether a file is a JSON list, as `reconstruct --json` prints, and no report of `bench`.

    Raises:
        InputError: no such file.
    """
    return documents.content(path, _LARGEST).lstrip()[:1] == b"["


def read(path: Path) -> list[Trace]:
    """The traces of the results in a file.

    Raises:
        InputError: no such file, or no results with convergence in it.
    """
    try:
        results = _Results.validate_json(documents.content(path, _LARGEST))
    except pydantic.ValidationError as error:
        raise InputError(
            f"{path}: not what `csrecon reconstruct --json` prints ({documents.faults(error)})."
        ) from error
    found = [
        Trace(f"{result.model}, {Path(result.measurement).name}", result.convergence)
        for result in results
        if result.convergence
    ]
    if not found:
        raise InputError(f"{path}: no convergence in it: only classical solvers report it.")
    return found


def outputs(folder: Path) -> list[Path]:
    """The files that `draw` may write into a folder."""
    return [path for name in LABELS for path in targets(folder / f"convergence_{name}")]


def draw(traces: Sequence[Trace], folder: Path, overwrite: bool = False) -> list[Path]:
    """Write a figure of every fact that a trace has twice or more.

    Returns:
        The files, PNG, PDF and CSV of each.

    Raises:
        UsageError: a file exists and `overwrite` is false.
        InputError: no fact gives a curve.
    """
    written: list[Path] = []
    for name, label in LABELS.items():
        lines = []
        for trace in traces:
            points = [(int(f["iteration"]), f[name]) for f in trace.facts if f.get(name, 0) > 0]
            if len(points) > 1:
                lines.append(Curve(trace.label, points))
        if lines:
            target = folder / f"convergence_{name}"
            written += curves(lines, target, "iteration", label, "y", overwrite)
    if not written:
        raise InputError("these results give no curve: run more than one iteration.")
    return written
