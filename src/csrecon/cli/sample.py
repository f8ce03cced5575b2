"""`csrecon sample`: images -> measurement files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from csrecon.cli import batch, mri
from csrecon.cli.command import Color, Json, Kind, Overwrite, Seed, say, say_json
from csrecon.errors import UsageError, nearest

_SINGLE = mri.SampleOptions()


def sample(
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders or globs.", metavar="IMAGE")
    ],
    ratio: Annotated[
        float | None, typer.Option(help="Sampling ratio m/n in (0, 1].", metavar="R")
    ] = None,
    m: Annotated[
        int | None, typer.Option("--m", help="Measurements per block, instead of a ratio.")
    ] = None,
    phi: Annotated[
        Path | None, typer.Option(help="Your own Φ: .npy (m, n), or .npz with `phi`.")
    ] = None,
    phi_of: Annotated[
        str | None,
        typer.Option(
            help="Use the Φ of this model at --ratio (some models need theirs), and pack it: y.npz."
        ),
    ] = None,
    kind: Kind = "gaussian",
    mask: Annotated[
        str | None,
        typer.Option(
            help="For --kind fourier: random2d, random1d, radial, poisson, equispaced, or a file "
            "of 0 and 1 (zero frequency in the corner), which is packed: y.npz.",
            metavar="MASK",
        ),
    ] = None,
    coils: mri.SampleOptions = _SINGLE,
    seed: Seed = 0,
    block: Annotated[
        int | None,
        typer.Option(help="Side of a block in pixels.  [33; 32 for hadamard; what fits --phi]"),
    ] = None,
    noise_sigma: Annotated[
        float, typer.Option(help="Standard deviation of Gaussian noise on y.", min=0)
    ] = 0.0,
    photons: Annotated[
        float | None, typer.Option(help="Poisson noise: number of photons per unit of y.")
    ] = None,
    color: Color = "gray",
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="File (.npy, .npz), or folder; y.npy by default."),
    ] = None,
    pack: Annotated[
        str | None,
        typer.Option(help="npy: y.npy and y.json; npz: y, Φ and metadata in one file.  [npy]"),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure images, y = Ax, by block sampling (y = Φx), Fourier sampling or the identity.

    One image gives y.npy, with y.json beside it that describes the measurement; several give one
    measurement each in the folder of -o, named after their image.

    **Examples**

        csrecon sample img.png --ratio 0.1
        csrecon sample photo.jpg --ratio 0.25 --color rgb -o photo.npy
        csrecon sample photos/ --ratio 0.1 -o measurements/
        csrecon sample img.png --phi phi.npy --pack npz
        csrecon sample img.png --ratio 0.25 --kind hadamard --block 64
        csrecon sample img.png --ratio 0.25 --kind fourier
        csrecon sample img.png --kind fourier --mask equispaced --acceleration 4 --coils 8 --phase
        csrecon sample head.nii.gz --slices 60:100:10 --kind fourier --ratio 0.2 -o slices/
        csrecon sample img.png --kind identity --noise-sigma 0.1
    """
    import csrecon
    from csrecon.io import arrays, files
    from csrecon.io import images as pictures
    from csrecon.sensing import beside, native
    from csrecon.sensing.operators.masks import MASKS
    from csrecon.zoo import datasets, store

    if pack not in (None, "npy", "npz"):
        raise UsageError(f"--pack {pack!r}: expected npy or npz.")
    ratio = coils.ratio(ratio)
    if ratio is None and m is None and phi is None and mask is None and kind != "identity":
        raise UsageError("give the sampling: --ratio 0.1, --m 109, or --phi FILE.")
    planes = pictures.check_color(color)
    matrix = native.read_phi(phi) if phi else None
    frequencies: Any = mask
    masks: Path | None = None
    if mask is not None and mask not in MASKS:
        masks, name = arrays.split_name(mask)
        if kind == "fourier" and not masks.exists() and not masks.suffix:
            raise UsageError(f"--mask {mask}: {nearest(mask, MASKS)} Or give a file.")
        frequencies = arrays.pick(masks, name, "--mask FILE:NAME", likely="mask")
    if pack is None and output and Path(output).suffix.lower() in native.SUFFIXES:
        pack = Path(output).suffix.lower()[1:]
    if masks is not None or coils.sensitivities is not None or phi_of is not None:
        pack = pack or "npz"
    if phi_of is not None:
        if ratio is None or matrix is not None:
            raise UsageError("--phi-of needs --ratio, and excludes --phi.")
        matrix, ratio = store.own_phi(phi_of, ratio), None
        if matrix is None:
            raise UsageError(f"--phi-of {phi_of}: this model works with any Φ; leave it out.")
    sources, many = batch.expand(images, datasets.list_images)
    tasks = coils.by_slice(
        batch.plan(
            sources,
            many,
            output,
            f".{pack or 'npy'}",
            lambda source: None if many else Path(f"y.{pack or 'npy'}"),
            native.outputs,
            overwrite,
        )
    )

    given = [*sources, *([phi] if phi else []), *([masks] if masks else []), *coils.inputs()]
    files.refuse_inputs(
        (path for task in tasks for path in native.outputs(task.target)),
        beside.with_sidecars(given),
    )
    if pack and any(task.target.suffix.lower() != f".{pack}" for task in tasks):
        raise UsageError(f"--pack {pack} and -o {output} contradict each other.")

    named, fourier = output is not None and Path(output) == tasks[0].target, coils.fourier()

    def work(task: batch.Task) -> dict[str, Any]:
        if overwrite and not named:
            native.refuse_other(task.target)
        picture = coils.picture(task, planes, seed)
        measured = csrecon.sample(
            picture,
            ratio,
            m=m,
            phi=matrix,
            seed=seed,
            kind=kind,
            mask=frequencies,
            fourier=fourier,
            block=block,
            noise_sigma=noise_sigma,
            photons=photons,
        )
        native.save(measured, task.target, overwrite)
        height, width = measured.operator.image_shape
        return {
            "image": str(task.source),
            "outputs": [str(path) for path in native.outputs(task.target)],
            "height": height,
            "width": width,
            "color": measured.format.color,
            "shape": list(measured.y.shape),
            "ratio": measured.operator.ratio,
        }

    def report(results: list[dict[str, Any]]) -> None:
        if as_json:
            say_json(results)
            return
        for r in results:
            say(
                f"{r['image']} ({r['height']}×{r['width']}, {r['color']}) -> "
                f"{' + '.join(r['outputs'])}: y of shape {tuple(r['shape'])}, "
                f"m/n = {r['ratio']:.4f}"
            )

    batch.run(tasks, work, report)
