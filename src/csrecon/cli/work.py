"""The work of `csrecon reconstruct` on every measurement: read, reconstruct, write."""

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csrecon.cli import batch, lab, mri, solver, trust
from csrecon.cli.command import log, progress
from csrecon.errors import InputError, UsageError

_AT_ONCE = 64  # files per batch: none is written before all are reconstructed
_OF_A_SLICE = ("seconds", "missing_pixels", "psnr", "ssim", "stopped", "convergence")

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from csrecon.evaluation.references import Originals
    from csrecon.reconstructors.base import Reconstructor, Step
    from csrecon.runtime.execution import Setup
    from csrecon.runtime.together import Together
    from csrecon.sensing.measurement import Measurement
    from csrecon.sensing.operators import Phi


@dataclass(frozen=True)
class Input:
    """A measurement that was read, with the gain and offset removed from it, and its original."""

    name: str
    measured: "Measurement"
    correction: dict[str, float]
    original: "NDArray[np.float32] | None"


@dataclass(frozen=True)
class Output:
    """The result: planes (C, 1, H, W), number of iterations, and seconds per image.

    Of a classical solver also the facts of every iterate, and why it stopped.
    """

    planes: "Tensor"
    iterations: int
    seconds: float
    convergence: list[dict[str, float]]
    stopped: str


@dataclass(frozen=True)
class _Image:
    """An image as it is written: turned pixels, which of them were observed, and what to report.

    Attributes:
        pixels: (H, W), (H, W, 3), or complex (H, W).
        observed: (H, W); None for all.
        made_by: the facts that go into the file too.
        report: all facts.
    """

    pixels: "NDArray[Any]"
    observed: "NDArray[np.bool_] | None"
    made_by: dict[str, Any]
    report: dict[str, Any]


