"""`csrecon compare`: reconstructions of one image by several models, side by side."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon import _default
from csrecon.cli import parse
from csrecon.cli.command import (
    Device,
    Json,
    Overwrite,
    Precision,
    progress,
    say,
    say_json,
    say_table,
)
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.evaluation.compare import Entry
    from csrecon.reconstructors.base import Step

_FILM_COLUMNS = 5


def compare(
    image: Annotated[Path, typer.Argument(help="The original image; its luma is measured.")],
    ratio: Annotated[float | None, typer.Option(help="Sampling ratio m/n.  [0.1]")] = None,
    measurement: Annotated[
        Path | None,
        typer.Option(
            "-y",
            "--measurement",
            help="A measurement of the image that `csrecon sample` wrote, with its kind of Φ or "
            "mask and its noise, instead of a new one.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model, or MODEL@IPL; repeat for several.  "
            f"[{_default.MODEL} or what `reconstruct` takes, at IPL 2, 6 and 20]"
        ),
    ] = None,
    film: Annotated[
        bool, typer.Option("--film", help="Show every iterate of one model instead.")
    ] = False,
    zoom: Annotated[
        str | None,
        typer.Option(help="The enlarged square: row,column,side.  [most detail]", metavar="SQUARE"),
    ] = None,
    uncertainty: Annotated[
        int,
        typer.Option(
            help="Also draw the standard deviation of every pixel, estimated without the original "
            "from so many reconstructions with fewer rows, at least 2.",
            min=0,
            max=100,
            metavar="SAMPLES",
        ),
    ] = 0,
    seed: Annotated[int | None, typer.Option(help="Seed of Φ.  [0]", min=0)] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The figure: .png, .pdf or .svg.")
    ] = Path("compare.png"),
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure an image, reconstruct it with several models or IPLs, and draw them side by side.

    The figure shows every reconstruction with an enlarged square and its error map, or with
    --film the iterates of one model. --json has the PSNR, seconds and objective of every iterate,
    which `csrecon plot` draws.

    **Examples**

        csrecon compare img.png --ratio 0.1 --model frcoast@6 --model rcoast@6 --model tv
        csrecon compare img.png --film --model rcoast@4 -o film.png
        csrecon compare img.png --ratio 0.25 --model frcoast --uncertainty 8 -o sure.png
        csrecon compare brain.png -y y.npy --model adjoint --model mri-frcoast -o brain.svg
    """
    from csrecon import api
    from csrecon.evaluation import compare as comparing
    from csrecon.evaluation import plot
    from csrecon.io import files, images
    from csrecon.runtime import execution
    from csrecon.sensing import beside

    setup = execution.choose(device, precision)
    plot.check_suffix(output)
    files.refuse_existing(output, overwrite=overwrite)
    named = [parse.model_at(text) for text in model or []]
    given = [image, *(Path(name) for name, _ in named), *([measurement] if measurement else [])]
    files.refuse_inputs([output], beside.with_sidecars(given))
    if measurement is not None and (ratio is not None or seed is not None):
        raise UsageError("--ratio and --seed measure the image, and -y has its measurement.")
    entries = [comparing.Entry(name, ipl) for name, ipl in named]
    if film and len(entries) != 1:
        raise UsageError("--film shows one model: give one --model.")
    if uncertainty == 1 or (film and uncertainty):
        raise UsageError(
            "--uncertainty 1: a standard deviation needs at least 2 samples."
            if uncertainty == 1
            else "--film shows iterates: leave out --uncertainty."
        )
    picture = images.read(image)
    if measurement is None:
        measured = api.sample(picture, ratio=0.1 if ratio is None else ratio, seed=seed or 0)
    else:
        measured = comparing.known(measurement, picture, str(image))
    entries = entries or comparing.usual(measured)
    shown = comparing.original(picture)
    square = comparing.zoom(zoom, shown.image)
    with progress() as bar:
        task = bar.add_task("comparing", total=len(entries))

        def watch(entry: "Entry", step: "Step") -> None:
            bar.update(task, completed=entries.index(entry) + step.index / step.total)

        if film:
            outcomes = comparing.film(picture, measured, entries[0], setup, watch, _FILM_COLUMNS)
        else:
            outcomes = comparing.compare(picture, measured, entries, setup, watch, uncertainty)
    title = f"{image.name}: {comparing.title(measured)}"
    panels = [shown, *(outcome.panel() for outcome in outcomes)]
    if film:
        title += f", {entries[0].label}"
        plot.side_by_side(panels, output, title, _FILM_COLUMNS, overwrite)
    else:
        plot.comparison(panels, shown.image, square, output, title, overwrite)
    if as_json:
        results = [{**o.facts(), "convergence": list(o.trace)} for o in outcomes]
        say_json({"figure": str(output), "ratio": measured.operator.ratio, "results": results})
        return
    lines = [
        [o.label, f"{o.score.psnr:.2f}", f"{o.score.ssim:.4f}", f"{o.seconds:.2f}"]
        for o in outcomes
    ]
    say_table(["model", "PSNR (dB)", "SSIM", "seconds"], lines)
    say(f"-> {output}")
