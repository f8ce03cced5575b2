"""What a benchmark gives: a row is one image, a cell the mean over the images of a set.

A cell stands beside what the paper printed for it, if it did.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from csrecon import cards, metrics
from csrecon.metrics import Protocol, Score


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
    seed: int
    psnr: float
    ssim: float
    seconds: float
    peak_memory: int | None
    lpips: float | None = None


@dataclass(frozen=True)
class Cell:
    """Means over the images of a set and the Φ, and the paper's figures for the same cell or None.

    `spread` is the standard deviation over the seeds of Φ of the mean PSNR over the images, in
    dB; None for one seed.
    """

    model: str
    dataset: str
    ratio: float
    ipl: str
    images: int
    seeds: int
    score: Score
    spread: float | None
    paper: Score | None
    seconds: float
    peak_memory: int | None


def summarize(rows: Sequence[Row], protocol: Protocol | None = "paper") -> list[Cell]:
    """The cells of some rows, in their order; the paper's figures only of that protocol."""
    groups: dict[tuple[str, str, float, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.dataset, row.ratio, row.ipl), []).append(row)
    cells = []
    for (model, dataset, ratio, ipl), group in groups.items():
        card = cards.cards().get(model)
        printed = card.published_at(dataset, protocol, ipl, ratio) if card and protocol else None
        peaks = [row.peak_memory for row in group if row.peak_memory is not None]
        cells.append(
            Cell(
                model=model,
                dataset=dataset,
                ratio=ratio,
                ipl=ipl,
                images=len({row.image for row in group}),
                seeds=len({row.seed for row in group}),
                score=metrics.mean([Score(r.psnr, r.ssim, r.lpips) for r in group]),
                spread=_spread(group),
                paper=Score(*printed) if printed else None,
                seconds=statistics.fmean(row.seconds for row in group),
                peak_memory=max(peaks, default=None),
            )
        )
    return cells


def _spread(rows: Sequence[Row]) -> float | None:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row.psnr)
    means = [sum(psnrs) / len(psnrs) for psnrs in by_seed.values()]
    return statistics.stdev(means) if len(means) > 1 else None
