"""Figures of a benchmark: the results of a report as curves.

ratio        PSNR against the sampling ratio, a curve per model and IPL
noise        PSNR against the noise on y, a curve per model and ratio
ipl          PSNR against IPL, a curve per model and ratio
seconds      PSNR against seconds per image, along IPL, a curve per model and ratio
parameters   PSNR against the number of parameters, a curve per ratio
iterations   of a preset: PSNR against the total iterations, a curve per network and kind
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from csrecon.errors import InputError
from csrecon.evaluation import presets
from csrecon.evaluation.plot import Chart, Curve, charts, curves, targets
from csrecon.io import documents
from csrecon.zoo import cards

_LARGEST = 2**26  # bytes of a report
Record = dict[str, Any]
_ITERATIONS = "psnr_iterations"
_KIND: dict[presets.Kind, tuple[str, Literal["solid", "dashed", "none"]]] = {
    "paper": ("paper", "none"),
    "authors": ("authors' weights", "dashed"),
    "csrecon": ("csrecon", "solid"),
}


class _Cell(BaseModel):
    """What the figures take from a cell of a report; `psnr` is None where it is infinite."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    model: str = Field(max_length=4096)
    ratio: float
    psnr: float | None
    ipl: Annotated[str, Field(max_length=4096)]
    seconds: float
    kind: str = Field("gaussian", max_length=100)
    block: int | None = Field(None, ge=0, lt=2**63)
    noise_sigma: float = 0.0


class _Report(BaseModel):
    cells: Annotated[list[_Cell], Field(max_length=10_000)]


@dataclass(frozen=True)
class _Kind:
    """A kind of figure: its x value, the cells that share a curve, and the labels.

    Attributes:
        named: points are labelled with their models.
        points: a model with one point, such as a plain network, is drawn too.
    """

    x: Callable[[Record], float | None]
    curve: Callable[[Record], str]
    label: str
    logarithmic: Literal["", "x"] = ""
    named: bool = False
    points: bool = False


def _ipl(cell: Record) -> float | None:
    return float(cell["ipl"]) if cell["ipl"].isdecimal() and len(cell["ipl"]) < 5 else None


def _parameters(cell: Record) -> float | None:
    card = cards.cards().get(cell["model"])
    own = card is not None and cell["ipl"] == str(max(card.recursion.schedule))
    return float(card.parameters) if card is not None and own else None


def _measured(cell: Record, noise: bool = True) -> str:
    """The conditions of a cell, if they are not those of the papers."""
    kind = cell.get("kind", "gaussian")
    texts = [
        "" if kind == "gaussian" else kind,
        f"blocks of {cell['block']}" if cell.get("block") else "",
        f"σ {cell['noise_sigma']:g}" if noise and cell.get("noise_sigma") else "",
    ]
    return "".join(f", {text}" for text in texts if text)


def _at_ratio(cell: Record) -> str:
    return f"{cell['model']}, {100 * cell['ratio']:g} %{_measured(cell)}"


def _at_ratio_and_ipl(cell: Record) -> str:
    ipl = f", IPL {cell['ipl']}" if cell["ipl"] else ""
    return f"{cell['model']}{ipl}, {100 * cell['ratio']:g} %{_measured(cell, noise=False)}"


KINDS: dict[str, _Kind] = {
    "ratio": _Kind(
        lambda cell: float(cell["ratio"]),
        lambda c: c["model"] + (f", IPL {c['ipl']}" if c["ipl"] else "") + _measured(c),
        "sampling ratio",
    ),
    "noise": _Kind(
        lambda cell: float(cell.get("noise_sigma", 0.0)),
        _at_ratio_and_ipl,
        "standard deviation of the noise on y",
    ),
    "ipl": _Kind(_ipl, _at_ratio, "iterations per layer"),
    "seconds": _Kind(
        lambda cell: cell["seconds"], _at_ratio, "seconds per image", "x", points=True
    ),
    "parameters": _Kind(
        _parameters,
        lambda c: f"{100 * c['ratio']:g} %{_measured(c)}",
        "parameters",
        "x",
        named=True,
    ),
}


def read_cells(path: Path) -> list[Record]:
    """The cells of a report that `csrecon bench -o REPORT.json` wrote.

    Raises:
        InputError: no such file, or not such a report.
    """
    try:
        report = _Report.model_validate_json(documents.content(path, _LARGEST))
    except pydantic.ValidationError as error:
        raise InputError(
            f"{path}: not a report of `csrecon bench -o FILE.json` ({documents.faults(error)})."
        ) from error
    return [cell.model_dump() for cell in report.cells if cell.psnr is not None]


def outputs(folder: Path) -> list[Path]:
    """The files that `draw` may write into a folder."""
    return [path for name in KINDS for path in targets(folder / f"psnr_{name}")]


def draw(cells: Sequence[Record], folder: Path, overwrite: bool = False) -> list[Path]:
    """Write every figure for which the cells give a curve of at least two points.

    Returns:
        The files, PNG, PDF and CSV of each.

    Raises:
        UsageError: a file exists and `overwrite` is false.
        InputError: the cells give no curve.
    """
    written = charts((_chart(name, cells) for name in KINDS), folder, overwrite)
    if not written:
        raise InputError("this report gives no curve: run several ratios, IPLs or models.")
    return written


def _chart(name: str, cells: Sequence[Record]) -> Chart:
    """The curves of one kind of figure."""
    kind = KINDS[name]
    points: dict[str, dict[float, Record]] = {}
    for cell in cells:
        x = kind.x(cell)
        if x is not None:
            points.setdefault(kind.curve(cell), {})[x] = cell
    lines = [
        Curve(
            label,
            [(x, found[x]["psnr"]) for x in sorted(found)],
            names=[found[x]["model"] for x in sorted(found)] if kind.named else (),
        )
        for label, found in points.items()
    ]
    return Chart(f"psnr_{name}", lines, kind.label, "PSNR (dB)", kind.logarithmic, kind.points)


def preset_paths(folder: Path) -> list[Path]:
    """The files of the figure of a preset."""
    return targets(folder / _ITERATIONS)


def draw_preset(
    table: presets.Preset, results: Sequence[presets.Result], folder: Path, overwrite: bool = False
) -> list[Path]:
    """Write PSNR against the total iterations, at the first ratio of a preset with curves.

    The authors' weights, ours, and the paper's values (mostly single points) are separate curves.

    Returns:
        The files, PNG, PDF and CSV; none for a preset without curves.

    Raises:
        UsageError: a file exists and `overwrite` is false.
    """
    ratio = table.ratios[0]
    points: dict[tuple[str, presets.Kind], list[tuple[float, float]]] = {}
    for line in table.lines:
        if line.curve is None:
            continue
        iterations = float(line.ipl * len(cards.card(line.ours).recursion.schedule))
        found: list[tuple[presets.Kind, float]] = [
            (result.kind, result.cells[ratio].score.psnr)
            for result in results
            if result.line == line and ratio in result.cells
        ]
        printed = presets.published(line, table).get(ratio)
        if printed:
            found.append(("paper", printed[0]))
        for kind, psnr in found:
            points.setdefault((line.curve, kind), []).append((iterations, psnr))
    if not points:
        return []
    lines = [
        Curve(f"{name}, {_KIND[kind][0]}", path, name, _KIND[kind][1])
        for (name, kind), path in points.items()
    ]
    x, y = "total iterations", f"PSNR (dB), {table.dataset} at {100 * ratio:g} %"
    return curves(lines, folder / _ITERATIONS, x, y, overwrite=overwrite)
