"""How good the answers without a ground truth are, on images whose truth is known.

python benchmarks/trust.py --data-dir SETS --sets set11,bsd68 --every 7 --ratio 0.1,0.3,0.5
    --plot docs/trust_reliability.png

For every image, ratio and kind of Φ: the estimated PSNR (`reconstruct --check`) beside the true
one, and the share of pixels within one and two standard deviations (`--uncertainty`). Nothing is
clipped to [0, 1]. With --orders instead: how often the right one of 16 arrangements is found
(`inspect`): four orders of pixels and blocks, each with the gains 1, -1, 255 and -255. On a square
grid an order and its transpose are one.
"""

import argparse
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

import csrecon
from csrecon import _default
from csrecon.evaluation import arrangements, heldout, uncertainty
from csrecon.evaluation.plot import Curve, curves
from csrecon.evaluation.table import Table
from csrecon.io import images
from csrecon.runtime import execution
from csrecon.sensing.lab import Arrangement, by_rows
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.zoo import datasets

_BINS = 12
_GAINS = (1.0, -1.0, 255.0, -255.0)


@dataclass
class Row:
    """What was found for one kind of Φ and ratio."""

    errors: list[float] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    inside: list[tuple[float, float]] = field(default_factory=list)
    predicted: list[np.ndarray] = field(default_factory=list)
    actual: list[np.ndarray] = field(default_factory=list)


