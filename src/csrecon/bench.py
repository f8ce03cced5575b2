"""Measuring reconstructors: models × ratios × IPLs on a set of images -> rows -> cells.

A row is one image; a cell is the mean over the images of a set, beside what the paper printed.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from csrecon import api, cards, depot, execution, images, metrics
from csrecon.measurement import Measurement
from csrecon.metrics import Protocol, Score
from csrecon.operators import BlockOperator, Phi, count_measurements
from csrecon.recursion import Reconstructor, Schedule, Unfolding

log = logging.getLogger(__name__)

BLOCK = (33, 33)


@dataclass(frozen=True)
class Row:
    """One image reconstructed once. PSNR in dB, seconds of wall time, memory in bytes.

    `ratio` is what was asked; `m` the measurements per block that it means. `peak_memory` is
    the device's peak during the reconstruction (CUDA), else the peak of the process so far.
    """

    model: str
    dataset: str
    image: str
    ratio: float
    m: int
    ipl: str
    psnr: float
    ssim: float
    seconds: float
    peak_memory: int | None


@dataclass(frozen=True)
class Cell:
    """Means over the images of a set, and the paper's figures for the same cell or None."""

    model: str
    dataset: str
    ratio: float
    ipl: str
    images: int
    score: Score
    paper: Score | None
    seconds: float
    peak_memory: int | None


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes: of the CUDA device since its last reset, else of this process; None unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _timed(
    model: Reconstructor, m: Measurement, schedule: Schedule | None, setup: execution.Setup
) -> tuple[torch.Tensor, float]:
    if setup.device.type == "cuda":
        torch.cuda.synchronize(setup.device)
        torch.cuda.reset_peak_memory_stats(setup.device)
    began = time.perf_counter()
    image = execution.final(execution.steps(model, m, schedule, setup)).image
    return image, time.perf_counter() - began


def evaluate(
    model: Reconstructor,
    picture: images.Picture,
    phi: Phi,
    schedule: Schedule | None,
    setup: execution.Setup,
    protocol: Protocol,
) -> tuple[Score, float]:
    """Sample one picture with Φ, reconstruct it, and score it: the score and the seconds."""
    height, width = picture.planes.shape[-2:]
    operator = BlockOperator(phi, (height, width), BLOCK)
    m = Measurement.of(operator, operator(picture.planes), picture.format)
    image, seconds = _timed(model, m, schedule, setup)
    return metrics.score(image, picture.planes, protocol), seconds


def run(
    models: Sequence[str],
    dataset: str,
    paths: Sequence[Path],
    ratios: Sequence[float],
    ipls: Sequence[int | tuple[int, ...] | None],
    setup: execution.Setup,
    seed: int = 0,
    protocol: Protocol = "paper",
) -> Iterator[Row]:
    """Reconstruct every image with every model, ratio and IPL; yield a row for each.

    Every model and image sees the same gaussian Φ of `seed` at a ratio, except networks that work
    with no Φ but their own; what is named twice runs once. All images are read and all schedules
    checked before the first reconstruction. The first reconstruction of a model is run once more
    beforehand, so that no row times a warm-up.

    Args:
        models: names of the zoo or paths of .safetensors files.
        dataset: what to call the set in the rows.
        paths: the image files; luma is measured and scored.
        ratios: m/n in (0, 1].
        ipls: iterations per layer; None for the model's own.
        setup: the device and the precision.
        seed: of Φ.
        protocol: how to score, a name of metrics.PROTOCOLS.

    Raises:
        UsageError, InputError, ModelError, ResourceError: as in `reconstruct`.
    """
    n = BLOCK[0] * BLOCK[1]
    counts = {ratio: count_measurements(n, ratio) for ratio in ratios}

    @cache
    def network(name: str, level: float | None) -> Reconstructor:
        return execution.prepare(api.load(name, level), setup)

    jobs = [
        _job(name, ratio, Phi.make(m, n, seed), network, ipls)
        for name in dict.fromkeys(models)
        for ratio, m in counts.items()
    ]
    for path in paths:
        images.read(path)  # a bad image is found before hours of work, not after
    warm: set[str] = set()
    for job in jobs:
        if job.model not in warm:
            first = images.read(paths[0])
            evaluate(job.network, first, job.phi, job.schedules[0], setup, protocol)
            warm.add(job.model)
        for schedule in job.schedules:
            for path in paths:
                picture = images.read(path)
                score, seconds = evaluate(job.network, picture, job.phi, schedule, setup, protocol)
                yield Row(
                    model=job.model,
                    dataset=dataset,
                    image=path.name,
                    ratio=job.ratio,
                    m=len(job.phi.matrix),
                    ipl="" if schedule is None else str(schedule),
                    psnr=score.psnr,
                    ssim=score.ssim,
                    seconds=seconds,
                    peak_memory=peak_memory(setup.device),
                )


@dataclass(frozen=True)
class _Job:
    """A model at a ratio: its network, its Φ, and the schedules to run."""

    model: str
    ratio: float
    network: Reconstructor
    phi: Phi
    schedules: list[Schedule | None]


def _job(
    name: str,
    ratio: float,
    phi: Phi,
    network: Callable[[str, float | None], Reconstructor],
    ipls: Sequence[int | tuple[int, ...] | None],
) -> _Job:
    known = cards.cards().get(name)
    loaded = network(name, ratio if known and known.per_ratio else None)
    own = depot.own_phi(name, ratio) if known else None
    return _Job(name, ratio, loaded, own or phi, _schedules(loaded, ipls))


def _schedules(
    network: Reconstructor, ipls: Sequence[int | tuple[int, ...] | None]
) -> list[Schedule | None]:
    """The schedules of a network, each once; a classical solver has none and runs once."""
    if not isinstance(network, Unfolding):
        return [None]
    own = network.schedule
    asked = [own if ipl is None else own.with_ipl(ipl) for ipl in ipls]
    for schedule in asked:
        network.check_allowed(schedule)
    return list(dict.fromkeys(asked))


def summarize(rows: Sequence[Row], protocol: Protocol = "paper") -> list[Cell]:
    """The cells of some rows, in their order; the paper's figures only of the same protocol."""
    groups: dict[tuple[str, str, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.dataset, row.ratio, row.ipl), []).append(row)
    cells = []
    for (model, dataset, ratio, ipl), group in groups.items():
        card = cards.cards().get(model)
        printed = card.published_at(dataset, protocol, ipl, ratio) if card else None
        count = len(group)
        peaks = [row.peak_memory for row in group if row.peak_memory is not None]
        mean = Score(sum(r.psnr for r in group) / count, sum(r.ssim for r in group) / count)
        cells.append(
            Cell(
                model=model,
                dataset=dataset,
                ratio=ratio,
                ipl=ipl,
                images=count,
                score=mean,
                paper=Score(*printed) if printed else None,
                seconds=sum(row.seconds for row in group) / count,
                peak_memory=max(peaks, default=None),
            )
        )
    return cells
