"""Figures: images side by side, and curves, drawn by matplotlib without a display."""

import csv
import io
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from csrecon.errors import UsageError
from csrecon.evaluation.table import unformulated
from csrecon.io import files
from csrecon.io.text import printable

SUFFIXES = (".png", ".pdf", ".svg")
_COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F",
)  # fmt: skip
# Okabe and Ito's, which colour-blind readers tell apart; gray for yellow, which is too pale.
_MARKERS = ("o", "s", "^", "D", "v", "X", "P", "<", ">")
_WIDEST = 12.0  # inches
_MARKED = 12  # markers on a curve of many points
_SLENDEREST = 8.0  # of panels; a more slender image is drawn between margins
_MOST_PANELS = 400  # their layout takes seconds per hundred
_LONGEST = 600.0  # inches at 100 dpi; what draws them ends at 2^16 pixels


def check_suffix(path: Path) -> None:
    """Raise UsageError unless the suffix is a format of figures."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: expected a figure with suffix {', '.join(SUFFIXES)}.")


@dataclass(frozen=True)
class Panel:
    """One image, (H, W) or (H, W, 3) in [0, 1], under a title; `error` draws a heat map.

    `sigma` is the estimated standard deviation of its pixels, (H, W), for `comparison`.
    """

    title: str
    image: NDArray[np.float32]
    error: bool = False
    sigma: NDArray[np.float32] | None = None


def side_by_side(
    panels: Sequence[Panel], path: Path, title: str, columns: int = 4, overwrite: bool = False
) -> None:
    """Write panels in rows of `columns`, in the format of the path's suffix.

    An error panel shows |error| from black (0) to bright (its 99.5 % quantile), with a scale.

    Raises:
        UsageError: another suffix, or the file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    check_suffix(path)
    shape = panels[0].image.shape[:2]
    check_count(len(panels), shape, columns)
    rows = -(-len(panels) // columns)
    figure = Figure(
        figsize=(3.2 * columns, 0.55 + rows * _row(shape)),
        dpi=100,
        layout="constrained",
    )
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, panel in zip(axes, panels, strict=False):
        _set_title(axis, panel)
        if panel.error:
            top = brightest(panel.image)
            shown = axis.imshow(panel.image, cmap="inferno", vmin=0, vmax=top)
            scale = axis.inset_axes((0.0, -0.07, 1.0, 0.04))
            figure.colorbar(shown, cax=scale, orientation="horizontal")
            scale.tick_params(labelsize=7)
        else:
            clipped = np.clip(panel.image, 0, 1)
            axis.imshow(clipped, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    with files.new_files(path, overwrite=overwrite) as (temporary,):
        _save(figure, temporary)


def brightest(*errors: NDArray[np.float32]) -> float:
    """The error that is drawn brightest: the largest 99.5 % quantile of maps on one scale."""
    return max(float(np.quantile(error, 0.995)) for error in errors) or 1.0


def heat(error: NDArray[np.float32], top: float) -> NDArray[np.uint8]:
    """An |error| map (H, W) in the colours of the figures, (H, W, 3), from black (0) to `top`."""
    colours: NDArray[np.uint8] = colormaps["inferno"](np.clip(error / top, 0, 1), bytes=True)
    return colours[..., :3]


def _slender(shape: tuple[int, ...]) -> float:
    """Height by width of the panel of an image."""
    return min(max(shape[0] / shape[1], 1 / _SLENDEREST), _SLENDEREST)


def _row(shape: tuple[int, ...]) -> float:
    """Height of a row of panels, in inches."""
    return 0.35 + 3.2 * _slender(shape)


def check_count(panels: int, shape: tuple[int, ...], columns: int) -> None:
    """Raise UsageError if one figure has no room for so many images of this shape (H, W)."""
    most = min(_MOST_PANELS, columns * int(_LONGEST / _row(shape)))
    if panels > most:
        raise UsageError(
            f"{panels} images of {shape[0]}×{shape[1]} pixels are too many for one figure, which "
            f"has room for {most}: use fewer iterations."
        )


def _set_title(axis: Axes, panel: Panel) -> None:
    r"""Write the title above a panel, as it is: `$`, `_` and `\` are no mathematics."""
    lines = [printable(line) for line in panel.title.split("\n")]
    axis.set_title("\n".join(lines), fontsize=9, parse_math=False)


def _save(figure: Figure, path: Path) -> None:
    """Write a figure; a character that the font lacks is drawn as a box, without a warning.

    It is drawn in memory: on a full disk matplotlib's PDF fails in other words.
    """
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        figure.savefig(drawn, format=path.suffix[1:].lower())
    path.write_bytes(drawn.getbuffer())


@dataclass(frozen=True)
class Zoom:
    """A square of an image to enlarge: its first row and column, and its side, in pixels."""

    top: int
    left: int
    side: int


def busiest(image: NDArray[np.float32], side: int) -> Zoom:
    """The square of an image (H, W) with the most detail: the largest sum of |gradient|."""
    pixels = image.astype(np.float64)
    down, right = (
        np.gradient(pixels, axis=axis) if count > 1 else np.zeros_like(pixels)
        for axis, count in enumerate(image.shape)
    )
    detail = np.pad(np.abs(down) + np.abs(right), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    side = min(side, *image.shape)
    sums = detail[side:, side:] - detail[:-side, side:] - detail[side:, :-side]
    sums += detail[:-side, :-side]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return Zoom(int(top), int(left), side)


def comparison(
    panels: Sequence[Panel], original: NDArray[np.float32], zoom: Zoom, path: Path, title: str,
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Write images (H, W) in a row, each with its enlarged square, above their |error| maps.

    Where panels have a standard deviation, it is drawn below. All maps share one scale: black is
    0, bright the largest 99.5 % quantile of the errors.

    Raises:
        UsageError: another suffix, or the file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    check_suffix(path)
    errors = [np.abs(np.clip(panel.image, 0, 1) - original) for panel in panels]
    top = brightest(*errors)
    tall = 3.2 * _slender(original.shape)
    if 3.2 * len(panels) > _LONGEST:
        raise UsageError(f"{len(panels)} images side by side: one figure has room for 180.")
    maps = 2 if any(panel.sigma is not None for panel in panels) else 1
    heights = (tall, 3.2, *[tall] * maps)
    figure = Figure(figsize=(3.2 * len(panels), 0.6 + sum(heights)), dpi=100, layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    axes = figure.subplots(len(heights), len(panels), squeeze=False, height_ratios=heights)
    for axis in axes.ravel():
        axis.axis("off")
    rows, columns = (slice(start, start + zoom.side) for start in (zoom.top, zoom.left))
    gray = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    heat = {"cmap": "inferno", "vmin": 0, "vmax": top}
    for column, panel, error in zip(axes.T, panels, errors, strict=True):
        whole, part, wrong = column[:3]
        _set_title(whole, panel)
        whole.imshow(panel.image, **gray)
        corner = (zoom.left - 0.5, zoom.top - 0.5)
        whole.add_patch(Rectangle(corner, zoom.side, zoom.side, fill=False, color="tab:orange"))
        part.imshow(panel.image[rows, columns], **gray)
        shown = wrong.imshow(error, **heat)
        if panel.sigma is not None:
            column[3].imshow(panel.sigma, **heat)
    for row, label in zip(axes[2:], ("|error|", "estimated σ"), strict=False):
        figure.colorbar(shown, ax=row.tolist(), shrink=0.8, label=label)
    with files.new_files(path, overwrite=overwrite) as (temporary,):
        _save(figure, temporary)


@dataclass(frozen=True)
class Curve:
    """A curve of a figure: its label, and its points from left to right.

    Curves of one family share a colour and differ in line style; `none` shows stars only. Names
    of the points are shown below the lowest curve.
    """

    label: str
    points: Sequence[tuple[float, float]]
    family: str | None = None
    line: Literal["solid", "dashed", "none"] = "solid"
    names: Sequence[str] = ()


def curves(
    lines: Sequence[Curve], path: Path, x: str, y: str, logarithmic: Literal["", "x", "y"] = "",
    overwrite: bool = False,
) -> list[Path]:  # fmt: skip
    """Write curves as PNG and PDF, and their points as CSV, beside each other: the three paths.

    Args:
        lines: the curves.
        path: where, without a suffix.
        x, y: labels of the axes.
        logarithmic: the axis that is, if any.
        overwrite: whether files that exist are replaced.

    Raises:
        UsageError: a file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    longest = max(len(line.label) for line in lines)  # of the legend, beside the axes
    width = min(max(6.4, 4.6 + 0.06 * longest), _WIDEST)
    figure = Figure(figsize=(width, 4.4), dpi=150, layout="constrained")
    axis = figure.subplots()
    families = list(dict.fromkeys(line.family or line.label for line in lines))
    for line in lines:
        family = families.index(line.family or line.label)
        again = family >= len(_COLOURS) and line.line == "solid"
        axis.plot(
            *zip(*line.points, strict=True),
            color=_COLOURS[family % len(_COLOURS)],
            linestyle="dashdot" if again else line.line,
            marker="*" if line.line == "none" else _MARKERS[family % len(_MARKERS)],
            markersize=4,
            markevery=max(1, len(line.points) // _MARKED),
        )
    lowest = min(lines, key=lambda line: min(value for _, value in line.points))
    for name, point in zip(lowest.names, lowest.points, strict=False):
        axis.annotate(
            printable(name),
            point,
            (0, -14),
            textcoords="offset points",
            fontsize=7,
            ha="center",
            parse_math=False,
        )
    axis.margins(y=0.1)
    if logarithmic == "y":
        axis.set_yscale("log")
    if logarithmic == "x":
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.xaxis.set_minor_formatter(NullFormatter())
    elif all(place == int(place) for line in lines for place, _ in line.points):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set(xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    legend = axis.legend(
        axis.get_lines(),
        [str(index) for index in range(len(lines))],
        fontsize=7,
        loc="upper left",
        bbox_to_anchor=(1.01, 1),
        borderaxespad=0,
    )
    for text, line in zip(legend.get_texts(), lines, strict=True):
        text.set_parse_math(False)
        text.set_text(printable(line.label))  # afterwards: a label that begins with _ is left out
    paths = targets(path)
    with files.new_files(*paths, overwrite=overwrite) as (png, pdf, table):
        _save(figure, png)
        _save(figure, pdf)
        with table.open("w", encoding="utf-8", newline="", errors="backslashreplace") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["curve", x, y])
            labelled = [(unformulated(line.label), line.points) for line in lines]
            writer.writerows([label, *point] for label, points in labelled for point in points)
    return paths


@dataclass(frozen=True)
class Chart:
    """Curves that may become a figure: the name of its files, and the arguments of `curves`.

    Attributes:
        points: whether curves of one point stand beside the others.
    """

    name: str
    lines: Sequence[Curve]
    x: str
    y: str
    logarithmic: Literal["", "x", "y"] = ""
    points: bool = False


def charts(found: Iterable[Chart], folder: Path, overwrite: bool = False) -> list[Path]:
    """Write the charts of which a curve has two points or more.

    Returns:
        The files, PNG, PDF and CSV of each; none if there is no such chart.

    Raises:
        UsageError: a file exists and `overwrite` is false.
    """
    written: list[Path] = []
    for chart in found:
        if lines := [line for line in chart.lines if len(line.points) > 1]:
            drawn = chart.lines if chart.points else lines
            target = folder / chart.name
            written += curves(drawn, target, chart.x, chart.y, chart.logarithmic, overwrite)
    return written


def targets(path: Path) -> list[Path]:
    """The files that `curves` writes for a path without a suffix."""
    return [path.with_name(f"{path.name}{suffix}") for suffix in (".png", ".pdf", ".csv")]


def learning_curve(
    losses: Sequence[tuple[int, float]],
    scores: Sequence[tuple[int, dict[str, dict[str, float]]]],
    path: Path,
) -> None:
    """Write the loss, and the validation PSNR of every ratio and IPL, against the step.

    Raises:
        ResourceError: it cannot be written.
    """
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([step for step, _ in losses], [loss for _, loss in losses])
    left.set(xlabel="step", ylabel="loss", title="training")
    curves: dict[str, list[tuple[int, float]]] = {}
    for step, table in scores:
        for ratio, psnrs in table.items():
            for ipl, psnr in psnrs.items():
                curves.setdefault(f"{ratio}, IPL {ipl}", []).append((step, psnr))
    for label, points in curves.items():
        right.plot(*zip(*points, strict=True), marker=".", label=label)
    right.set(xlabel="step", ylabel="PSNR (dB)", title="validation")
    if curves:
        right.legend(fontsize=6, ncols=2)
    with files.new_files(path, overwrite=True) as (temporary,):
        figure.savefig(temporary)