def main() -> None:
    """Parse the options, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--sets", default="set11,bsd68")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    parser.add_argument("--ratio", default="0.1,0.2,0.3,0.4,0.5")
    parser.add_argument("--kind", default="gaussian,bernoulli,hadamard")
    parser.add_argument("--model", default=_default.MODEL)
    parser.add_argument("--ipl", type=int)
    parser.add_argument("--folds", type=int, default=8)
    parser.add_argument("--orders", action="store_true", help="rank the arrangements instead")
    parser.add_argument("--plot", type=Path, help="the reliability plot")
    given = parser.parse_args()
    setup = execution.choose("cpu", "auto")
    model = execution.at_ipl(csrecon.load(given.model), given.ipl)

    def reconstruct(m: Measurement) -> torch.Tensor:
        return execution.image(model, m, setup)

    paths = [
        path
        for name in given.sets.split(",")
        for path in datasets.images(name, given.data_dir)[:: given.every]
    ]
    conditions = [(k, float(r)) for k in given.kind.split(",") for r in given.ratio.split(",")]
    if given.orders:
        rank(paths, conditions, reconstruct)
        return
    rows: dict[tuple[str, float], Row] = defaultdict(Row)
    for kind, ratio in conditions:
        for path in paths:
            check(path, kind, ratio, reconstruct, given.folds, rows[kind, ratio])
    show(rows)
    if given.plot:
        draw(rows, given.plot)


def check(
    path: Path,
    kind: str,
    ratio: float,
    reconstruct: heldout.Reconstruct,
    folds: int,
    row: Row,
) -> None:
    """Compare the estimates of one image with the truth."""
    truth = images.read(path)
    m = csrecon.sample(truth, ratio, kind=kind)
    image = reconstruct(m)
    error = (image - truth.planes)[0, 0]
    true = -10 * math.log10(float(error.square().mean()))
    found = heldout.check(m, image, reconstruct, heldout.HoldoutOptions(folds))
    assert isinstance(m.operator, BlockOperator)
    sigma = uncertainty.deviation(found, m.operator)[0, 0]
    row.errors.append(found.psnr - true)
    row.told.append(found.error)
    within = (error.abs() / sigma).numpy()
    row.inside.append((float((within <= 1).mean()), float((within <= 2).mean())))
    row.predicted.append(sigma.flatten().numpy())
    row.actual.append(error.flatten().numpy())
    print(
        f"{kind} {100 * ratio:g} % {path.stem}: {true:.2f} dB, estimated {found.psnr:.2f} ± "
        f"{found.error:.2f}, within σ {row.inside[-1][0]:.3f}, 2σ {row.inside[-1][1]:.3f}",
        flush=True,
    )


def show(rows: dict[tuple[str, float], Row]) -> None:
    """Print the table."""
    lines = []
    for (kind, ratio), row in rows.items():
        errors, told = np.array(row.errors), np.array(row.told)
        one, two = np.mean(row.inside, axis=0)
        lines.append(
            [
                kind,
                f"{100 * ratio:g} %",
                f"{errors.mean():+.2f}",
                f"{errors.std():.2f}",
                f"{told.mean():.2f}",
                f"{np.abs(errors).max():.2f}",
                f"{int((np.abs(errors) <= 0.5).sum())} of {len(errors)}",
                f"{100 * one:.0f} %",
                f"{100 * two:.0f} %",
            ]
        )
    head = ["kind", "ratio", "mean error (dB)", "spread", "said", "worst", "within 0.5 dB"]
    print(Table([*head, "pixels within σ", "2σ"], lines).markdown())


def draw(rows: dict[tuple[str, float], Row], path: Path) -> None:
    """Draw the root mean square of the error against σ, in bins of equally many pixels."""
    lines = []
    for (kind, ratio), row in rows.items():
        sigma, error = np.concatenate(row.predicted), np.concatenate(row.actual)
        order = np.array_split(np.argsort(sigma), _BINS)
        points = [
            (float(np.sqrt(np.square(sigma[i]).mean())), float(np.sqrt(np.square(error[i]).mean())))
            for i in order
        ]
        lines.append(Curve(f"{kind}, {100 * ratio:g} %", points))
    ends = [min(p[0] for line in lines for p in line.points), max(p[0] for p in lines[0].points)]
    lines.append(Curve("equal", [(end, end) for end in ends], None, "dashed"))
    curves(lines, path.with_suffix(""), "σ", "RMS error", overwrite=True)


def written(m: Measurement, order: tuple[str, str]) -> tuple[np.ndarray, Phi]:
    """The values of a measurement, and Φ, in another order of blocks and of pixels."""
    operator = m.operator
    assert isinstance(operator, BlockOperator)
    phi = Phi(np.ascontiguousarray(operator.rows.matrix().numpy()))
    if order[0] == "F":
        phi = by_rows(phi, operator.block)
    y = m.y[0].numpy()
    return (y.swapaxes(0, 1) if order[1] == "F" else y).reshape(-1, operator.m), phi


def rank(
    paths: list[Path], conditions: list[tuple[str, float]], reconstruct: heldout.Reconstruct
) -> None:
    """Write every image in 16 arrangements, and count how often each is found."""
    lines = []
    for kind, ratio in conditions:
        found, margins = 0, []
        for path in paths:
            truth = images.read(path)
            m = csrecon.sample(truth, ratio, kind=kind, seed=1)
            operator = m.operator
            assert isinstance(operator, BlockOperator)
            right = 0
            for order, used in zip(arrangements.ORDERS, _GAINS, strict=True):
                y, phi = written(m, order)
                ranked = arrangements.rank(
                    used * y, phi, operator.image_shape, Arrangement(), reconstruct
                )
                best = ranked[0].arrangement
                orders = {(best.pixel_order, best.block_order)}
                if operator.grid[0] == operator.grid[1]:
                    other = {"C": "F", "F": "C"}
                    orders.add((other[best.pixel_order], other[best.block_order]))
                fits = [arrangements.gain(replace(m, y=m.y * gain)) == gain for gain in _GAINS]
                right += (order in orders and best.gain == used) * sum(fits)
                margins.append(next(c.behind for c in ranked if not c.possible))
            found += right == 16
            print(f"{kind} {100 * ratio:g} % {path.stem}: {right} of 16", flush=True)
        lines.append(
            [kind, f"{100 * ratio:g} %", f"{found} of {len(paths)}", f"{min(margins):.2f}"]
        )
    print(
        Table(["kind", "ratio", "images with all 16 found", "least margin (dB)"], lines).markdown()
    )


if __name__ == "__main__":
    main()
