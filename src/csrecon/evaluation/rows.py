"""Results of a benchmark: a row is one image, a cell the mean over the images of a set.

A cell also holds the paper's result under the same conditions, if there is one.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from csrecon import metrics
from csrecon.metrics import Protocol, Score
from csrecon.zoo import cards

_MEASURED: dict[str, tuple[type, ...]] = {
    "m": (int,),
    "psnr": (int, float),
    "ssim": (int, float),
    "seconds": (int, float),
    "peak_memory": (int, type(None)),
    "lpips": (int, float, type(None)),
}
# The fields of a row that are measured, with the types they have in the result cache; the others
# say what was asked for.

PAPER_CONDITION = ("gaussian", None, 0.0)
"""Kind of Φ, block and noise of the papers."""


@dataclass(frozen=True)
class Row:
    """One image reconstructed once. PSNR in dB, seconds of wall time, memory in bytes.

    `ratio` is the requested one; `m` the measurements per block, or per image without blocks.
    `kind` is the kind of Φ or operator, `block` the side of a block (None for its default) and
    `noise_sigma` the noise on y. `peak_memory` is the device's peak during the reconstruction
    (CUDA), else the peak of the process so far.
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
    kind: str = "gaussian"
    block: int | None = None
    noise_sigma: float = 0.0

    def with_figures(self, kept: Mapping[str, Any]) -> Self | None:
        """This row with the figures of a kept one; None if that lacks some, or has other types."""
        found: dict[str, Any] = {name: kept.get(name) for name in _MEASURED}
        right = all(
            isinstance(value, _MEASURED[name]) and not isinstance(value, bool)
            for name, value in found.items()
        )
        return replace(self, **found) if right else None


@dataclass(frozen=True)
class Cell:
    """Means over the images of a set and over Φ, and the paper's result for the cell or None.

    `spread` is the standard deviation over the seeds of Φ of the mean PSNR over the images, in
    dB; None for one seed, and where a PSNR is infinite.
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
    kind: str = "gaussian"
    block: int | None = None
    noise_sigma: float = 0.0

    @property
    def condition(self) -> str:
        """The conditions, if they are not those of the papers: `hadamard 64, σ 0.02`."""
        way = "" if self.kind == "gaussian" else self.kind
        way += f" {self.block}" if self.block else ""
        noise = f"σ {self.noise_sigma:g}" if self.noise_sigma else ""
        return ", ".join(part for part in (way.strip(), noise) if part)


def summarize(rows: Sequence[Row], protocol: Protocol | None = "paper") -> list[Cell]:
    """The cells of some rows, in their order; the paper's results only for that protocol."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        condition = row.kind, row.block, row.noise_sigma
        key = (row.model, row.dataset, row.ratio, row.ipl, condition)
        groups.setdefault(key, []).append(row)
    cells = []
    for (model, dataset, ratio, ipl, condition), group in groups.items():
        card = cards.cards().get(model)
        printed = None
        if card and protocol and condition == PAPER_CONDITION:
            printed = card.published_at(dataset, protocol, ipl, ratio)
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
                kind=condition[0],
                block=condition[1],
                noise_sigma=condition[2],
            )
        )
    return cells


def _spread(rows: Sequence[Row]) -> float | None:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row.psnr)
    means = [sum(psnrs) / len(psnrs) for psnrs in by_seed.values()]
    return statistics.stdev(means) if len(means) > 1 and all(map(math.isfinite, means)) else None
