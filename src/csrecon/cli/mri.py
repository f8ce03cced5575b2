"""Options of Fourier sampling, and of k-space files."""

import shlex
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csrecon.cli.batch import Task
from csrecon.cli.lab import LabOptions, Loaded
from csrecon.errors import CsreconError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from csrecon.io.images import Color, Picture
    from csrecon.io.volumes import Voxel
    from csrecon.sensing.kspace import Order, Scan
    from csrecon.sensing.operators import FourierOptions

_SAMPLING = "Fourier sampling (MRI)"
_FILES = "k-space files"
_HDF5 = (".h5", ".hdf5")
_KSPACE = (".npy", ".mat", ".cfl", *_HDF5)


@dataclass(frozen=True)
class SampleOptions:
    """How an image is measured in k-space."""

    acceleration: Annotated[
        float | None,
        typer.Option(help="1 / ratio, instead of --ratio.", metavar="R", rich_help_panel=_SAMPLING),
    ] = None
    center: Annotated[
        float | None,
        typer.Option(
            help="Completely measured at the lowest frequencies: a share of all lines (or "
            "frequencies), or their number.  [a tenth of the samples]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    coils: Annotated[
        int | None,
        typer.Option(help="Number of simulated receive coils.", rich_help_panel=_SAMPLING),
    ] = None
    sensitivities: Annotated[
        str | None,
        typer.Option(
            help="Sensitivity maps (coils, H, W), complex; they are packed: y.npz.",
            metavar="FILE[:NAME]",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    phase: Annotated[
        bool,
        typer.Option(
            "--phase",
            help="Give gray images a smooth phase, drawn from the seed: complex ones.",
            rich_help_panel=_SAMPLING,
        ),
    ] = False

    slices: Annotated[
        str | None,
        typer.Option(
            help="Which axial slices of a NIfTI volume, counted from zero: 85, or "
            "FIRST:END[:STEP].  [all]",
            metavar="SLICES",
            rich_help_panel=_SAMPLING,
        ),
    ] = None

    def ratio(self, given: float | None) -> float | None:
        """The ratio of --ratio or --acceleration."""
        if self.acceleration is None:
            return given
        if given is not None:
            raise UsageError("--acceleration R is --ratio 1/R: give one of them.")
        if not self.acceleration >= 1:
            raise UsageError(f"--acceleration {self.acceleration:g}: expected a number from 1 on.")
        return 1 / self.acceleration

    def fourier(self) -> "FourierOptions | None":
        """The options of the library; None without any."""
        from csrecon.sensing.operators import FourierOptions

        if self.center is None and self.coils is None and self.sensitivities is None:
            return None
        maps = LabOptions(sensitivities=self.sensitivities).maps()
        return FourierOptions(self.center, self.coils, maps)

    def by_slice(self, tasks: list[Task]) -> list[Task]:
        """The tasks, with one per chosen slice for NIfTI volumes."""
        from csrecon.io import volumes

        made = []
        for task in tasks:
            if not volumes.is_volume(task.source):
                made.append(task)
                continue
            stem = task.target.stem.removesuffix(".nii")
            for index in self._chosen(len(volumes.read(task.source)), task.source):
                target = task.target.with_name(f"{stem}_{index:03}{task.target.suffix}")
                made.append(Task(task.source, target, index))
        return made

    def _chosen(self, count: int, source: Path) -> range:
        """The indices of --slices among `count`."""
        words = (self.slices or ":").split(":")
        try:
            numbers = [int(word) if word else None for word in words]
            one = numbers[0] if len(numbers) == 1 else None
            part = slice(*numbers) if one is None else slice(one, one + 1)
            found = range(count)[part]
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"--slices {self.slices}: expected a number, or FIRST:END[:STEP]."
            ) from error
        if not found:
            raise UsageError(f"--slices {self.slices}: {source} has slices 0 to {count - 1}.")
        return found

    def picture(self, task: Task, color: "Color", seed: int) -> "Picture":
        """The image of a task, or the slice of a volume, with a phase if it is asked for."""
        from csrecon.io import images, volumes
        from csrecon.sensing import sample

        if task.part is None:
            picture = images.read(task.source, color)
        else:
            picture = images.from_array(volumes.read(task.source)[task.part], color)
        return sample.with_phase(picture, seed) if self.phase else picture

    def inputs(self) -> list[Path]:
        """The files that these options name."""
        from csrecon.io import arrays

        return [arrays.split_name(self.sensitivities)[0]] if self.sensitivities else []


@dataclass(frozen=True)
class ScanOptions:
    """How to read k-space that csrecon did not write."""

    axes: Annotated[
        str | None,
        typer.Option(
            help="Axes of the array, one letter each: s slices, c coils, y rows, x columns.  "
            "[.npy: cyx or scyx; .h5: syx or scyx; .mat: yxc or yxcs]",
            metavar="AXES",
            rich_help_panel=_FILES,
        ),
    ] = None
    centered: Annotated[
        bool | None,
        typer.Option(
            "--centered/--no-centered",
            help="Zero frequency is in the middle of k-space, or in its corner.  [detected]",
            rich_help_panel=_FILES,
        ),
    ] = None
    estimate: Annotated[
        str,
        typer.Option(
            help="How sensitivities are estimated: image, or espirit (the extra `espirit`).",
            metavar="HOW",
            rich_help_panel=_FILES,
        ),
    ] = "image"


@dataclass(frozen=True)
class Read:
    """K-space that was read: the name of its array, the shape and axes in the file, and itself."""

    name: str
    shape: tuple[int, ...]
    axes: str
    scan: "Scan"


@dataclass
class Scans:
    """The k-space files among the measurements; the last one is kept in memory."""

    options: ScanOptions
    laboratory: LabOptions
    _last: "dict[Path, Read | None]" = field(default_factory=dict)

    def of(self, source: Path) -> "Scan | None":
        """The k-space of a file; None for another kind of measurement.

        Raises:
            InputError, UsageError: k-space that cannot be read.
        """
        read = self.read(source)
        return None if read is None else read.scan

    def read(self, source: Path) -> Read | None:
        """The k-space of a file, with how it is stored.

        Raises:
            InputError, UsageError: as in `of`.
        """
        if source not in self._last:
            self._last = {source: self._read(source)}
        return self._last[source]

    def estimates(self, source: Path) -> bool:
        """Whether sensitivities of a file are estimated."""
        scan = self.of(source)
        return scan is not None and scan.maps is None and scan.values.shape[1] > 1

    def voxel(self, source: Path) -> "Voxel":
        """The size of a voxel of a scan, 1 mm where its file does not say it."""
        from csrecon.io import arrays, volumes

        if source.suffix.lower() not in _HDF5 or self.of(source) is None:
            return volumes.UNIT
        found = arrays.find(source, "voxel_mm")
        if found is None or found.shape != (3,):
            return volumes.UNIT
        slices, rows, columns = (float(size) for size in found)
        return slices, rows, columns

    def _read(self, source: Path) -> Read | None:
        from csrecon.io import arrays
        from csrecon.sensing import kspace

        name, values = self._found(source)
        if values is None:
            return None
        label = f"{source}[{name}]"
        kspace.check_complex(values, label)
        axes = self.options.axes or kspace.axes_of(values.shape, _order(source))
        laboratory, inside = self.laboratory, source.suffix.lower() in _HDF5
        maps, mask = laboratory.maps(), None
        if laboratory.mask:
            mask = arrays.pick(*arrays.split_name(laboratory.mask))
        elif inside:
            mask = arrays.find(source, "mask")
        order = _order(arrays.split_name(laboratory.sensitivities or "")[0])
        if (
            maps is None
            and inside
            and (maps := arrays.find(source, "sensitivity_maps")) is not None
        ):
            order = "h5"
        if maps is not None:
            given = kspace.axes_of(maps.shape, order) if maps.ndim != 3 or order == "mat" else "cyx"
            maps = kspace.oriented(maps, given)
        oriented = kspace.oriented(values, axes)
        scan = kspace.Scan(
            oriented, mask, maps, self.options.centered, label, self.options.estimate
        )
        return Read(name, values.shape, axes, scan)

    def _found(self, source: Path) -> "tuple[str, NDArray[Any] | None]":
        """The array of a file that is its k-space, by name; None for another kind of measurement.

        That is the one of --var, one named `kspace`, or the only complex one of a file without Φ.
        Where --axes or --centered says that there is k-space, it may also be the only real one,
        which is refused.
        """
        from csrecon.io import arrays
        from csrecon.sensing import native

        said, suffix = self.laboratory, source.suffix.lower()
        if said.phi or said.shape or said.positions or said.seed is not None:
            return "", None
        if suffix not in _KSPACE or not source.is_file():
            return "", None
        if suffix == ".npy" and native.describes_itself(source):
            return "", None
        name = said.var or "kspace"
        named = arrays.find(source, name)
        certain = self.options.axes is not None or self.options.centered is not None
        if named is not None and (named.dtype.kind == "c" or said.var is None or certain):
            return name, named
        if said.var is not None:
            return "", None
        found = arrays.read(source)
        several = {n: a for n, a in found.items() if a.dtype.kind == "c" and a.ndim > 1}
        if certain and not several:
            several = {n: a for n, a in found.items() if a.ndim > 1}
        if any(name.lower() == "phi" for name in found):
            return "", None
        return next(iter(several.items())) if len(several) == 1 else ("", None)

    def by_slice(self, tasks: list[Task]) -> list[Task]:
        """The tasks, with one per slice for k-space.

        Raises:
            InputError, UsageError: of a single file; those of a batch come back from `load`.
        """
        made = []
        for task in tasks:
            try:
                scan = self.of(task.source)
            except CsreconError:
                if len(tasks) == 1:
                    raise
                made.append(replace(task, part=0))
                continue
            if scan is None:
                made.append(task)
                continue
            for index in range(len(scan)):
                name = f"{task.target.stem}_{index:03}{task.target.suffix}"
                target = task.target.with_name(name) if len(scan) > 1 else task.target
                made.append(Task(task.source, target, index))
        return made

    def load(self, task: Task) -> Loaded:
        """The measurement of a slice, and the gain that was removed."""
        scan = self.of(task.source)
        assert scan is not None
        assert task.part is not None
        made = scan.measurement(task.part)
        return Loaded(made, {"gain": made.scale, "offset": 0.0})


def _order(source: Path) -> "Order":
    kinds: dict[str, Order] = {".cfl": "cfl", ".mat": "mat", ".h5": "h5", ".hdf5": "h5"}
    return kinds.get(source.suffix.lower(), "npy")


def described(source: Path, scans: Scans) -> dict[str, Any] | None:
    """The facts that `inspect` shows of a k-space file, and the next command; None for others."""
    from csrecon.sensing import coils, kspace

    read = scans.read(source)
    if read is None:
        return None
    scan = read.scan
    words = ["csrecon", "reconstruct", str(source)]
    said = scans.laboratory
    for option, given in (
        ("--var", said.var),
        ("--mask", said.mask),
        ("--axes", scans.options.axes),
    ):
        words += [option, given] if given else []
    if scans.options.centered is not None:
        words.append("--centered" if scans.options.centered else "--no-centered")
    words += ["--sensitivities", said.sensitivities] if said.sensitivities else []
    facts = kspace.described(scan)
    several, region = scan.values.shape[1], facts["calibration"]
    if several > 1 and not facts["maps"] and min(region) < coils.LEAST:
        words += ["--sensitivities", "FILE"]
    words += ["-o", "slices/"] if len(scan) > 1 else []
    return {
        "array": read.name,
        "axes": kspace.in_words(read.shape, read.axes),
        "coils": several,
        **facts,
        "command": shlex.join(words),
    }


def in_words(facts: dict[str, Any]) -> list[str]:
    """The facts of `described` as lines of text."""
    place = "in the middle" if facts["centered"] else "in the corner"
    how = {"rows": ", whole rows", "columns": ", whole columns"}.get(facts["sampled"], "")
    rows, columns = facts["calibration"]
    maps = "sensitivities given" if facts["maps"] else "sensitivities estimated from it"
    said = f"{facts['array']}: k-space, {facts['axes']}; zero frequency {place}; m/n = "
    said += f"{facts['ratio']:.4f}{how}; calibration region {rows}×{columns}"
    return [said + (f", {maps}." if facts["coils"] > 1 else "."), f"next: {facts['command']}"]
