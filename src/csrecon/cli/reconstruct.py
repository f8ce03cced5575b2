"""`csrecon reconstruct`: measurement files -> images."""

from pathlib import Path
from typing import Annotated, Any

import typer

from csrecon import _default
from csrecon.cli import batch, lab, mri, parse, solver, torchrun, trust
from csrecon.cli.command import Device, Json, Overwrite, Precision, Tile, say, say_json
from csrecon.errors import UsageError

_NATIVE = lab.LabOptions()
_DETECTED = mri.ScanOptions()
_UNCHECKED = trust.TrustOptions()
_COLD = solver.SolverOptions()


def reconstruct(
    measurements: Annotated[
        list[str],
        typer.Argument(
            help="Measurement files, folders or globs; images for `--model denoise`.",
            metavar="MEASUREMENT",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            help="A name of `csrecon models list`, a .safetensors file, or hf:owner/name.  "
            f"[{_default.MODEL}; for k-space {_default.KSPACE}, for images with noise "
            f"{_default.IDENTITY}]"
        ),
    ] = None,
    ipl: Annotated[
        str | None,
        typer.Option(help="Iterations per layer: 6, or one per layer as 4,4,4,6,6.", metavar="IPL"),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="Image file or folder; by default y.png beside y.npy. .npy keeps float32, "
            "unclipped. .nii.gz is one volume of all images.",
        ),
    ] = None,
    ref: Annotated[
        Path | None,
        typer.Option(help="The original image, or a folder of them: also prints PSNR and SSIM."),
    ] = None,
    rotate: Annotated[
        int, typer.Option(help="Turn the image clockwise: 90, 180 or 270 degrees.")
    ] = 0,
    phase_image: Annotated[
        bool,
        typer.Option(
            "--phase-image",
            help="Also write the phase of complex images, as x_phase.png: -π is black, π white; "
            "radians in .nii.gz.",
        ),
    ] = False,
    laboratory: lab.LabOptions = _NATIVE,
    scan: mri.ScanOptions = _DETECTED,
    trusted: trust.TrustOptions = _UNCHECKED,
    solving: solver.SolverOptions = _COLD,
    device: Device = "auto",
    precision: Precision = "auto",
    tile: Tile = "auto",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Reconstruct images from measurements.

    A measurement of `csrecon sample` needs no options. Lab measurements (.npy, .npz, .mat, .h5,
    .csv) need --shape and --phi, and the options for their order and calibration;
    `csrecon inspect` shows the content of a file. Masked blocks become transparent. Scores follow
    the protocol of the papers: clipped to [0, 1], not rounded, peak 255. Networks reconstruct small
    measurements with equal size and Φ in one batch, which changes only rounding; each then has an
    equal share of the seconds. Of classical solvers -v prints every iteration, and --json has the
    list of them, which `csrecon plot` draws.

    **Examples**

        csrecon reconstruct y.npy --model rcoast --ipl 6
        csrecon reconstruct y.npy --ref img.png
        csrecon reconstruct y.npy --check --uncertainty sigma.tif
        csrecon reconstruct y.npy --model tv:weight=auto,tolerance=1e-4 --init-model fista -v
        csrecon reconstruct noisy.png --model denoise:with=nlm
        csrecon reconstruct lab.npy --phi phi.npy --shape 480x288 -o lab.tif
        csrecon reconstruct lab.mat --var y --phi lab.mat:phi --shape 480x288 --pixel-order F
        csrecon reconstruct kspace.h5 -o slices/
        csrecon reconstruct kspace.h5 --model tv -o volume.nii.gz
        csrecon reconstruct measurements/ -o images/
        torchrun --nproc-per-node 8 -m csrecon reconstruct measurements/ -o images/
    """
    from csrecon.cli import work as working
    from csrecon.evaluation import references
    from csrecon.io import files, images, volumes
    from csrecon.runtime import execution
    from csrecon.runtime.together import Together
    from csrecon.sensing import beside

    parse.shape(laboratory.shape)
    if rotate % 90 or not 0 <= rotate < 360:
        raise UsageError(f"--rotate {rotate}: expected 0, 90, 180 or 270.")
    sources, many = batch.expand(measurements, batch.measurements_in)
    volume = Path(output) if output and volumes.is_volume(Path(output)) else None
    if volume is not None:
        volumes.check_installed(volume)
        tasks = [batch.Task(source, Path(f"{source.stem}.png")) for source in sources]
    else:
        tasks = batch.plan(
            sources,
            many,
            output,
            ".png",
            _beside,
            lambda target: (target, working.phase_of(target)) if phase_image else (target,),
            overwrite,
        )
    for target in [volume] if volume else [task.target for task in tasks]:
        if volume is None:
            images.check_suffix(target)
        if phase_image:
            working.refuse_phase(target)
    scans = mri.Scans(scan, laboratory)
    tasks = scans.by_slice(tasks)
    many = many or len(tasks) > 1
    if volume is not None:
        _refuse_several_scans(tasks, trusted.wanted)
    solving.check(many, trusted.wanted)
    named = [path for path in (ref, solving.init) if path]
    given = [*sources, *laboratory.inputs(), *named, *([Path(model)] if model else [])]
    written = [volume] if volume else [task.target for task in tasks]
    written += [working.phase_of(target) for target in written] if phase_image else []
    maps = trusted.outputs(many)
    targets = [*written, *maps]
    if len(set(targets)) < len(targets):
        raise UsageError(
            "two outputs would have one name: the image and the maps of --uncertainty, or the "
            "phase of one image and another image. Rename one."
        )
    files.refuse_existing(*maps, *([] if volume is None else written), overwrite=overwrite)
    files.refuse_inputs(targets, beside.with_sidecars(given))
    beside.refuse_described(targets)

    with torchrun.processes(device) as (chosen, rank, world):
        work = working.Work(
            model,
            parse.ipl(ipl),
            execution.choose(chosen, precision, tile),
            laboratory,
            scans,
            laboratory.sampling(),
            trusted,
            solving,
            references.Originals(ref, many) if ref else None,
            rotate,
            overwrite,
            phase_image,
            output is not None and Path(output) == tasks[0].target,
            volume,
        )
        work.check_model()
        with Together(
            tasks if volume else tasks[rank::world],
            work.load,
            work.compute,
            work.batch_key,
            work.most,
        ) as pairs:

            def finish(task: batch.Task) -> dict[str, Any]:
                if volume is not None:
                    return work.write_volume(tasks, pairs)
                return work.write(task, *pairs.take(task))

            shown = say_json if as_json else _report
            whole = [batch.Task(sources[0], volume)] if volume else tasks
            batch.run(whole, finish, shown, (rank, world))


def _refuse_several_scans(tasks: list[batch.Task], held_out: bool) -> None:
    """Raise UsageError for what one volume cannot hold: several scales, or maps of the error."""
    scanned = {task.source for task in tasks if task.part is not None}
    if len(scanned) > 1:
        raise UsageError(
            f"{len(scanned)} files of k-space, each with a scale of its own: one volume holds one "
            "of them. Give one file."
        )
    if held_out:
        raise UsageError("--check and --uncertainty are of one image, not of a volume.")


def _beside(source: Path) -> Path:
    """The output of a measurement, or of an image, which keeps its own name."""
    from csrecon.io import images

    image = source.suffix.lower() in images.SUFFIXES
    return source.with_name(f"{source.stem}_denoised.png" if image else f"{source.stem}.png")


def _report(results: list[dict[str, Any]]) -> None:
    """Print one line per image."""
    for r in results:
        figures = f", PSNR {r['psnr']:.2f} dB" if "psnr" in r else ""
        figures += f", SSIM {r['ssim']:.4f}" if "ssim" in r else ""
        figures += f", {trust.in_words(r)}" if "estimated_psnr" in r else ""
        if "gain" in r:
            figures += f"; {lab.in_words(r)}; removed"
        if "missing_pixels" in r:
            figures += f"; {r['missing_pixels']} pixels were not measured"
        if r.get("stopped", "iterations") != "iterations":
            figures += f"; {r['stopped']}"
        outputs = r["output"] + (f" + {r['phase']}" if "phase" in r else "")
        size = f"{r['slices']} slices, " if "slices" in r else ""
        say(
            f"{r['measurement']} -> {outputs} ({size}{r['height']}×{r['width']}, {r['color']}): "
            f"{r['model']}, {r['iterations']} iterations, {r['seconds']:.2f} s on {r['device']}, "
            f"{r['precision']}{figures}"
        )
