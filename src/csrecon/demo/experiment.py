"""An experiment on the page: an image is measured, reconstructed, and compared with itself."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from matplotlib import cbook
from numpy.typing import NDArray

from csrecon import api
from csrecon.errors import UsageError
from csrecon.evaluation import compare
from csrecon.evaluation.compare import Entry, Outcome
from csrecon.io import images
from csrecon.io.images import Picture
from csrecon.reconstructors.base import Step
from csrecon.runtime.execution import Setup
from csrecon.sensing import native
from csrecon.sensing.measurement import Measurement

SIDES = (256, 512, 1024)
"""Longest sides in pixels to which larger images are reduced."""
FRAMES = 24
"""About so many iterates are scored and shown."""
_IMAGE, _Y = "image.png", "y.npz"
_SMALLEST = 7  # pixels of a side, for SSIM


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        entries: one or two models, with their IPL.
        image: an image file, whose luma is measured; None for the bundled photo.
        side: longest side in pixels to which a larger image is reduced.
        kind: kind of Φ, or fourier.
        ratio: sampling ratio m/n in (0, 1].
        noise: standard deviation of Gaussian noise on y.
        seed: of Φ and the noise.
    """

    entries: tuple[Entry, ...]
    image: Path | None = None
    side: int = 512
    kind: str = "gaussian"
    ratio: float = 0.1
    noise: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Subject:
    """The image of an experiment, gray, and a line that says where it is from and its size."""

    picture: Picture
    note: str

    @property
    def pixels(self) -> NDArray[np.float32]:
        """The image (H, W) in [0, 1]."""
        return np.asarray(images.to_array(self.picture.planes, "gray"), dtype=np.float32)


@dataclass(frozen=True)
class Sampled:
    """The measured image: the request, its image, the measurement, and the back-projection."""

    request: Request
    subject: Subject
    measurement: Measurement
    back: Outcome

    @property
    def title(self) -> str:
        """What was measured, in a line."""
        operator = self.measurement.operator
        values, pixels = int(self.measurement.y.numel()), int(np.prod(operator.image_shape))
        return f"{values:,} values of {pixels:,} pixels (m/n = {operator.ratio:.4f})"


@dataclass(frozen=True)
class Progress:
    """An iterate.

    Attributes:
        entry: its model.
        step: the iterate itself.
        outcome: its image and score, if it is one of those that are shown.
        final: whether it is the result of this model.
    """

    entry: Entry
    step: Step
    outcome: Outcome | None
    final: bool


@dataclass(frozen=True)
class Result:
    """Files to keep, and the commands that make the same from the first of them."""

    files: tuple[Path, ...]
    commands: tuple[str, ...]


def photo() -> Path:
    """The photo of `csrecon quickstart`: Grace Hopper, U.S. Navy, public domain."""
    return Path(str(cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)))


def subject(image: Path | None, side: int) -> Subject:
    """Read an image, take its luma, and reduce it if it is larger than `side`.

    Raises:
        InputError: not an image, or damaged.
        UsageError: fewer than 7 pixels a side.
    """
    picture = images.read(image or photo())
    height, width = picture.planes.shape[-2:]
    name = image.name if image else "Photo of Grace Hopper (U.S. Navy, public domain)"
    if min(height, width) < _SMALLEST:
        raise UsageError(
            f"{name}: {height}×{width} pixels; expected at least {_SMALLEST} a side, which SSIM "
            "needs."
        )
    longest = max(height, width)
    if longest <= side:
        return Subject(picture, f"{name}: {height}×{width} pixels, luma.")
    small = [max(_SMALLEST, round(length * side / longest)) for length in (height, width)]
    white = 2**picture.format.bit_depth - 1
    pixels = picture.planes[0, 0].numpy()
    reduced = cv2.resize(pixels, (small[1], small[0]), interpolation=cv2.INTER_AREA)
    rounded = torch.from_numpy(np.round(reduced.clip(0, 1) * white) / np.float32(white))
    note = (
        f"{name}: reduced from {height}×{width} to {small[0]}×{small[1]} pixels for speed, luma. "
        "What follows is about the reduced image."
    )
    return Subject(Picture(rounded[None, None].float(), picture.format), note)


def measure(request: Request) -> Sampled:
    """Read and measure the image of a request.

    Raises:
        CsreconError: as in `subject` and `api.sample`.
    """
    shown = subject(request.image, request.side)
    m = api.sample(
        shown.picture,
        request.ratio,
        kind=request.kind,
        seed=request.seed,
        noise_sigma=request.noise,
    )
    return Sampled(request, shown, m, compare.back_projected(m, shown.picture))


def reconstruct(sampled: Sampled, setup: Setup) -> Iterator[Progress]:
    """Every iterate of every model of a request, as soon as it is computed.

    Raises:
        CsreconError: as in `csrecon.reconstruct`.
    """
    for entry in sampled.request.entries:
        picture, m = sampled.subject.picture, sampled.measurement
        for step, outcome in compare.iterates(picture, m, entry, setup, FRAMES):
            final = step.index == step.total or bool(step.stopped)
            yield Progress(entry, step, outcome, final)


def keep(sampled: Sampled, outcomes: Sequence[Outcome], folder: Path) -> Result:
    """Write the measured image, y and the reconstructions, and say which commands do the same.

    Args:
        sampled: the measured image.
        outcomes: the reconstruction by each of the models.
        folder: a new folder.

    Raises:
        ResourceError: they cannot be written.
    """
    request, depth = sampled.request, sampled.subject.picture.format.bit_depth
    image, y = folder / _IMAGE, folder / _Y
    images.encode(image, sampled.subject.pixels, depth)
    native.save(sampled.measurement, y)
    words = ["csrecon", "sample", _IMAGE, "--ratio", f"{request.ratio:g}"]
    words += [] if request.kind == "gaussian" else ["--kind", request.kind]
    words += ["--noise-sigma", f"{request.noise:g}"] if request.noise else []
    words += ["--seed", str(request.seed)] if request.seed else []
    lines = [[*words, "-o", _Y]]
    results = []
    for index, (entry, outcome) in enumerate(zip(request.entries, outcomes, strict=True), 1):
        target = folder / f"result{'' if len(request.entries) == 1 else f'-{index}'}.png"
        images.encode(target, outcome.image, depth)
        results.append(target)
        lines.append(
            ["csrecon", "reconstruct", _Y, *model_words(entry), "--ref", _IMAGE, "-o", target.name]
        )
    return Result((image, y, *results), tuple(map(shlex.join, lines)))


def model_words(entry: Entry) -> list[str]:
    """A model and its IPL as they are typed."""
    return ["--model", entry.model, *([] if entry.ipl is None else ["--ipl", str(entry.ipl)])]
