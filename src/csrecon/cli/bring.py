"""`csrecon import`: convert a lab measurement to csrecon's own format."""

from pathlib import Path
from typing import Annotated

import typer

from csrecon.cli import lab
from csrecon.cli.command import Json, Overwrite, say, say_json

_NOTHING_SAID = lab.LabOptions()


def bring(
    values: Annotated[
        Path, typer.Argument(help="The values: .npy, .npz, .mat, .h5 or .csv.", metavar="FILE")
    ],
    laboratory: lab.LabOptions = _NOTHING_SAID,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Measurement file; by default FILE with .npz, which packs Φ."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a lab measurement to csrecon's own format, once.

    The new file contains order, calibration and Φ, so that `csrecon reconstruct` needs no options
    for it. The input file is not changed.

    **Examples**

        csrecon import lab.mat --var y --phi lab.mat:phi --shape 480x288 --pixel-order F
        csrecon import run7.csv --phi phi.npy --shape 256x256 --gain auto -o run7.npz
    """
    from csrecon.io import files
    from csrecon.sensing import beside, native

    target = output or values.with_suffix(".npz")
    files.refuse_inputs(
        native.outputs(target), beside.with_sidecars([values, *laboratory.inputs()])
    )
    if overwrite and output is None:
        native.refuse_other(target)
    loaded = lab.load(values, laboratory, laboratory.sampling())
    measured = loaded.measurement
    native.save(measured, target, overwrite)
    outputs = [str(path) for path in native.outputs(target)]
    facts = {
        "input": str(values),
        "outputs": outputs,
        "shape": list(measured.y.shape),
        "ratio": measured.operator.ratio,
        **loaded.correction,
    }
    if as_json:
        say_json(facts)
        return
    removed = f"; {lab.in_words(loaded.correction)}; removed" if loaded.correction else ""
    say(
        f"{values} -> {' + '.join(outputs)}: y of shape {tuple(measured.y.shape)}, "
        f"m/n = {measured.operator.ratio:.4f}{removed}"
    )
