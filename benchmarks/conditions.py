"""PSNR of models under one changing condition: the noise on y, the kind of Φ, or the block.

    python benchmarks/conditions.py noise --data-dir SETS -o docs/psnr_noise
    python benchmarks/conditions.py kind --data-dir SETS
    python benchmarks/conditions.py block --data-dir SETS

Prints a Markdown table with the mean over the images, all with Φ of seed 0 and scored as in the
papers; `-o` draws it as well. Rows are kept in csrecon's journal, so that a run can go on later.
"""

import argparse
import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from csrecon import bench, datasets, execution, journal, plot
from csrecon.operators import KINDS
from csrecon.operators.kinds import default_block

CONDITIONS: dict[str, tuple[list[Any], Callable[[Any], dict[str, Any]]]] = {
    "noise": ([0, 0.01, 0.02, 0.04, 0.07, 0.1], lambda sigma: {"noise_sigma": float(sigma)}),
    "kind": (list(KINDS), lambda kind: {"kind": kind, "block": default_block(kind)}),
    "block": ([16, 32, 33, 64], lambda side: {"block": (side, side)}),
}
"""Condition -> its values, and what a bench.Plan says for a value."""
AXES = {"noise": "standard deviation of the noise on y", "block": "pixels of a block's side"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("condition", choices=CONDITIONS)
    parser.add_argument("--dataset", default="set11")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", nargs="+", default=["rcoast", "coast", "rista", "tv"])
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--limit", type=int, help="only the first so many images")
    parser.add_argument("-o", "--output", type=Path, help="draw it: a path without suffix")
    given = parser.parse_args()
    values, said = CONDITIONS[given.condition]
    paths = datasets.images(given.dataset, given.data_dir)[: given.limit]
    base = bench.Plan(given.dataset, paths, execution.choose())
    table: dict[str, list[float]] = {model: [] for model in given.model}
    for value in values:
        plan = dataclasses.replace(base, **said(value))
        rows = list(bench.run(given.model, [given.ratio], [None], plan, journal.default()))
        for model, means in table.items():
            means.append(statistics.fmean(row.psnr for row in rows if row.model == model))
    print(f"| {given.condition} | {' | '.join(map(str, values))} |")
    print(f"|---|{'---:|' * len(values)}")
    for model, means in table.items():
        print(f"| {model} | {' | '.join(f'{psnr:.2f}' for psnr in means)} |")
    print(
        f"\n{given.dataset}, {len(paths)} images, ratio {given.ratio:g}, PSNR in dB, "
        f"{base.setup}, torch {torch.__version__}."
    )
    if given.output:
        lines = [
            plot.Curve(model, list(zip(values, means, strict=True)))
            for model, means in table.items()
        ]
        axis = AXES.get(given.condition, given.condition)
        plot.curves(lines, given.output, axis, "PSNR in dB", overwrite=True)


if __name__ == "__main__":
    main()
