"""`csrecon calibrate`: the Φ of a camera from measurements of known images."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli import lab
from csrecon.cli.command import Json, Overwrite, log, say, say_json, say_table
from csrecon.errors import CheckError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csrecon.io.images import Picture
    from csrecon.sensing.fitting import Fit
    from csrecon.sensing.known import Pair
    from csrecon.sensing.measurement import Measurement
    from csrecon.sensing.operators import Phi

_NOTHING_SAID = lab.LabOptions()
_FAR = 0.5  # relative change of Φ by no error of a camera


def calibrate(
    pairs: Annotated[
        Path,
        typer.Argument(
            help="Folder of known images and their measurements: scene1.png and scene1.npy.",
            metavar="FOLDER",
        ),
    ],
    laboratory: lab.LabOptions = _NOTHING_SAID,
    images: Annotated[
        Path | None,
        typer.Option(help="Another folder of the images, which may be .npy there."),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="The fitted Φ: .npy. Scenes of an offset go beside it, NAME-white.npy and "
            "NAME-black.npy.",
        ),
    ] = Path("phi.npy"),
    force: Annotated[
        bool, typer.Option("--force", help="Write the fitted Φ even if it is not better.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Fit Φ near the nominal one of --phi, from measurements of known images.

    Three models are compared on values that they were not fitted to: the nominal Φ, a gain of every
    row, and all entries of Φ, the last two also with an offset of every row. Entries need about as
    many different blocks as a block has pixels. Without --phi the nominal Φ is the one that the
    measurements of `csrecon sample` record. Exit code 7 if no fit is better than the nominal Φ:
    then nothing is written, except with --force.

    **Examples**

        csrecon calibrate pairs/ --phi nominal.npy -o phi.npy
        csrecon calibrate values/ --images scenes/ --phi lab.mat:Phi --pixel-order F -o phi.npy
    """
    from csrecon.io import files
    from csrecon.sensing import beside, fitting, known, scenes

    _check(laboratory, output)
    targets = [output, *(output.with_name(f"{output.stem}-{w}.npy") for w in ("white", "black"))]
    found = known.find(pairs, images, laboratory.inputs())
    given = [path for pair in found for path in (pair.image, pair.values)]
    files.refuse_inputs(targets, beside.with_sidecars([*given, *laboratory.inputs()]))
    files.refuse_existing(*targets, overwrite=overwrite)
    beside.refuse_described(targets)
    phi = laboratory.sampling()
    loaded = [_loaded(pair, laboratory, phi) for pair in found]
    blocks, camera = known.gathered([(one.label, one.picture, one.measured) for one in loaded])
    options = fitting.FitOptions(
        offset=not laboratory.differential and not all(one.own for one in loaded)
    )
    fit = fitting.fit(blocks, camera.phi.matrix, options)
    facts: dict[str, Any] = {
        "images": len(found),
        "blocks": len(blocks.pixels),
        "pixels": blocks.pixels.shape[1],
        "rank": fit.rank,
        "determined": fit.determined,
        "held_out": fit.groups,
        "models": [
            {"model": str(held.model), "residual": held.residual, "error": held.error}
            for held in fit.held
        ],
        "better": fit.better,
        "change": fit.change(camera.phi.matrix),
        "model": str(fit.model),
        "outputs": [],
    }
    if fit.better or force:
        arrays = _arrays(fit, laboratory, camera.block, loaded[0].correction)
        targets = targets[: len(arrays)]
        with files.new_files(*targets, overwrite=overwrite) as temporary:
            for path, array in zip(temporary, arrays, strict=True):
                files.write_npy(path, array)
        facts["outputs"] = [str(path) for path in targets]
        if len(targets) > 1 and scenes.balanced(fit.phi):
            log.warning(
                "all rows of Φ sum to 0, so --calibrate cannot determine a gain: subtract the "
                "offsets in %s from the values of every block instead.",
                targets[2],
            )
            targets = targets[:1]
        facts["next"] = _next(targets, laboratory, loaded[0])
    if facts["change"] > _FAR:
        log.warning(
            "the fitted Φ differs by %.0f %% from the nominal one, apart from the mean gain: is "
            "the nominal Φ of this camera, and in this order (--pixel-order, --block-order)?",
            100 * facts["change"],
        )
    if as_json:
        say_json(facts)
    else:
        _report(facts)
    if not fit.better:
        kept = "It was written because of --force." if force else "Nothing is written."
        raise CheckError(
            "no fit is better than the nominal Φ by more than two standard errors on values that "
            f"were held out. {kept} Keep the nominal Φ, or add known images."
        )


