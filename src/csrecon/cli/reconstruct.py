"""`csrecon reconstruct`: measurement files -> images."""

import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli import batch, lab, parse, torchrun
from csrecon.cli.command import Device, Json, Overwrite, Precision, Tile, progress, say, say_json
from csrecon.errors import InputError, UsageError

_NATIVE = lab.LabOptions()

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from csrecon.measurement import Measurement
    from csrecon.recursion import Reconstructor, Step


def reconstruct(
    measurements: Annotated[
        list[str],
        typer.Argument(help="Measurement files, folders or globs.", metavar="MEASUREMENT"),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A name of `csrecon models list`, a .safetensors file, or hf:owner/name."
        ),
    ] = "rcoast",
    ipl: Annotated[
        str | None,
        typer.Option(help="Iterations per layer: 6, or one a layer as 4,4,4,6,6.", metavar="IPL"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Image file or folder; y.npy becomes y.png beside it by default. .npy keeps "
            "float32, unclipped.",
        ),
    ] = None,
    ref: Annotated[
        Path | None,
        typer.Option(help="The original image, or a folder of them: also prints PSNR and SSIM."),
    ] = None,
    rotate: Annotated[
        int, typer.Option(help="Turn the image clockwise: 90, 180 or 270 degrees.")
    ] = 0,
    laboratory: lab.LabOptions = _NATIVE,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Reconstruct images from measurements.

    A measurement of `csrecon sample` says itself how it was made. Values of another origin (.npy,
    .npz, .mat, .h5, .csv) need --shape and --phi, and what else differs; `csrecon inspect` shows
    what a file holds. Blocks that were not measured become transparent. Scores follow the
    protocol of the papers: clipped to [0, 1], not rounded, peak 255.

    **Examples**

        csrecon reconstruct y.npy --model rcoast --ipl 6
        csrecon reconstruct y.npy --ref img.png
        csrecon reconstruct lab.npy --phi phi.npy --shape 480x288 -o lab.tif
        csrecon reconstruct lab.mat --var y --phi lab.mat:phi --shape 480x288 --pixel-order F
        csrecon reconstruct measurements/ -o images/
        torchrun --nproc-per-node 8 -m csrecon reconstruct measurements/ -o images/
    """
    from csrecon import __version__, api, cards, execution, files, images, zoo

    counts = parse.ipl(ipl)
    parse.shape(laboratory.shape)
    matrix = laboratory.sampling()
    if rotate % 90 or not 0 <= rotate < 360:
        raise UsageError(f"--rotate {rotate}: expected 0, 90, 180 or 270.")
    sources, many = batch.expand(measurements, _measurements_in)
    tasks = batch.plan(
        sources,
        many,
        output,
        ".png",
        lambda source: source.with_suffix(".png"),
        lambda target: (target,),
        overwrite,
    )
    inputs = [*sources, *laboratory.inputs(), *([ref] if ref else [])]
    for task in tasks:
        images.check_suffix(task.target)
        _keep_inputs(task.target, inputs)

    @functools.cache
    def network(level: float | None) -> "Reconstructor":
        return zoo.load(model, level)

    per_ratio = model in cards.cards() and cards.card(model).per_ratio
    if not per_ratio:
        network(None)  # a wrong name is found before any work

    def work(task: batch.Task) -> dict[str, Any]:
        files.refuse_existing(task.target, overwrite=overwrite)
        loaded_from = lab.load(task.source, laboratory, matrix)
        measured = loaded_from.measurement
        loaded = network(measured.level if per_ratio else None)
        original = None
        if ref is not None:
            reference = _reference(ref, task, many)
            _keep_inputs(task.target, [reference])
            original = _original(reference, measured, rotate)
        began = time.perf_counter()
        final = execution.final(
            _shown(
                api.reconstruct_steps(measured, loaded, counts, setup),
                task.source.name,
            )
        )
        seconds = time.perf_counter() - began
        pixels = _turned(images.to_array(final.image, measured.format.color), rotate)
        seen = _seen(measured, rotate)
        score = _score(pixels, original, seen) if original is not None else {}
        made_by = {
            "ratio": measured.operator.ratio,
            "model": Path(model).name if model.endswith(".safetensors") else model,
            "iterations": final.total,
            **loaded_from.correction,
        }
        facts = {"csrecon": __version__, **made_by}
        with files.new_files(task.target, overwrite=overwrite) as (temporary,):
            images.encode(temporary, pixels, measured.format.bit_depth, seen, facts)
        return {
            "measurement": str(task.source),
            "output": str(task.target),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "color": measured.format.color,
            **made_by,
            "device": str(setup.device),
            "precision": setup.precision,
            "seconds": round(seconds, 4),
            **({"missing_pixels": int((~seen).sum())} if seen is not None else {}),
            **score,
        }

    def report(results: list[dict[str, Any]]) -> None:
        if as_json:
            say_json(results)
            return
        for r in results:
            figures = f", PSNR {r['psnr']:.2f} dB" if "psnr" in r else ""
            figures += f", SSIM {r['ssim']:.4f}" if "ssim" in r else ""
            if "gain" in r:
                figures += f"; gain {r['gain']:.6g} and offset {r['offset']:.6g} removed"
            if "missing_pixels" in r:
                figures += f"; {r['missing_pixels']} pixels were not measured"
            say(
                f"{r['measurement']} -> {r['output']} ({r['height']}×{r['width']}, {r['color']}): "
                f"{model}, {r['iterations']} iterations, {r['seconds']:.2f} s on {r['device']}, "
                f"{r['precision']}{figures}"
            )

    with torchrun.processes(device) as (chosen, rank, world):
        setup = execution.choose(chosen, precision, tile)
        batch.run(tasks, work, report, (rank, world))


def _turned(pixels: "NDArray[Any]", degrees: int) -> "NDArray[Any]":
    import numpy as np

    return np.ascontiguousarray(np.rot90(pixels, -degrees // 90))


def _seen(measured: "Measurement", degrees: int) -> "NDArray[np.bool_] | None":
    """Which pixels of the turned image were measured; None for all."""
    seen = measured.operator.seen()
    return None if seen is None else _turned(seen.numpy(), degrees)


def _keep_inputs(target: Path, inputs: list[Path]) -> None:
    """Refuse a target that is one of the inputs, or the sidecar of one, also with --overwrite."""
    from csrecon.measurement_file import sidecar_path

    protected = {p.resolve() for path in inputs for p in (path, sidecar_path(path))}
    if target.resolve() in protected:
        raise UsageError(f"{target}: is an input of this command; give another output with -o.")


def _measurements_in(folder: Path) -> list[Path]:
    from csrecon.measurement_file import SUFFIXES

    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: no measurement in it (looked for {', '.join(SUFFIXES)}).")
    return found


def _shown(iterates: "Iterator[Step]", name: str) -> "Iterator[Step]":
    """Pass iterates on while a bar counts them."""
    with progress() as bar:
        task = bar.add_task(name, total=None)
        for step in iterates:
            bar.update(task, completed=step.index, total=step.total)
            yield step


def _reference(ref: Path, task: batch.Task, many: bool) -> Path:
    """The original of a measurement: `ref`, or the image of the same name in that folder."""
    from csrecon.datasets import list_images

    if not ref.is_dir():
        if many:
            raise InputError(f"--ref {ref}: many measurements need a folder of originals.")
        return ref
    named = [path for path in list_images(ref) if path.stem == task.source.stem]
    if not named:
        raise InputError(f"--ref {ref}: no image named {task.source.stem}.* in it.")
    return named[0]


def _original(path: Path, measured: "Measurement", degrees: int) -> "NDArray[np.float32]":
    """The original image, in the colours of the measurement and of its size once turned."""
    from csrecon import images

    color = measured.format.color
    original = images.to_array(images.read(path, color).planes, color)
    height, width = measured.operator.image_shape
    if degrees % 180:
        height, width = width, height
    if original.shape[:2] != (height, width):
        raise InputError(
            f"--ref {path}: it is {original.shape[0]}×{original.shape[1]}, and {height}×{width} "
            "was measured; is this the original?"
        )
    return original


def _score(
    pixels: "NDArray[np.float32]",
    original: "NDArray[np.float32]",
    seen: "NDArray[np.bool_] | None",
) -> dict[str, float]:
    """PSNR and SSIM; where blocks are missing, the PSNR of the others alone."""
    import math

    import torch

    from csrecon import metrics

    def planes(array: "NDArray[np.float32]") -> torch.Tensor:
        stack = torch.from_numpy(array)
        return stack[None, None] if stack.ndim == 2 else stack.permute(2, 0, 1)[:, None]

    if seen is not None:
        there = pixels.copy()
        there[~seen] = original[~seen]
        score = metrics.score(planes(there), planes(original))
        return {"psnr": score.psnr + 10 * math.log10(seen.mean())}
    score = metrics.score(planes(pixels), planes(original))
    return {"psnr": score.psnr, "ssim": score.ssim}
