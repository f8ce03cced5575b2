"""A laboratory's own file on the page: what it holds, in which order, and its image."""

import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from csrecon import api
from csrecon.demo.experiment import FRAMES, Result, model_words
from csrecon.errors import UsageError
from csrecon.evaluation import arrangements, compare, plausible
from csrecon.evaluation.arrangements import Candidate
from csrecon.evaluation.compare import Entry
from csrecon.io import arrays, images
from csrecon.reconstructors import calibration
from csrecon.reconstructors.base import Step
from csrecon.runtime import execution
from csrecon.runtime.execution import Setup
from csrecon.sensing import contents, lab, native
from csrecon.sensing.contents import Content
from csrecon.sensing.lab import Arrangement, Order
from csrecon.sensing.measurement import Measurement

_RESULT = "result.png"
_SIDECAR = ".json"


@dataclass(frozen=True)
class Findings:
    """What the files hold, as `csrecon inspect` finds it.

    Attributes:
        arrays: every array under `file:name`, or under `file` if it is the only one.
        values: the measurement of csrecon, or else the array that was probably measured with
            `phi`; None if it is not clear.
        phi: the array that is probably Φ.
        own: whether `values` is a measurement of csrecon, which describes itself.
        lines: what was found, in sentences.
    """

    arrays: dict[str, Content]
    values: str | None
    phi: str | None
    own: bool
    lines: tuple[str, ...]


@dataclass(frozen=True)
class LabRequest:
    """What is asked for; `own` files of csrecon need `values` and a model only.

    Attributes:
        folder: where the files are.
        values, phi: arrays, as Findings names them.
        entry: the model.
        shape: (H, W) of the image.
        pixel_order, block_order, differential: as in Arrangement.
        gain: a number, or auto.
    """

    folder: Path
    values: str
    entry: Entry
    phi: str | None = None
    shape: tuple[int, int] | None = None
    pixel_order: Order = "C"
    block_order: Order = "C"
    gain: str = "1"
    differential: bool = False

    def arrangement(self) -> Arrangement:
        """Order and gain.

        Raises:
            UsageError: a gain that is no number and not auto.
        """
        gain: float | Literal["auto"] = "auto"
        if self.gain != "auto":
            try:
                gain = float(self.gain)
            except ValueError as error:
                raise UsageError(f"gain {self.gain!r}: expected a number, or auto.") from error
        return Arrangement(
            pixel_order=self.pixel_order,
            block_order=self.block_order,
            gain=gain,
            differential=self.differential,
        )


@dataclass(frozen=True)
class Read:
    """A measurement of a file, with a line about it."""

    request: LabRequest
    measurement: Measurement
    note: str


@dataclass(frozen=True)
class LabProgress:
    """An iterate, and its image (H, W) or (H, W, 3) if it is one of those that are shown."""

    step: Step
    image: NDArray[np.float32] | None


def gather(uploads: Iterable[Path], folder: Path) -> None:
    """Copy files into one folder, so that y.json lies beside y.npy.

    Raises:
        UsageError: no file, or two of one name.
    """
    paths = list(uploads)
    if not paths:
        raise UsageError("no file: give the file of the measurement first.")
    for path in paths:
        target = folder / path.name
        if target.exists():
            raise UsageError(f"{path.name}: two files have this name; expected different ones.")
        shutil.copyfile(path, target)


