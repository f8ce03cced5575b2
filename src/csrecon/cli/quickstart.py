"""`csrecon quickstart`: the main job on a photo that matplotlib carries, in one command."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from csrecon.cli.command import Device, Json, Overwrite, progress, say, say_json, say_table

RATIO = 0.1
IPLS = (1, 2, 4, 6)


def quickstart(
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The figure: .png, .pdf or .svg.")
    ] = Path("quickstart.png"),
    device: Device = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sample a photo at a tenth of its size, reconstruct it, and draw the result.

    Needs no network: the photo (Grace Hopper, U.S. Navy, public domain) comes with matplotlib
    and the weights of `rcoast` with csrecon. Prints PSNR, SSIM and seconds for 1, 2, 4 and 6
    iterations per layer and writes one figure.

    **Example**

        csrecon quickstart
    """
    from matplotlib import cbook

    from csrecon import api, execution, files, images, metrics, plot, zoo

    plot.check_suffix(output)
    files.refuse_existing(output, overwrite=overwrite)
    picture = images.read(Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))))
    measured = api.sample(picture, ratio=RATIO)
    setup = execution.choose(device)
    network = zoo.load("rcoast")
    back = measured.operator.adjoint(measured.y)
    results: list[dict[str, Any]] = []

    def panel(name: str, planes: Any) -> plot.Panel:
        score = metrics.score(planes, picture.planes)
        title = f"{name}\n{score.psnr:.2f} dB, SSIM {score.ssim:.3f}"
        return plot.Panel(title, images.to_array(planes, "gray"))

    height, width = measured.operator.image_shape
    panels = [
        plot.Panel(f"original\n{height}×{width}", images.to_array(picture.planes, "gray")),
        panel("Φᵀy, the start", back),
    ]
    with progress() as bar:
        task = bar.add_task("reconstructing", total=sum(IPLS))
        for ipl in IPLS:
            began = time.perf_counter()
            for step in api.reconstruct_steps(measured, network, ipl, setup):
                bar.advance(task, ipl / step.total)
            seconds = time.perf_counter() - began
            image = step.image.cpu()
            score = metrics.score(image, picture.planes)
            results.append(
                {"ipl": ipl, "psnr": score.psnr, "ssim": score.ssim, "seconds": round(seconds, 3)}
            )
            panels.append(panel(f"rcoast, IPL {ipl}, {seconds:.2f} s", image))
    error = images.to_array((image.clamp(0, 1) - picture.planes).abs(), "gray")
    panels.append(plot.Panel(f"|error| at IPL {IPLS[-1]}", error, error=True))
    m, n = measured.y.shape[-1], round(measured.y.shape[-1] / measured.operator.ratio)
    title = f"y = Φx with {m} of {n} measurements a block (ratio {RATIO})"
    plot.side_by_side(panels, output, title, overwrite=overwrite)
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
