"""Comparison of several models, or of one model's iterates, on one image.

`csrecon compare`, `csrecon quickstart` and the notebooks call this.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from csrecon import metrics, zoo
from csrecon.errors import UsageError
from csrecon.evaluation import heldout, plot, uncertainty
from csrecon.evaluation.meter import timed
from csrecon.io import images
from csrecon.io.images import Picture
from csrecon.metrics import Score
from csrecon.reconstructors.base import Reconstructor, Step
from csrecon.runtime import execution
from csrecon.sensing import native
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.zoo import cards

Ipl = int | Sequence[int] | None

_USUAL_IPLS = (2, 6, 20)


@dataclass(frozen=True)
class Entry:
    """A model to compare: its name in the zoo and its iterations per layer."""

    model: str
    ipl: Ipl = None

    @property
    def label(self) -> str:
        """`rcoast, IPL 6`."""
        name = self.model
        if name.endswith(".safetensors"):
            name = Path(name).stem
        if self.ipl is None:
            return name
        text = self.ipl if isinstance(self.ipl, int) else ",".join(map(str, self.ipl))
        return f"{name}, IPL {text}"


def usual(m: Measurement) -> list[Entry]:
    """What is compared if no model is named: the one for this measurement, at some IPLs."""
    name = zoo.default(m)
    if zoo.is_solver(name):
        return [Entry(name)]
    allowed = cards.card(name).trained.max_ipl
    return [Entry(name, ipl) for ipl in _USUAL_IPLS if ipl <= allowed]


@dataclass(frozen=True)
class Outcome:
    """A reconstruction (H, W), not clipped, with its label, score and seconds.

    Attributes:
        check: the estimated error, if it was asked for.
        sigma: the estimated standard deviation of every pixel, (H, W).
        trace: of every iterate its facts, its `psnr` in dB unless it is infinite, and the `seconds`
            until it was there, without those of the scoring.
    """

    label: str
    image: NDArray[np.float32]
    score: Score
    seconds: float
    check: heldout.Check | None = None
    sigma: NDArray[np.float32] | None = None
    trace: Sequence[dict[str, float]] = ()

    def facts(self) -> dict[str, Any]:
        """Label, score, seconds, and the estimated PSNR if there is one, for JSON."""
        found = {
            "model": self.label,
            "psnr": self.score.psnr,
            "ssim": self.score.ssim,
            "seconds": round(self.seconds, 3),
        }
        if self.check is not None:
            found |= {
                "estimated_psnr": round(self.check.psnr, 3),
                "estimated_psnr_error": round(self.check.error, 3),
            }
        return found

    def panel(self) -> plot.Panel:
        """The image under its label and score."""
        title = f"{self.label}\n{self.score.psnr:.2f} dB, SSIM {self.score.ssim:.3f}"
        if self.check is not None:
            title += f"\nestimated {self.check.psnr:.1f} ± {self.check.error:.1f} dB"
        return plot.Panel(title, self.image, sigma=self.sigma)


Watch = Callable[[Entry, Step], None]
"""Called with every iterate, for progress bars."""


def _silent(entry: Entry, step: Step) -> None:
    pass


def compare(
    picture: Picture,
    m: Measurement,
    entries: Sequence[Entry],
    setup: execution.Setup,
    watch: Watch = _silent,
    samples: int = 0,
) -> list[Outcome]:
    """Reconstruct a measurement with several models and score each against the original.

    Args:
        picture: the original, gray.
        m: its measurement.
        entries: the models.
        setup: device and precision.
        watch: called with every iterate.
        samples: reconstructions from fewer rows, from which error and standard deviation are
            estimated as if there were no original; 0 for none.

    Raises:
        CsreconError: as in `csrecon.reconstruct`.
        UsageError: samples of another operator than block sampling, or too few rows.
    """
    names = dict.fromkeys(entry.model for entry in entries)
    networks = {name: zoo.load(name, m.operator.ratio) for name in names}
    found = []
    for entry in entries:
        network = execution.at_ipl(networks[entry.model], entry.ipl)
        trace: list[dict[str, float]] = []
        for step, seconds in _clocked(execution.steps(network, m, setup), setup):
            watch(entry, step)
            if step.index == 1:  # again, in another precision or on another device
                trace.clear()
            trace.append(_record(step, seconds, picture))
        outcome = replace(_outcome(entry.label, step.image, picture, seconds), trace=trace)
        if samples:
            outcome = _checked(outcome, m, step.image.cpu(), network, setup, samples)
        found.append(outcome)
    return found


def _clocked(iterates: Iterator[Step], setup: execution.Setup) -> Iterator[tuple[Step, float]]:
    """Iterates with the seconds spent on them so far, not on what is done with them."""
    spent = 0.0
    while True:
        step, seconds = timed(lambda: next(iterates, None), setup.device)
        if step is None:
            return
        spent += seconds
        yield step, spent


def _record(step: Step, seconds: float, picture: Picture) -> dict[str, float]:
    found = {**step.record(), "seconds": round(seconds, 6)}
    shown = metrics.shown(_gray(step.image.cpu()), "paper")
    psnr = float(metrics.psnr(shown, picture.planes.transpose(0, 1)))
    return {**found, "psnr": round(psnr, 4)} if math.isfinite(psnr) else found


def _checked(
    outcome: Outcome,
    m: Measurement,
    image: Tensor,
    network: Reconstructor,
    setup: execution.Setup,
    samples: int,
) -> Outcome:
    """The outcome with its estimated error and standard deviation."""
    options = heldout.HoldoutOptions(samples)
    check = heldout.check(m, image, lambda part: execution.image(network, part, setup), options)
    assert isinstance(m.operator, BlockOperator)
    sigma = uncertainty.deviation(check, m.operator)[0, 0].numpy()
    return replace(outcome, check=check, sigma=sigma)


def film(
    picture: Picture,
    m: Measurement,
    entry: Entry,
    setup: execution.Setup,
    watch: Watch = _silent,
    columns: int = 5,
) -> list[Outcome]:
    """Every iterate of one model, scored; arguments as in `compare`, and columns of the figure.

    Raises:
        UsageError: more iterates than a figure has room for.
        CsreconError: as in `csrecon.reconstruct`.
    """
    found = []
    for step, outcome in iterates(picture, m, entry, setup):
        plot.check_count(step.total + 1, picture.planes.shape[-2:], columns)
        if outcome is not None:
            found.append(outcome)
        watch(entry, step)
    return found


def iterates(
    picture: Picture,
    m: Measurement,
    entry: Entry,
    setup: execution.Setup,
    most: int | None = None,
) -> Iterator[tuple[Step, Outcome | None]]:
    """Every iterate of one model as soon as it is computed, scored.

    Args:
        picture, m, entry, setup: as in `compare`.
        most: score about so many of the iterates, evenly spaced, and the last; the others have
            no outcome. None scores all.

    Yields:
        The iterate and its outcome, labelled `iteration k`, whose seconds are those of the
        reconstruction so far, without the scoring.

    Raises:
        CsreconError: as in `csrecon.reconstruct`.
    """
    network = execution.at_ipl(zoo.load(entry.model, m.operator.ratio), entry.ipl)
    steps = execution.steps(network, m, setup)
    seconds, began = 0.0, time.perf_counter()
    for step in steps:
        seconds += time.perf_counter() - began
        label = f"iteration {step.index}"
        chosen = most is None or selected(step, most)
        yield step, _outcome(label, step.image, picture, seconds) if chosen else None
        began = time.perf_counter()


def selected(step: Step, most: int) -> bool:
    """Whether an iterate is one of about `most`, evenly spaced, or the first or the last."""
    every = -(-step.total // most)
    return step.index % every == 0 or step.index in (1, step.total) or bool(step.stopped)


def _outcome(label: str, image: Tensor, picture: Picture, seconds: float) -> Outcome:
    planes = _gray(image.cpu())
    score = metrics.score(planes, picture.planes)
    return Outcome(label, images.to_array(planes, "gray"), score, seconds)


def _gray(image: Tensor) -> Tensor:
    """A gray image, or the magnitude of a complex one, (1, 1, H, W)."""
    return torch.linalg.vector_norm(image, dim=1, keepdim=True) if image.shape[1] > 1 else image


def known(path: Path, picture: Picture, name: str) -> Measurement:
    """The measurement in a file, of an image with a name.

    Raises:
        UsageError: it measures another size, or colours.
        InputError: a file that cannot be read.
    """
    m, of = native.load(path), str(path)
    if m.format.color == "rgb":
        raise UsageError(f"{of}: comparisons are of one gray image; measure its luma.")
    shape = m.operator.image_shape
    if shape != picture.planes.shape[-2:]:
        height, width = picture.planes.shape[-2:]
        raise UsageError(
            f"{of} measures {shape[0]}×{shape[1]} pixels, and {name} has {height}×{width}: give "
            "the image that was measured."
        )
    return m


def original(picture: Picture) -> plot.Panel:
    """The panel of the original image."""
    height, width = picture.planes.shape[-2:]
    return plot.Panel(f"original\n{height}×{width}", images.to_array(picture.planes, "gray"))


def back_projected(m: Measurement, picture: Picture) -> Outcome:
    """Aᵀy, scored."""
    return _outcome("back-projection Φᵀy", m.operator.adjoint(m.y), picture, 0.0)


def back_projection(m: Measurement, picture: Picture) -> plot.Panel:
    """The panel of Aᵀy."""
    return back_projected(m, picture).panel()


def error(outcome: Outcome, picture: Picture) -> plot.Panel:
    """The panel of the absolute error of an outcome."""
    truth = images.to_array(picture.planes, "gray")
    wrong = np.abs(np.clip(outcome.image, 0, 1) - truth)
    return plot.Panel(f"|error| of {outcome.label}", wrong, error=True)


def title(m: Measurement) -> str:
    """A title that describes the measurement."""
    if not isinstance(m.operator, BlockOperator):
        return f"y = Ax (ratio {m.operator.ratio:.3g})"
    count = m.y.shape[-1]
    n = round(count / m.operator.ratio)
    return f"y = Φx with {count} of {n} measurements per block (ratio {m.operator.ratio:.3g})"


def zoom(text: str | None, image: NDArray[np.float32], side: int = 48) -> plot.Zoom:
    """The square to enlarge: `row,column,side`, or the one with the most detail.

    Raises:
        UsageError: a text of another form, or a square outside the image.
    """
    if text is None:
        return plot.busiest(image, side)
    height, width = image.shape[:2]
    parts = text.replace(" ", "").split(",")
    if len(parts) == 3 and all(part.isdecimal() and len(part) < 7 for part in parts):
        top, left, side = map(int, parts)
        if side and top + side <= height and left + side <= width:
            return plot.Zoom(top, left, side)
    raise UsageError(f"--zoom {text!r}: expected row,column,side inside {height}×{width} pixels.")
