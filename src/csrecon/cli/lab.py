"""Options for lab measurements, shared by `reconstruct`, `import` and `calibrate`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csrecon.sensing.lab import Arrangement
    from csrecon.sensing.measurement import Measurement
    from csrecon.sensing.operators import Phi

_PANEL = "Lab measurements"


def _option(
    text: str,
    metavar: str | None = None,
    names: tuple[str, ...] = (),
    least: int | None = None,
) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, min=least, rich_help_panel=_PANEL)


@dataclass(frozen=True)
class LabOptions:
    """How to read values without a sidecar."""

    phi: Annotated[
        str | None,
        _option("The Φ of the measurement: .npy, .npz, .mat, .h5 or .csv.", "FILE[:NAME]"),
    ] = None
    replace_phi: Annotated[
        bool,
        _option(
            "Take the Φ of --phi even where the measurement records another, as after `calibrate`.",
            names=("--replace-phi",),
        ),
    ] = False
    mask: Annotated[
        str | None,
        _option("The mask of Fourier sampling, if the file does not contain it.", "FILE[:NAME]"),
    ] = None
    sensitivities: Annotated[
        str | None,
        _option(
            "Sensitivity maps (coils, H, W), complex, if the file does not contain them.",
            "FILE[:NAME]",
        ),
    ] = None
    seed: Annotated[
        int | None, _option("Instead of --phi: the seed of csrecon's gaussian Φ.", least=0)
    ] = None
    shape: Annotated[
        str | None, _option("Size of the image, height first; --positions may determine it.", "HxW")
    ] = None
    block: Annotated[
        int | None, _option("Side of a block in pixels, if Φ does not determine it.", least=1)
    ] = None
    var: Annotated[str | None, _option("The array of the values in the file.", "NAME")] = None
    layout: Annotated[
        str, _option("blocks-first (blocks × m), measurements-first, or auto.", "LAYOUT")
    ] = "auto"
    pixel_order: Annotated[
        str,
        _option("Order of pixels in the columns of Φ: C by rows, F by columns (MATLAB).", "C|F"),
    ] = "C"
    block_order: Annotated[
        str, _option("Order of blocks in the file: C by rows, F by columns.", "C|F")
    ] = "C"
    positions: Annotated[
        Path | None,
        _option("One line row,column per block, from zero; blocks may be missing.", "FILE"),
    ] = None
    gain: Annotated[
        str, _option("Gain of values gain · Φx + offset; `auto` estimates both.", "G|auto")
    ] = "1"
    offset: Annotated[float | None, _option("Offset of the values; see --gain.")] = None
    calibrate: Annotated[
        tuple[Path, Path] | None,
        _option(
            "Values of an all-white and an all-black scene, instead of gain and offset.",
            "WHITE BLACK",
        ),
    ] = None
    differential: Annotated[
        bool,
        _option("Every pattern is followed by its complement.", names=("--differential",)),
    ] = False
    noise: Annotated[
        float, _option("Standard deviation of the noise on a value, if known.", least=0)
    ] = 0.0

    _KNOWN = ("phi", "replace_phi", "mask", "sensitivities", "seed", "shape", "block")

    def foreign(self) -> bool:
        """Whether an option was given that a file of csrecon never needs."""
        return any(
            getattr(self, field.name) != field.default
            for field in fields(self)
            if field.name not in self._KNOWN
        )

    def arrangement(self) -> "Arrangement":
        """The options as an Arrangement of the library."""
        from csrecon.io import arrays
        from csrecon.sensing.lab import Arrangement

        scenes = [arrays.pick(path) for path in self.calibrate or ()]
        return Arrangement(
            layout=self.layout,  # type: ignore[arg-type]
            pixel_order=self.pixel_order,  # type: ignore[arg-type]
            block_order=self.block_order,  # type: ignore[arg-type]
            positions=arrays.pick(self.positions) if self.positions else None,
            gain="auto" if self.gain == "auto" else _number(self.gain),
            offset=self.offset,
            white=scenes[0] if scenes else None,
            black=scenes[1] if scenes else None,
            differential=self.differential,
            noise=self.noise,
        )

    def sampling(self) -> "Phi | None":
        """The Φ of --phi."""
        from csrecon.io import arrays
        from csrecon.sensing import native

        return native.read_phi(*arrays.split_name(self.phi)) if self.phi else None

    def _named(self) -> tuple[str | None, ...]:
        return self.phi, self.mask, self.sensitivities

    def maps(self) -> "NDArray[Any] | None":
        """The maps of --sensitivities."""
        from csrecon.io import arrays

        if self.sensitivities is None:
            return None
        path, name = arrays.split_name(self.sensitivities)
        return arrays.pick(path, name, "--sensitivities FILE:NAME", likely="sensitivity_maps")

    def inputs(self) -> list[Path]:
        """The files that these options name."""
        from csrecon.io import arrays

        named = [arrays.split_name(text)[0] for text in self._named() if text]
        return [*named, *([self.positions] if self.positions else []), *(self.calibrate or ())]


def words(options: LabOptions) -> list[str]:
    """The options as they are typed, without those that have their default value."""
    typed: list[str] = []
    for field in fields(options):
        value = getattr(options, field.name)
        if value == field.default:
            continue
        typed.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            typed += map(str, value if isinstance(value, tuple) else [value])
    return typed


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"--gain {text!r}: expected a number, or auto.") from error


@dataclass(frozen=True)
class Loaded:
    """A measurement, and the gain and offset that were removed from its values."""

    measurement: "Measurement"
    correction: dict[str, float]


def load(source: Path, options: LabOptions, phi: "Phi | None", nominal: bool = False) -> Loaded:
    """The measurement of a file of csrecon, or of a lab file with its options.

    With `nominal`, Φ need not be the one that a file of csrecon records.

    Raises:
        InputError, UsageError: as in native.load and lab.measurement.
    """
    from csrecon.cli import parse
    from csrecon.io import arrays
    from csrecon.reconstructors import calibration
    from csrecon.sensing import lab, native

    if options.replace_phi and phi is None:
        raise UsageError("--replace-phi takes the Φ of --phi FILE: give it too.")
    shape = parse.shape(options.shape)
    block = (options.block, options.block) if options.block else None
    own = source.suffix.lower() in native.SUFFIXES
    if own and not options.foreign():
        mask = arrays.pick(*arrays.split_name(options.mask)) if options.mask else None
        replaced = nominal or options.replace_phi
        given = native.Given(phi, mask, options.seed, shape, block, replaced, options.maps())
        return Loaded(native.load(source, given), {})
    if own and native.describes_itself(source):
        raise UsageError(
            f"{source}: written by csrecon, with its order and units; leave out the options for "
            "lab measurements."
        )
    placed = shape is not None or options.positions is not None
    if not placed or phi is None or options.seed is not None:
        raise UsageError(
            f"{source}: not a file of `csrecon sample`, so it needs --shape HxW (the image's size) "
            f"and --phi FILE[:NAME] (the matrix that measured it). `csrecon inspect {source.name}` "
            "shows its content."
        )
    values = arrays.pick(source, options.var)
    made, correction = lab.measurement(
        values, phi, shape, options.arrangement(), block, str(source), calibration.estimate
    )
    removed = {name: value for name, value in asdict(correction).items() if value is not None}
    return Loaded(made, {} if removed == {"gain": 1, "offset": 0} else removed)


def noisy(source: Path) -> Loaded:
    """An image file as an identity measurement, in its colours, with noise of unknown σ.

    Raises:
        InputError: as in images.read.
    """
    from csrecon.io import images
    from csrecon.sensing import sample
    from csrecon.sensing.operators import SamplingOptions

    picture = images.read(source, color=None)
    return Loaded(sample.sample(picture, SamplingOptions(kind="identity")), {})


def in_words(correction: Mapping[str, Any]) -> str:
    """`gain 851 ± 4 % and offset 119.6 ± 0.8, both estimated`, from Loaded or a result."""
    gain, offset = correction["gain"], correction["offset"]
    if "gain_error" not in correction:
        return f"gain {gain:.6g} and offset {offset:.6g}"
    sure = 100 * correction["gain_error"]
    error = correction["offset_error"]
    around = f"{offset:.6g} ± {error:.2g}, both" if error else f"{offset:.6g} given, gain"
    return f"gain {gain:.4g} ± {sure:.2g} % and offset {around} estimated"