def _check(said: lab.LabOptions, output: Path) -> None:
    """Refuse options that this command determines itself, and other outputs than .npy."""
    for name in ("mask", "calibrate", "noise"):
        if getattr(said, name) != getattr(_NOTHING_SAID, name):
            raise UsageError(
                f"--{name}: not used here; gains and offsets are fitted to the values. Leave it "
                "out."
            )
    if said.gain == "auto":
        raise UsageError("--gain auto: the gains are fitted here. Leave it out, or give a number.")
    if output.suffix.lower() != ".npy":
        raise UsageError(f"-o {output}: expected a name that ends in .npy.")


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A pair, read; `own` if csrecon wrote its measurement, whose values have no offset."""

    label: str
    own: bool
    picture: "Picture"
    measured: "Measurement"
    correction: dict[str, float]


def _loaded(pair: "Pair", said: lab.LabOptions, phi: "Phi | None") -> _Loaded:
    """A pair; the image gives the size of bare values."""
    from csrecon.io import images
    from csrecon.sensing import native

    picture = images.read(pair.image)
    own = pair.values.suffix.lower() in native.SUFFIXES and native.describes_itself(pair.values)
    if not own and said.shape is None:
        height, width = picture.planes.shape[2:]
        said = replace(said, shape=f"{height}x{width}")
    loaded = lab.load(pair.values, said, phi, nominal=True)
    color = loaded.measurement.format.color
    if color not in ("gray", "complex"):
        picture = images.read(pair.image, color)
    return _Loaded(
        f"{pair.values} and {pair.image}", own, picture, loaded.measurement, loaded.correction
    )


def _arrays(
    fit: "Fit", said: lab.LabOptions, block: tuple[int, int], correction: dict[str, float]
) -> list["NDArray[Any]"]:
    """Φ in the order of the nominal one; with an offset, also the white and the black scene.

    The scenes are in the units of the values, before gain and offset were removed.
    """
    import numpy as np

    from csrecon.sensing import lab as laboratory
    from csrecon.sensing.native import as_single
    from csrecon.sensing.operators import Phi

    single = as_single(fit.phi, "the fitted Φ")
    written = single
    if said.pixel_order == "F":
        written = laboratory.by_rows(Phi(single), block[::-1]).matrix
    if not fit.model.offset:
        return [written]
    gain = correction.get("gain", 1.0)
    black = gain * fit.offset + correction.get("offset", 0.0)
    white = gain * single.astype(np.float64).sum(axis=1) + black
    return [written, white, black]


def _next(outputs: list[Path], said: lab.LabOptions, one: _Loaded) -> str:
    """The command that reconstructs a measurement y.npy of this camera with the fitted Φ.

    It is for measurements like `one`.
    """
    if one.own:
        said = replace(_NOTHING_SAID, phi=str(outputs[0]), replace_phi=True)
        return shlex.join(["csrecon", "reconstruct", "y.npy", *lab.words(said)])
    height, width = one.measured.operator.image_shape
    scenes = (outputs[1], outputs[2]) if len(outputs) > 1 else None
    said = replace(
        said,
        phi=str(outputs[0]),
        seed=None,
        shape=said.shape or f"{height}x{width}",
        calibrate=scenes,
    )
    if scenes:
        said = replace(said, gain=_NOTHING_SAID.gain, offset=None)
    return shlex.join(["csrecon", "reconstruct", "y.npy", *lab.words(said)])


def _report(facts: dict[str, Any]) -> None:
    """What was known, the residuals of all models, and what comes next."""
    pixels = facts["pixels"]
    say(
        f"{facts['images']} image(s), {facts['blocks']} known blocks of {pixels} pixels, rank "
        f"{facts['rank']}. They determine {facts['determined']:.0f} of the {pixels} entries of "
        f"each row of Φ; the others keep their nominal values. Entries need about {pixels} "
        "different blocks."
    )
    say_table(
        ["model", "residual (%)", "± standard error"],
        [
            [one["model"], f"{100 * one['residual']:.3g}", f"{100 * one['error']:.2g}"]
            for one in facts["models"]
        ],
    )
    say(f"Residuals are relative, on {facts['held_out']} that were held out.")
    if facts["outputs"]:
        made = " + ".join(facts["outputs"])
        say(f"{facts['model']}, Φ changed by {100 * facts['change']:.2g} % -> {made}")
        say(f"next: {facts['next']}")