@dataclass(frozen=True)
class Work:
    """The work on every measurement: read, reconstruct, write.

    Attributes:
        model, counts, setup: the network, its IPL, and how it runs; without a model every
            measurement has its default.
        laboratory, scans, matrix: the options of lab measurements, their k-space, and their Φ.
        trusted: whether and how the error is estimated.
        solving: how a classical solver begins and ends.
        originals: where the originals are.
        rotate, overwrite: as the command's options.
        phase: whether the phase of complex images is written too.
        named: whether -o names the output itself, which else is named after its measurement.
        volume: the one volume that all images go to; None for a file for each.
        networks: the loaded networks, by name and ratio.
    """

    model: str | None
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
    phase: bool
    named: bool
    volume: Path | None
    networks: "dict[tuple[str, float | None], Reconstructor]" = field(default_factory=dict)

    def check_model(self) -> None:
        """Load a model that is named, so that a wrong name fails before any work."""
        if self.model is not None and not _per_ratio(self.model):
            self._loaded(self.model, 0.0)

    def name(self, m: "Measurement") -> str:
        """The model for a measurement."""
        from csrecon import zoo

        return self.model or zoo.default(m)

    def network(self, m: "Measurement") -> "Reconstructor":
        """The network for a measurement, of its ratio where the model has per-ratio weights."""
        return self._loaded(self.name(m), m.operator.ratio)

    def _loaded(self, name: str, ratio: float) -> "Reconstructor":
        from csrecon import zoo

        key = name, ratio if _per_ratio(name) else None
        if key not in self.networks:
            self.networks[key] = zoo.load(*key)
        return self.networks[key]

    @property
    def denoises(self) -> bool:
        """Whether the model denoises images."""
        from csrecon import zoo

        return self.model is not None and zoo.split_name(self.model)[0] == "denoise"

    def load(self, task: batch.Task) -> Input:
        """Read a measurement, and its original if there is one."""
        from csrecon.evaluation import references
        from csrecon.io import files, images

        if self.volume is None:
            outputs = self.outputs(task.target)
            files.refuse_existing(*outputs, overwrite=self.overwrite)
            for target in () if self.named else outputs:
                images.refuse_other(target)
        label = task.source if task.part is None else task.target
        if task.part is not None:
            loaded = self.scans.load(task)
        elif self.denoises and task.source.suffix.lower() in images.SUFFIXES:
            loaded = lab.noisy(task.source)
        else:
            loaded = lab.load(task.source, self.laboratory, self.matrix)
        if self.phase and loaded.measurement.format.color != "complex":
            raise UsageError(
                f"{task.source}: --phase-image is of complex images, and this is real."
            )
        if self.phase and not task.part and self.scans.estimates(task.source):
            log.warning(
                "%s: the phase is relative to that of the estimated sensitivities, which have the "
                "smooth phase of the image in them. Give maps with --sensitivities FILE.",
                task.source,
            )
        original = None
        if self.originals is not None:
            reference = self.originals.of(label.stem)
            files.refuse_inputs([task.target], [reference])
            height, width = loaded.measurement.operator.image_shape
            shape = (width, height) if self.rotate % 180 else (height, width)
            original = references.read(reference, loaded.measurement.format.color, shape)
        return Input(label.name, loaded.measurement, loaded.correction, original)

    def batch_key(self, one: Input) -> Hashable | None:
        """The batch key of a measurement; None if it is reconstructed alone, as by solvers."""
        from csrecon import zoo

        return None if zoo.is_solver(self.name(one.measured)) else one.measured.batch_key

    def most(self, one: Input) -> int:
        """How many measurements like this one fill a tile, at most 64."""
        return min(_AT_ONCE, self.setup.planes_at_once(one.measured) // len(one.measured.y))

    def compute(self, inputs: Sequence[Input]) -> list[Output]:
        """Reconstruct measurements of equal batch key."""
        import torch

        from csrecon.runtime import execution
        from csrecon.sensing.measurement import Measurement

        measured = Measurement.stacked([one.measured for one in inputs])
        network = self.network(measured)
        label = inputs[0].name + (f" and {len(inputs) - 1} more" if len(inputs) > 1 else "")
        began = time.perf_counter()
        convergence: list[dict[str, float]] = []
        final = execution.final(_shown(self.iterates(measured, network), label, convergence))
        seconds = (time.perf_counter() - began) / len(inputs)
        planes = torch.split(final.image, [len(one.measured.y) for one in inputs])
        return [Output(p, final.total, seconds, convergence, final.stopped) for p in planes]

    def iterates(self, m: "Measurement", network: "Reconstructor") -> "Iterator[Step]":
        """Every iterate of a reconstruction, from the warm start if there is one."""
        from csrecon import api

        start, keep_going = self.solving.start, self.solving.keep_going
        return api.reconstruct_steps(m, network, self.counts, self.setup, start, keep_going)

    def reconstruct(self, m: "Measurement") -> "Tensor":
        """The image of a measurement, (C, 1, H, W)."""
        from csrecon.runtime import execution

        return execution.final(self.iterates(m, self.network(m))).image

    def outputs(self, target: Path) -> tuple[Path, ...]:
        """The files of an image: itself, and its phase if that is asked for."""
        return (target, phase_of(target)) if self.phase else (target,)

    def finished(self, task: batch.Task, given: Input, made: Output) -> _Image:
        """The image of a task, and what is to be said of it."""
        from csrecon.evaluation import plausible, references
        from csrecon.io import images

        measured, name = given.measured, self.name(given.measured)
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
        report = {
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
        estimated = {name: trusted[name] for name in trusted if name.startswith("estimated")}
        return _Image(pixels, observed, {**made_by, **estimated}, report)

    def write(self, task: batch.Task, given: Input, made: Output) -> dict[str, Any]:
        """Write an image, and its phase if that is asked for; return the facts to report."""
        from csrecon._version import __version__
        from csrecon.io import files, images

        image = self.finished(task, given, made)
        depth, facts = given.measured.format.bit_depth, {"csrecon": __version__, **image.made_by}
        outputs = self.outputs(task.target)
        with files.new_files(*outputs, overwrite=self.overwrite) as temporary:
            images.encode(temporary[0], image.pixels, depth, image.observed, facts)
            for path in temporary[1:]:
                images.encode(path, images.phase(image.pixels), depth, image.observed, facts)
        said = {"measurement": str(task.source), "output": str(task.target)}
        return {**said, **({"phase": str(outputs[1])} if self.phase else {}), **image.report}

    def write_volume(
        self, tasks: Sequence[batch.Task], pairs: "Together[batch.Task, Input, Output]"
    ) -> dict[str, Any]:
        """Write the images of all tasks as the slices of one volume; return the facts to report.

        Raises:
            InputError: images of several sizes, or in colour.
        """
        import numpy as np

        from csrecon._version import __version__
        from csrecon.io import files, volumes

        assert self.volume is not None
        made = [self.finished(task, *pairs.take(task)) for task in tasks]
        for task, image in zip(tasks, made, strict=True):
            if image.pixels.ndim != 2 or image.pixels.shape != made[0].pixels.shape:
                raise InputError(
                    f"{task.source}: an image of shape {image.pixels.shape}, and the first has "
                    f"{made[0].pixels.shape}. A volume has gray or complex slices of one size."
                )
        pixels = np.stack([image.pixels for image in made])
        voxel = self.scans.voxel(tasks[0].source)
        said = f"csrecon {__version__}, {made[0].made_by['model']}"
        outputs = self.outputs(self.volume)
        with files.new_files(*outputs, overwrite=self.overwrite) as temporary:
            turned = (voxel[0], *voxel[:0:-1]) if self.rotate % 180 else voxel
            volumes.write(temporary[0], np.abs(pixels), turned, said)
            for path in temporary[1:]:
                volumes.write(path, np.angle(pixels), turned, f"{said}, phase in radians")
        scores: dict[str, Any] = {
            name: float(np.mean([image.report[name] for image in made]))
            for name in ("psnr", "ssim")
            if name in made[0].report
        }
        named = list(dict.fromkeys(str(task.source) for task in tasks))
        return {
            "measurement": named[0] + (f" and {len(named) - 1} more" if len(named) > 1 else ""),
            "output": str(self.volume),
            **({"phase": str(outputs[1])} if self.phase else {}),
            "slices": len(made),
            **{name: x for name, x in made[0].report.items() if name not in _OF_A_SLICE},
            "seconds": round(sum(image.report["seconds"] for image in made), 4),
            **scores,
        }


def _per_ratio(name: str) -> bool:
    """Whether a model has per-ratio weights."""
    from csrecon.zoo import cards

    return name in cards.cards() and cards.card(name).per_ratio


def phase_of(target: Path) -> Path:
    """The file of the phase beside that of the image: `x_phase.png` of `x.png`."""
    from csrecon.io import volumes

    suffix = volumes.suffix(target) or target.suffix
    return target.with_name(f"{target.name.removesuffix(suffix)}_phase{suffix}")


def refuse_phase(target: Path) -> None:
    """Raise UsageError for a format that cannot hold a phase, or need not."""
    from csrecon.io import volumes

    if target.suffix.lower() not in (".png", ".tif", ".tiff") and not volumes.is_volume(target):
        raise UsageError(
            f"--phase-image is written as .png, .tif or .nii.gz, and not as {target.suffix}; .npy "
            "has complex values without it."
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
