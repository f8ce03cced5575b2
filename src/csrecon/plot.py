"""Figures: images side by side, drawn with matplotlib without a display."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from csrecon import files
from csrecon.errors import UsageError

SUFFIXES = (".png", ".pdf", ".svg")


def check_suffix(path: Path) -> None:
    """Raise UsageError unless figures can be written in the format of the suffix."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: a figure ends in {', '.join(SUFFIXES)}.")


@dataclass(frozen=True)
class Panel:
    """One image, (H, W) or (H, W, 3) in [0, 1], under a title; `error` draws a heat map."""

    title: str
    image: NDArray[np.float32]
    error: bool = False


def side_by_side(
    panels: Sequence[Panel], path: Path, title: str, columns: int = 4, overwrite: bool = False
) -> None:
    """Write panels in rows of `columns`, in the format of the path's suffix.

    An error panel shows |error|, black 0 to bright at its 99.5 % quantile, with its scale.

    Raises:
        UsageError: another suffix, or the file exists and `overwrite` is false.
        ResourceError: it cannot be written.
    """
    check_suffix(path)
    rows = -(-len(panels) // columns)
    height, width = panels[0].image.shape[:2]
    figure = Figure(
        figsize=(3.2 * columns, 0.55 + rows * (0.35 + 3.2 * height / width)),
        dpi=100,
        layout="constrained",
    )
    figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    for axis, panel in zip(axes, panels, strict=False):
        axis.set_title(panel.title, fontsize=9)
        if panel.error:
            top = float(np.quantile(panel.image, 0.995)) or 1.0
            shown = axis.imshow(panel.image, cmap="inferno", vmin=0, vmax=top)
            scale = axis.inset_axes((0.0, -0.07, 1.0, 0.04))
            figure.colorbar(shown, cax=scale, orientation="horizontal")
            scale.tick_params(labelsize=7)
        else:
            clipped = np.clip(panel.image, 0, 1)
            axis.imshow(clipped, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    with files.new_files(path, overwrite=overwrite) as (temporary,):
        figure.savefig(temporary)


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
