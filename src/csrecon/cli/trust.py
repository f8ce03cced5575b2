"""Options of `reconstruct` that say how far to believe its result."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli.command import log, progress
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from csrecon.evaluation.heldout import Check, Reconstruct
    from csrecon.sensing.measurement import Measurement

_PANEL = "Trust"
_MAPS = (".tif", ".tiff", ".npy")


@dataclass(frozen=True)
class TrustOptions:
    """How the error of a result is estimated."""

    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Estimate the PSNR without the original: reconstruct again from nine tenths of "
            "the rows, and predict the others.",
            rich_help_panel=_PANEL,
        ),
    ] = False
    folds: Annotated[
        int,
        typer.Option(
            help="Reconstructions of --check, each without other rows.",
            min=1,
            max=100,
            rich_help_panel=_PANEL,
        ),
    ] = 8
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="Also write the standard deviation of every pixel: .tif (65535 is 1) or .npy, and "
            "a picture of it with the suffix .png.",
            metavar="FILE",
            rich_help_panel=_PANEL,
        ),
    ] = None
    samples: Annotated[
        int,
        typer.Option(
            help="Reconstructions of --uncertainty.", min=2, max=100, rich_help_panel=_PANEL
        ),
    ] = 8

    @property
    def wanted(self) -> bool:
        """Whether anything is to be estimated."""
        return self.check or self.uncertainty is not None

    def outputs(self, many: bool) -> list[Path]:
        """The files that are written besides the image.

        Raises:
            UsageError: another suffix, or several measurements.
        """
        if self.uncertainty is None:
            return []
        if many:
            raise UsageError("--uncertainty writes the map of one measurement: give one.")
        if self.uncertainty.suffix.lower() not in _MAPS:
            raise UsageError(f"--uncertainty {self.uncertainty}: expected {', '.join(_MAPS)}.")
        return [self.uncertainty, self.uncertainty.with_suffix(".png")]

    def checked(self, m: "Measurement", image: "Tensor", reconstruct: "Reconstruct") -> "Check":
        """The check of an image (C, 1, H, W), with a progress bar."""
        from csrecon.evaluation import heldout
        from csrecon.io import images

        folds = self.samples if self.uncertainty else self.folds
        with progress() as bar:
            task = bar.add_task("held-out rows", total=folds)

            def watched(fewer: "Measurement") -> "Tensor":
                made = reconstruct(fewer)
                bar.advance(task)
                return made

            return heldout.check(
                m,
                image,
                watched,
                heldout.HoldoutOptions(folds),
                images.error_weights(m.format.color),
            )


def facts(checked: "Check") -> dict[str, Any]:
    """What a result and its metadata say about the check."""
    rows = checked.mse.sqrt().tolist()
    return {
        "estimated_psnr": round(checked.psnr, 3),
        "estimated_psnr_error": round(checked.error, 3),
        "unpredicted": round(checked.unpredicted, 4),
        "folds": checked.folds,
        "held_out_rows": checked.held_out,
        "block_rmse": [[None if math.isnan(v) else round(v, 5) for v in row] for row in rows],
    }


def notice(checked: "Check", source: str) -> None:
    """Warn if the values do not fit Φ, or if the estimate is biased."""
    share = round(100 * checked.unpredicted)
    if not checked.fits:
        log.warning(
            "%s: the values do not fit this Φ: %d %% of what is held out is not predicted, no "
            "better than by the mean of every block. Another Φ, order, gain or scale, or strong "
            "noise? `csrecon inspect %s --phi FILE --shape HxW` tries the orders.",
            source,
            share,
            source,
        )
    elif checked.doubtful:
        log.warning(
            "%s: %d %% of what is held out is not predicted: a rough scene, noise, or another "
            "order of the values. `csrecon inspect %s --phi FILE --shape HxW` tries the orders.",
            source,
            share,
            source,
        )
    if checked.ordered:
        log.info(
            "the rows of this Φ are the important ones of the image, so what they leave is less "
            "than the held-out rows say: the true PSNR is higher than the estimate."
        )


def in_words(result: Mapping[str, Any]) -> str:
    """`estimated PSNR 27.9 ± 0.3 dB`."""
    return (
        f"estimated PSNR {result['estimated_psnr']:.1f} ± {result['estimated_psnr_error']:.1f} dB"
    )


def write_maps(
    options: TrustOptions,
    checked: "Check",
    m: "Measurement",
    shown: "NDArray[Any]",
    overwrite: bool,
) -> None:
    """Write the standard deviation of every pixel, and the picture.

    Args:
        options: with `uncertainty`.
        checked, m: the check of the reconstruction of m.
        shown: the reconstruction as it is written, (H, W) or (H, W, 3).
        overwrite: replace existing files.
    """
    import numpy as np

    from csrecon.evaluation import plot, uncertainty
    from csrecon.io import files, images
    from csrecon.sensing.operators import BlockOperator

    target, picture = options.outputs(many=False)
    assert isinstance(m.operator, BlockOperator)
    sigma = uncertainty.deviation(checked, m.operator)
    weights = images.error_weights(m.format.color)
    pixels = sum(w * plane.square() for w, plane in zip(weights, sigma[:, 0], strict=True))
    deviation = np.sqrt(pixels.numpy())
    observed = m.operator.observed()
    mask = None if observed is None else observed.numpy()
    blocks = m.operator.assemble(
        checked.mse.sqrt()[None, ..., None].expand(-1, -1, -1, m.operator.n)
    )[0, 0].numpy()
    panels = [
        plot.Panel("reconstruction", shown),
        plot.Panel("standard deviation", np.nan_to_num(deviation), error=True),
        plot.Panel("estimated error of each block (RMS)", np.nan_to_num(blocks), error=True),
    ]
    title = f"estimated PSNR {checked.psnr:.1f} ± {checked.error:.1f} dB"
    with files.new_files(target, overwrite=overwrite) as (temporary,):
        images.encode(temporary, deviation, 16, mask)
    plot.side_by_side(panels, picture, title, columns=3, overwrite=overwrite)
