"""Options of Fourier sampling, and of k-space files."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csrecon.io.images import Picture
    from csrecon.sensing.operators import FourierOptions

_SAMPLING = "Fourier sampling (MRI)"


def maps_of(text: str | None) -> "NDArray[np.generic] | None":
    """The sensitivity maps of `FILE[:NAME]`."""
    from csrecon.io import arrays

    if text is None:
        return None
    path, name = arrays.split_name(text)
    return arrays.pick(path, name, "--sensitivities FILE:NAME", likely="sensitivity_maps")


@dataclass(frozen=True)
class SampleOptions:
    """How an image is measured in k-space."""

    acceleration: Annotated[
        float | None,
        typer.Option(help="1 / ratio, instead of --ratio.", metavar="R", rich_help_panel=_SAMPLING),
    ] = None
    center: Annotated[
        float | None,
        typer.Option(
            help="Completely measured at the lowest frequencies: a share of all lines (or "
            "frequencies), or their number.  [a tenth of the samples]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    coils: Annotated[
        int | None,
        typer.Option(help="Number of simulated receive coils.", rich_help_panel=_SAMPLING),
    ] = None
    sensitivities: Annotated[
        str | None,
        typer.Option(
            help="Sensitivity maps (coils, H, W), complex; they are packed: y.npz.",
            metavar="FILE[:NAME]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    phase: Annotated[
        bool,
        typer.Option(
            "--phase",
            help="Give gray images a smooth phase, drawn from the seed: complex ones.",
            rich_help_panel=_SAMPLING,
        ),
    ] = False

    def ratio(self, given: float | None) -> float | None:
        """The ratio of --ratio or --acceleration."""
        if self.acceleration is None:
            return given
        if given is not None:
            raise UsageError("--acceleration R is --ratio 1/R: give one of them.")
        if not self.acceleration >= 1:
            raise UsageError(f"--acceleration {self.acceleration:g}: expected a number from 1 on.")
        return 1 / self.acceleration

    def fourier(self) -> "FourierOptions | None":
        """The options of the library; None without any."""
        from csrecon.sensing.operators import FourierOptions

        if self.center is None and self.coils is None and self.sensitivities is None:
            return None
        return FourierOptions(self.center, self.coils, maps_of(self.sensitivities))

    def phased(self, picture: "Picture", seed: int) -> "Picture":
        """The picture, with a phase if it is asked for."""
        from csrecon.sensing import sample

        return sample.with_phase(picture, seed) if self.phase else picture

    def inputs(self) -> list[Path]:
        """The files that these options name."""
        from csrecon.io import arrays

        return [arrays.split_name(self.sensitivities)[0]] if self.sensitivities else []
