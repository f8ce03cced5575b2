"""`csrecon quickstart`: sampling and reconstruction of a photo in one command."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from csrecon import _default
from csrecon.cli.command import Device, Json, Overwrite, progress, say, say_json, say_table

if TYPE_CHECKING:
    from csrecon.reconstructors.base import Step

RATIO = 0.1
IPLS = (2, 4, 8, 20)


def quickstart(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The figure: .png, .pdf or .svg.")
    ] = Path("quickstart.png"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sample a photo at a ratio of 0.1, reconstruct it, and draw the result.

    Needs no network: the photo (Grace Hopper, U.S. Navy, public domain) comes with matplotlib
    and the weights of `frcoast` with csrecon. Prints PSNR, SSIM and seconds for 2, 4, 8 and 20
    iterations and writes one figure.

    **Example**

        csrecon quickstart
    """
    from matplotlib import cbook

    from csrecon import api
    from csrecon.evaluation import compare, plot
    from csrecon.io import files, images
    from csrecon.runtime import execution

    plot.check_suffix(output)
    files.refuse_existing(output, overwrite=overwrite)
    photo = Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))
    files.refuse_inputs([output], [photo])
    picture = images.read(photo)
    measured = api.sample(picture, ratio=RATIO)
    entries = [compare.Entry(_default.MODEL, ipl) for ipl in IPLS]
    with progress() as bar:
        task = bar.add_task("reconstructing", total=len(entries))

        def watch(entry: compare.Entry, step: "Step") -> None:
            bar.update(task, completed=entries.index(entry) + step.index / step.total)

        outcomes = compare.compare(picture, measured, entries, execution.choose(device), watch)
    panels = [
        compare.original(picture),
        compare.back_projection(measured, picture),
        *(outcome.panel() for outcome in outcomes),
        compare.error(outcomes[-1], picture),
    ]
    plot.side_by_side(panels, output, compare.title(measured), overwrite=overwrite)
    results = [
        {"ipl": ipl, **{key: value for key, value in outcome.facts().items() if key != "model"}}
        for ipl, outcome in zip(IPLS, outcomes, strict=True)
    ]
    if as_json:
        say_json({"figure": str(output), "ratio": RATIO, "results": results})
        return
    header = ["IPL", "PSNR (dB)", "SSIM", "seconds"]
    lines = [
        [str(r["ipl"]), f"{r['psnr']:.2f}", f"{r['ssim']:.4f}", f"{r['seconds']:.2f}"]
        for r in results
    ]
    say_table(header, lines)
    say(f"-> {output}")