def inspect(folder: Path) -> Findings:
    """What the files of a folder hold.

    Raises:
        InputError: a file that cannot be read, or whose content does not match its description.
    """
    found: dict[str, Content] = {}
    lines: list[str] = []
    own: str | None = None
    by_file: dict[str, dict[str, Content]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == _SIDECAR and path.with_suffix(".npy").exists():
            continue
        if path.suffix.lower() in native.SUFFIXES and native.describes_itself(path):
            own = own or path.name
            said = contents.summary(native.load(path))
            lines.append(f"{path.name}: a measurement of csrecon, complete and verified: {said}.")
            continue
        held = {name: contents.describe(value) for name, value in arrays.read(path).items()}
        by_file[path.name] = held
        several = len(held) > 1
        found |= {f"{path.name}:{n}" if several else path.name: one for n, one in held.items()}
    if own is not None:
        return Findings(found, own, None, True, tuple(lines))
    phi = contents.likely_phi(found)
    rows = found[phi].shape[0] if phi else None
    for name, held in by_file.items():
        if phi != name:
            inside = phi is None or phi.startswith(f"{name}:")
            advice = contents.advice(name, held, *((None, None) if inside else (phi, rows)))
            lines += [line for line in advice if not line.startswith("next: ")]
    if phi is None:
        lines.append("No array looks like Φ: add its file, with fewer rows than columns.")
    measured = [n for n, one in found.items() if n != phi and rows and contents.fits(one, rows)]
    return Findings(found, measured[0] if measured else None, phi, False, tuple(lines))


def _named(folder: Path, text: str) -> tuple[Path, str | None]:
    """The file and the array that Findings names so."""
    name, _, array = text.partition(":") if not (folder / text).exists() else (text, "", "")
    return folder / name, array or None


def read(request: LabRequest) -> Read:
    """The measurement that is asked for.

    Raises:
        CsreconError: as in native.load and lab.measurement.
        UsageError: Φ or the shape is missing.
    """
    file, array = _named(request.folder, request.values)
    if file.suffix.lower() in native.SUFFIXES and native.describes_itself(file):
        return Read(request, native.load(file), "")
    if request.phi is None or request.shape is None:
        raise UsageError(
            "these values do not describe themselves: give the array that is Φ, and height and "
            "width of the image in pixels."
        )
    phi = native.read_phi(*_named(request.folder, request.phi))
    m, removed = lab.measurement(
        arrays.pick(file, array),
        phi,
        request.shape,
        request.arrangement(),
        label=file.name,
        estimator=calibration.estimate,
    )
    if removed.gain_error is None:
        return Read(request, m, "")
    note = (
        f"Gain {removed.gain:.4g} ± {100 * removed.gain_error:.2g} % and offset "
        f"{removed.offset:.4g} were estimated."
    )
    return Read(request, m, note)


def orders(request: LabRequest, setup: Setup) -> list[Candidate]:
    """Every order of the values, the best first, as `csrecon inspect` ranks them.

    Raises:
        CsreconError: as in `read` and arrangements.rank.
    """
    if request.phi is None or request.shape is None:
        raise UsageError("the order is found with Φ and the size of the image: give both.")
    file, array = _named(request.folder, request.values)
    phi = native.read_phi(*_named(request.folder, request.phi))
    model = execution.at_ipl(
        api.load(request.entry.model, phi.shape[0] / phi.shape[1]), request.entry.ipl
    )
    return arrangements.rank(
        arrays.pick(file, array),
        phi,
        request.shape,
        request.arrangement(),
        lambda m: execution.image(model, m, setup),
    )


def reconstruct(ready: Read, setup: Setup) -> Iterator[LabProgress]:
    """Every iterate, as soon as it is computed; the last one's image is always there.

    Raises:
        CsreconError: as in `csrecon.reconstruct`.
    """
    m, entry = ready.measurement, ready.request.entry
    for step in api.reconstruct_steps(m, entry.model, entry.ipl, setup):
        image = None
        if compare.selected(step, FRAMES):
            image = images.to_array(step.image, m.format.color)
            image = np.abs(image) if np.iscomplexobj(image) else image
        yield LabProgress(step, image)


def keep(ready: Read, image: NDArray[np.float32], folder: Path) -> Result:
    """Write the image, and say which command makes the same.

    Raises:
        ResourceError: it cannot be written.
    """
    m, request = ready.measurement, ready.request
    plausible.notice(image, m)
    observed = m.operator.observed()
    target = folder / _RESULT
    mask = None if observed is None else observed.numpy()
    images.encode(target, image, m.format.bit_depth, mask)
    words = ["csrecon", "reconstruct", *_words(request), *model_words(request.entry)]
    return Result((target,), (shlex.join([*words, "-o", _RESULT]),))


def _words(request: LabRequest) -> Sequence[str]:
    """The file and how it is read, as typed."""
    file, array = _named(request.folder, request.values)
    words = [file.name, *([] if array is None else ["--var", array])]
    if request.phi is None or request.shape is None:
        return words
    height, width = request.shape
    words += ["--phi", request.phi, "--shape", f"{height}x{width}"]
    given = {
        "--pixel-order": (request.pixel_order, "C"),
        "--block-order": (request.block_order, "C"),
        "--gain": (request.gain, "1"),
    }
    for option, (value, usual) in given.items():
        words += [] if value == usual else [option, value]
    return [*words, *(["--differential"] if request.differential else [])]
