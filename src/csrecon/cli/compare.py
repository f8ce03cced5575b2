"""`csrecon compare`: what models make of one image, side by side."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli import parse
from csrecon.cli.command import (
    Device,
    Json,
    Overwrite,
    Precision,
    Seed,
    progress,
    say,
    say_json,
    say_table,
)
from csrecon.errors import UsageError

if TYPE_CHECKING:
    from csrecon.plot import Zoom

_FILM_COLUMNS = 5


def compare(
    image: Annotated[Path, typer.Argument(help="The original image; its luma is measured.")],
    ratio: Annotated[float, typer.Option(help="Sampling ratio m/n.")] = 0.1,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model, or MODEL@IPL; repeat for several.  [rcoast@1, @4, @6]"),
    ] = None,
    film: Annotated[
        bool, typer.Option("--film", help="Every iterate of the one model instead.")
    ] = False,
    zoom: Annotated[
        str | None,
        typer.Option(help="The enlarged square: row,column,side.  [the busiest]", metavar="SQUARE"),
    ] = None,
    seed: Seed = 0,
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
    --film how one model's iterates come nearer to the image.

    **Examples**

        csrecon compare img.png --ratio 0.1 --model rcoast@1 --model rcoast@6 --model tv
        csrecon compare img.png --film --model rcoast@4 -o film.png
    """
    from csrecon import api, execution, files, images, metrics, plot

    setup = execution.choose(device, precision)
    plot.check_suffix(output)
    files.refuse_existing(output, overwrite=overwrite)
    jobs = [_job(text) for text in model or ["rcoast@1", "rcoast@4", "rcoast@6"]]
    if film and len(jobs) > 1:
        raise UsageError("--film shows one model: give one --model.")
    picture = images.read(image)
    measured = api.sample(picture, ratio=ratio, seed=seed)
    original = images.to_array(picture.planes, "gray")
    square = _square(zoom, original.shape) if zoom else plot.busiest(original, 48)
    results: list[dict[str, Any]] = []
    panels = []

    def add(label: str, planes: Any, seconds: float) -> None:
        score = metrics.score(planes, picture.planes)
        results.append(
            {"model": label, "psnr": score.psnr, "ssim": score.ssim, "seconds": round(seconds, 3)}
        )
        title = f"{label}\n{score.psnr:.2f} dB, SSIM {score.ssim:.3f}"
        panels.append(plot.Panel(title, images.to_array(planes, "gray")))

    with progress() as bar:
        task = bar.add_task("comparing", total=len(jobs))
        for name, ipl in jobs:
            began = time.perf_counter()
            label = Path(name).stem + (f", IPL {ipl}" if ipl else "")
            for step in api.reconstruct_steps(measured, name, ipl, setup):
                if film:
                    add(f"iteration {step.index}", step.image.cpu(), time.perf_counter() - began)
            if not film:
                add(label, step.image.cpu(), time.perf_counter() - began)
            bar.advance(task)
    m, n = measured.y.shape[-1], round(measured.y.shape[-1] / measured.operator.ratio)
    title = f"{image.name}: y = Φx with {m} of {n} measurements a block (ratio {ratio:g})"
    shown = plot.Panel("original", original)
    if film:
        plot.side_by_side([shown, *panels], output, f"{title}, {label}", _FILM_COLUMNS, overwrite)
    else:
        plot.comparison([shown, *panels], original, square, output, title, overwrite)
    if as_json:
        say_json({"figure": str(output), "ratio": measured.operator.ratio, "results": results})
        return
    lines = [
        [r["model"], f"{r['psnr']:.2f}", f"{r['ssim']:.4f}", f"{r['seconds']:.2f}"] for r in results
    ]
    say_table(["model", "PSNR", "SSIM", "seconds"], lines)
    say(str(output))


def _job(text: str) -> tuple[str, int | tuple[int, ...] | None]:
    """`rcoast@6` -> the model and the IPL."""
    name, at, ipl = text.partition("@")
    if text.startswith("hf:"):
        return text, None
    return name, parse.ipl(ipl) if at else None


def _square(text: str, shape: tuple[int, ...]) -> "Zoom":
    from csrecon.plot import Zoom

    match = re.fullmatch(r"(\d{1,6}),(\d{1,6}),(\d{1,6})", text.replace(" ", ""))
    height, width = shape[:2]
    if match:
        top, left, side = (int(part) for part in match.groups())
        if side and top + side <= height and left + side <= width:
            return Zoom(top, left, side)
    raise UsageError(f"--zoom {text!r}: expected row,column,side inside {height}×{width} pixels.")
