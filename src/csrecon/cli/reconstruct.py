"""`csrecon reconstruct`: measurement files -> images."""

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon import _default
from csrecon.cli import batch, lab, mri, parse, solver, torchrun, trust
from csrecon.cli.command import Device, Json, Overwrite, Precision, Tile, progress, say, say_json
from csrecon.errors import UsageError

_NATIVE = lab.LabOptions()
_DETECTED = mri.ScanOptions()
_UNCHECKED = trust.TrustOptions()
_COLD = solver.SolverOptions()
_AT_ONCE = 64  # files per batch: none is written before all are reconstructed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from csrecon.evaluation.references import Originals
    from csrecon.reconstructors.base import Reconstructor, Step
    from csrecon.runtime.execution import Setup
    from csrecon.sensing.measurement import Measurement
    from csrecon.sensing.operators import Phi


def reconstruct(
    measurements: Annotated[
        list[str],
        typer.Argument(
            help="Measurement files, folders or globs; images for `--model denoise`.",
            metavar="MEASUREMENT",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A name of `csrecon models list`, a .safetensors file, or hf:owner/name."
        ),
    ] = _default.MODEL,
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
            "unclipped.",
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
        csrecon reconstruct kspace.h5 --model tv -o slices/
        csrecon reconstruct measurements/ -o images/
        torchrun --nproc-per-node 8 -m csrecon reconstruct measurements/ -o images/
    """
    from csrecon.evaluation import references
    from csrecon.io import files, images
    from csrecon.runtime import execution
    from csrecon.runtime.together import Together
    from csrecon.sensing import beside
    from csrecon.zoo import is_solver

    parse.shape(laboratory.shape)
    if rotate % 90 or not 0 <= rotate < 360:
        raise UsageError(f"--rotate {rotate}: expected 0, 90, 180 or 270.")
    sources, many = batch.expand(measurements, batch.measurements_in)
    tasks = batch.plan(
        sources,
        many,
        output,
        ".png",
        _beside,
        lambda target: (target,),
        overwrite,
    )
    for task in tasks:
        images.check_suffix(task.target)
    scans = mri.Scans(scan, laboratory)
    tasks = scans.by_slice(tasks)
    many = many or len(tasks) > 1
    solving.check(many, trusted.wanted)
    named = [path for path in (ref, solving.init) if path]
    given = [*sources, *laboratory.inputs(), *named, Path(model)]
    maps = trusted.outputs(many)
    targets = [*(task.target for task in tasks), *maps]
    if len(set(targets)) < len(targets):
        raise UsageError("the image and the maps of --uncertainty need different names.")
    files.refuse_existing(*maps, overwrite=overwrite)
    files.refuse_inputs(targets, beside.with_sidecars(given))
    beside.refuse_described(targets)

    with torchrun.processes(device) as (chosen, rank, world):
        work = _Work(
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
            output is not None and Path(output) == tasks[0].target,
        )
        if not work.per_ratio:
            work.network(0.0)  # a wrong name fails before any work
        with Together(
            tasks[rank::world],
            work.load,
            work.compute,
            (lambda one: None) if is_solver(model) else work.batch_key,
            work.most,
        ) as pairs:

            def finish(task: batch.Task) -> dict[str, Any]:
                return work.write(task, *pairs.take(task))

            batch.run(tasks, finish, say_json if as_json else _report, (rank, world))


@dataclass(frozen=True)
class _Input:
    """A measurement that was read, with the gain and offset removed from it, and its original."""

    name: str
    measured: "Measurement"
    correction: dict[str, float]
    original: "NDArray[np.float32] | None"


@dataclass(frozen=True)
class _Output:
    """The result: planes (C, 1, H, W), number of iterations, and seconds per image.

    Of a classical solver also the facts of every iterate, and why it stopped.
    """

    planes: "Tensor"
    iterations: int
    seconds: float
    convergence: list[dict[str, float]]
    stopped: str


@dataclass(frozen=True)
class _Work:
    """The work on every measurement: read, reconstruct, write.

    Attributes:
        model, counts, setup: the network, its IPL, and how it runs.
        laboratory, scans, matrix: the options of lab measurements, their k-space, and their Φ.
        trusted: whether and how the error is estimated.
        solving: how a classical solver begins and ends.
        originals: where the originals are.
        rotate, overwrite: as the command's options.
        named: whether -o names the output itself, which else is named after its measurement.
        networks: the loaded networks, by ratio.
    """

    model: str
    counts: "int | tuple[int, ...] | None"
    setup: "Setup"
    laboratory: lab.LabOptions
    scans: mri.Scans
    matrix: "Phi | None"
    trusted: trust.TrustOptions
    solving: solver.SolverOptions
    originals: "Originals | None"
    rotate: int
    overwrite: bool
    named: bool
    networks: "dict[float | None, Reconstructor]" = field(default_factory=dict)

    def network(self, ratio: float) -> "Reconstructor":
        """The network, or that of a ratio where the model has per-ratio weights."""
        from csrecon import zoo

        known = ratio if self.per_ratio else None
        if known not in self.networks:
            self.networks[known] = zoo.load(self.model, known)
        return self.networks[known]

    @property
    def per_ratio(self) -> bool:
        """Whether the model has per-ratio weights."""
        from csrecon.zoo import cards

        return self.model in cards.cards() and cards.card(self.model).per_ratio

    @property
    def denoises(self) -> bool:
        """Whether the model denoises images."""
        from csrecon import zoo

        return zoo.split_name(self.model)[0] == "denoise"

    def load(self, task: batch.Task) -> _Input:
        """Read a measurement, and its original if there is one."""
        from csrecon.evaluation import references
        from csrecon.io import files, images

        files.refuse_existing(task.target, overwrite=self.overwrite)
        if not self.named:
            images.refuse_other(task.target)
        label = task.source if task.part is None else task.target
        if task.part is not None:
            loaded = self.scans.load(task)
        elif self.denoises and task.source.suffix.lower() in images.SUFFIXES:
            loaded = lab.noisy(task.source)
        else:
            loaded = lab.load(task.source, self.laboratory, self.matrix)
        original = None
        if self.originals is not None:
            reference = self.originals.of(label.stem)
            files.refuse_inputs([task.target], [reference])
            height, width = loaded.measurement.operator.image_shape
            shape = (width, height) if self.rotate % 180 else (height, width)
            original = references.read(reference, loaded.measurement.format.color, shape)
        return _Input(label.name, loaded.measurement, loaded.correction, original)

    @staticmethod
    def batch_key(one: _Input) -> Hashable | None:
        """The batch key of a measurement; None if it is reconstructed alone."""
        return one.measured.batch_key

    def most(self, one: _Input) -> int:
        """How many measurements like this one fill a tile, at most 64."""
        return min(_AT_ONCE, self.setup.planes_at_once(one.measured) // len(one.measured.y))

    def compute(self, inputs: Sequence[_Input]) -> list[_Output]:
        """Reconstruct measurements of equal batch key."""
        import torch

        from csrecon.runtime import execution
        from csrecon.sensing.measurement import Measurement

        measured = Measurement.stacked([one.measured for one in inputs])
        network = self.network(measured.operator.ratio)
        label = inputs[0].name + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else "")
        began = time.perf_counter()
        convergence: list[dict[str, float]] = []
        final = execution.final(_shown(self.iterates(measured, network), label, convergence))
        seconds = (time.perf_counter() - began) / len(inputs)
        planes = torch.split(final.image, [len(one.measured.y) for one in inputs])
        return [_Output(p, final.total, seconds, convergence, final.stopped) for p in planes]

    def iterates(self, m: "Measurement", network: "Reconstructor") -> "Iterator[Step]":
        """Every iterate of a reconstruction, from the warm start if there is one."""
        from csrecon import api

        start, keep_going = self.solving.start, self.solving.keep_going
        return api.reconstruct_steps(m, network, self.counts, self.setup, start, keep_going)

    def reconstruct(self, m: "Measurement") -> "Tensor":
        """The image of a measurement, (C, 1, H, W)."""
        from csrecon.runtime import execution

        return execution.final(self.iterates(m, self.network(m.operator.ratio))).image

    def write(self, task: batch.Task, given: _Input, made: _Output) -> dict[str, Any]:
        """Write an image; return the facts to report."""
        from csrecon._version import __version__
        from csrecon.evaluation import plausible, references
        from csrecon.io import files, images

        measured, name = given.measured, self.model
        upright = images.to_array(made.planes, measured.format.color)
        plausible.notice(upright, measured, str(task.source))
        trusted: dict[str, Any] = {}
        if self.trusted.wanted:
            checked = self.trusted.checked(measured, made.planes, self.reconstruct)
            trust.notice(checked, str(task.source))
            trusted = trust.facts(checked)
            if self.trusted.uncertainty:
                trust.write_maps(self.trusted, checked, measured, upright, self.overwrite)
        pixels = _turned(upright, self.rotate)
        mask = measured.operator.observed()
        observed = None if mask is None else _turned(mask.numpy(), self.rotate)
        score = (
            references.score(pixels, given.original, observed) if given.original is not None else {}
        )
        made_by = {
            "ratio": measured.operator.ratio,
            "model": Path(name).name if name.endswith(".safetensors") else name,
            "iterations": made.iterations,
            **given.correction,
        }
        facts = {"csrecon": __version__, **made_by}
        facts |= {name: trusted[name] for name in trusted if name.startswith("estimated")}
        with files.new_files(task.target, overwrite=self.overwrite) as (temporary,):
            images.encode(temporary, pixels, measured.format.bit_depth, observed, facts)
        return {
            "measurement": str(task.source),
            "output": str(task.target),
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "color": measured.format.color,
            **made_by,
            "device": str(self.setup.device),
            "precision": self.setup.precision,
            "seconds": round(made.seconds, 4),
            **({"missing_pixels": int((~observed).sum())} if observed is not None else {}),
            **trusted,
            **score,
            **solver.reason(made.convergence, made.stopped),
        }


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
        say(
            f"{r['measurement']} -> {r['output']} ({r['height']}×{r['width']}, {r['color']}): "
            f"{r['model']}, {r['iterations']} iterations, {r['seconds']:.2f} s on {r['device']}, "
            f"{r['precision']}{figures}"
        )


def _turned(pixels: "NDArray[Any]", degrees: int) -> "NDArray[Any]":
    import numpy as np

    return np.ascontiguousarray(np.rot90(pixels, -degrees // 90))


def _shown(
    iterates: "Iterator[Step]", name: str, convergence: list[dict[str, float]]
) -> "Iterator[Step]":
    """Yield the iterates while a progress bar counts them, and keep what they say."""
    with progress() as bar:
        task = bar.add_task(name, total=None)
        for step in iterates:
            bar.update(task, completed=step.index, total=step.total)
            solver.tell(step, name)
            convergence.append(step.record())
            yield step
