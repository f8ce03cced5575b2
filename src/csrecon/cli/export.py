"""`csrecon export`: a network as a file that runs without csrecon."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon.cli import parse
from csrecon.cli.command import Json, Kind, Overwrite, say, say_json
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.sensing.operators import LinearOperator

_FORMATS = {".onnx": "onnx", ".pt2": "torch"}


def export(
    model: Annotated[
        str,
        typer.Argument(help="A name of `csrecon models list`, a .safetensors file, or hf:…"),
    ],
    shape: Annotated[str, typer.Option(help="Size of the images, height first.", metavar="HxW")],
    ipl: Annotated[
        str | None,
        typer.Option(help="Iterations per layer: 6, or one per layer as 4,4,4,6,6.", metavar="IPL"),
    ] = None,
    phi: Annotated[
        str | None,
        typer.Option(help="Your Φ: .npy, .npz, .mat, .h5 or .csv.", metavar="FILE[:NAME]"),
    ] = None,
    pixel_order: Annotated[
        str,
        typer.Option(
            help="Order of pixels in the columns of --phi: C by rows, F by columns (MATLAB).",
            metavar="C|F",
        ),
    ] = "C",
    ratio: Annotated[
        float | None, typer.Option(help="Instead of --phi: m/n of csrecon's Φ.", metavar="R")
    ] = None,
    kind: Kind = "gaussian",
    seed: Annotated[int, typer.Option(help="Seed of csrecon's Φ.", min=0)] = 0,
    block: Annotated[
        int | None, typer.Option(help="Side of a block in pixels, if Φ does not determine it.")
    ] = None,
    any_phi: Annotated[
        bool,
        typer.Option("--any-phi", help="Φ becomes an input of the graph; its m and n stay."),
    ] = False,
    inputs_only: Annotated[
        bool,
        typer.Option(
            "--inputs-only",
            help="Write only the inputs that a graph of --any-phi takes for this Φ.",
        ),
    ] = False,
    noise: Annotated[
        float, typer.Option(help="Standard deviation of the noise on y, if known.", min=0)
    ] = 0.0,
    half: Annotated[bool, typer.Option("--half", help="Convolutions in fp16 (ONNX).")] = False,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help="onnx, or torch (.pt2); by default that of -o.  [onnx]"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="File to write; by default MODEL.onnx or .pt2."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a network as ONNX, or as a package of torch.export, for use without csrecon.

    The graph maps y (batch, gh, gw, m), as in y.npy, to images (batch, 1, H, W), not clipped; the
    batch is free, everything else is fixed. The rows of Φ need not be orthonormal. The file is
    compared with csrecon's own result before it is kept: exit code 7, and no file, if they differ.
    ONNX needs `pip install 'csrecon[export]'`.

    **Examples**

        csrecon export rcoast --ipl 4 --shape 256x256 --phi phi.npy -o rcoast.onnx
        csrecon export frcoast --shape 480x288 --ratio 0.1 --half
        csrecon export frcoast --shape 256x256 --phi phi.npy --any-phi -o any.onnx
        csrecon export frcoast --shape 256x256 --phi other.npy --inputs-only -o other.onnx
        csrecon export rcoast --shape 256x256 --ratio 0.25 --format torch
    """
    path, named = _target(model, output, file_format)
    from csrecon import zoo
    from csrecon.io import arrays, files
    from csrecon.runtime import execution
    from csrecon.sensing import beside
    from csrecon.zoo import export as exporting

    operator = _operator(parse.shape(shape), phi, pixel_order, ratio, kind, seed, block)
    loaded = zoo.load(model, operator.ratio)
    exporting.checked(loaded, operator)
    network = execution.at_ipl(loaded, parse.ipl(ipl))
    targets = exporting.outputs(path, network, any_phi or inputs_only)
    given = [Path(model), *([arrays.split_name(phi)[0]] if phi else [])]
    files.refuse_inputs(targets, [each for each in given if each.exists()])
    beside.refuse_described(targets)
    if inputs_only:
        written = [str(each) for each in exporting.write_inputs(network, operator, path, overwrite)]
        if as_json:
            say_json({"outputs": written})
        else:
            say(f"m/n = {operator.ratio:.4f} -> {' + '.join(written)}")
        return
    options = exporting.ExportOptions(named, any_phi, half, noise, overwrite)
    made = exporting.export(model, network, operator, path, options)
    outputs = [str(each) for each in made.outputs]
    if as_json:
        facts = {"inputs": made.inputs, "image": made.shape, "error": made.error}
        say_json({"outputs": outputs, **facts, "metadata": made.metadata})
        return
    say(f"{model} at IPL {made.metadata['iterations_per_layer']} -> {' + '.join(outputs)}")
    for name, sides in made.inputs.items():
        say(f"  {name}: float32 {_shown(sides)}")
    say(
        f"  -> image: float32 {_shown(made.shape)}; differs from csrecon's own result by at most "
        f"{made.error:.1g}"
    )


def _operator(
    size: tuple[int, int] | None,
    phi: str | None,
    pixel_order: str,
    ratio: float | None,
    kind: str,
    seed: int,
    side: int | None,
) -> "LinearOperator":
    """The operator of the options."""
    from csrecon.io import arrays
    from csrecon.sensing import lab, native
    from csrecon.sensing.operators import SamplingOptions, make_operator
    from csrecon.sensing.operators.block import square_side

    assert size is not None
    if phi is None and ratio is None and kind != "identity":
        raise UsageError(
            "give the Φ that measures: --phi FILE, or --ratio R (and --seed) for csrecon's own."
        )
    if pixel_order not in ("C", "F") or (pixel_order == "F" and phi is None):
        raise UsageError(f"--pixel-order {pixel_order!r}: expected C, or F with --phi.")
    given = native.read_phi(*arrays.split_name(phi)) if phi else None
    block = (side, side) if side else None
    if given is not None and pixel_order == "F":
        square = square_side(given.shape[1])
        given = lab.by_rows(given, block or (square, square))
    options = SamplingOptions(kind=kind, ratio=ratio, phi=given, seed=seed, block=block)
    return make_operator((1, *size), options)


def _shown(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _target(model: str, output: Path | None, file_format: str | None) -> tuple[Path, str]:
    """The file to write, and its format."""
    if file_format not in (None, *_FORMATS.values()):
        raise UsageError(f"--format {file_format!r}: expected onnx or torch.")
    if output is None:
        suffix = ".pt2" if file_format == "torch" else ".onnx"
        stem = Path(model).stem if model.endswith(".safetensors") else model.rpartition("/")[2]
        return Path(f"{stem}{suffix}"), file_format or "onnx"
    known = _FORMATS.get(output.suffix.lower())
    if known is None or file_format not in (None, known):
        raise UsageError(
            f"-o {output}: expected a name that ends in .onnx, or in .pt2 with --format torch."
        )
    return output, known
