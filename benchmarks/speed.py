"""Speed of the plain path and of csrecon's, side by side in one run.

    python benchmarks/speed.py --model rcoast --size 480x288 --device cpu

`plain` is the network called as it is: fp32, contiguous memory, whole images. The others are
csrecon's execution with the precision named; `compiled` has its blocks compiled by torch.compile.
Every row gives the best of several runs, after one that is not counted unless it took longer than
ten seconds; PSNR is against the plain result. The peak is that of a matrix product.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from csrecon import api, cards, execution, metrics
from csrecon.measurement import Measurement
from csrecon.recursion import Schedule, Unfolding, last

LONG = 10.0  # seconds: a run of that length needs no warming up and no repetition
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def synthetic(height: int, width: int) -> np.ndarray:
    """An image with smooth parts, edges and texture, (H, W) in [0, 1]."""
    row, column = np.mgrid[:height, :width].astype(np.float32)
    image = 0.5 + 0.2 * np.sin(row / 17) * np.cos(column / 23)
    image += 0.2 * ((row // 40 + column // 56) % 2) + 0.05 * np.sin(row * column / 900)
    return np.clip(image, 0, 1).astype(np.float32)


def best(
    run: Callable[[], torch.Tensor], device: torch.device, times: int
) -> tuple[float, torch.Tensor]:
    """Seconds of the fastest of several runs, and what it gave."""

    def once() -> tuple[float, torch.Tensor]:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        image = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began, image

    seconds, image = once()
    if seconds > LONG:
        return seconds, image
    return min((once() for _ in range(times)), key=lambda pair: pair[0])


def peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a matrix product of this device and precision."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.rand(n, n, device=device, dtype=TYPES[precision])
    seconds, _ = best(lambda: a @ a, device, 5)
    return 2 * n**3 / seconds


def network(name: str) -> Unfolding:
    """The model with its weights, or with random ones where there are none."""
    card = cards.card(name)
    loaded = api.load(name) if card.weights else card.build().eval()
    assert isinstance(loaded, Unfolding)
    return loaded


@dataclass(frozen=True)
class Row:
    """One path on one image: seconds and FLOP of a reconstruction, PSNR to the plain result."""

    model: str
    size: str
    path: str
    seconds: float
    times_plain: float | None
    flop: float
    peak: float
    psnr: float | None

    def __str__(self) -> str:
        """A line of the table."""
        rate = self.flop / self.seconds
        cells = [
            *(self.model, self.size, self.path, f"{1e3 * self.seconds:.1f}"),
            f"{self.times_plain:.2f}" if self.times_plain else "",
            f"{1 / self.seconds:.2f}",
            f"{rate / 1e9:.0f}",
            f"{100 * rate / self.peak:.0f} %",
            f"{self.psnr:.1f} dB" if self.psnr else "",
        ]
        return f"| {' | '.join(cells)} |"


def measure(
    name: str, size: str, ipl: int | None, given: argparse.Namespace, peaks: dict[str, float]
) -> list[Row]:
    """All paths of a model at an IPL on an image of a size, HxW."""
    device = execution.choose_device(given.device)
    height, width = (int(side) for side in size.split("x"))
    m = api.sample(synthetic(height, width), given.ratio)
    net = network(name)
    schedule = net.schedule.with_ipl(ipl) if ipl else net.schedule
    label = f"{name}, IPL {schedule}"
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        last(net.steps(api.sample(synthetic(66, 66), given.ratio), schedule))
    flop = counter.get_total_flops() * height * width / 66**2
    rows: list[Row] = []
    plain = reference = None
    if not given.no_plain:
        here, bare = m.to(device), network(name).to(device)
        with torch.inference_mode():
            plain, reference = best(lambda: bare(here, schedule).cpu(), device, given.times)
        rows.append(Row(label, size, "plain fp32", plain, 1.0, flop, peaks["fp32"], None))
    paths = [*itertools.product(given.precision, given.tile, [False])]
    if given.compile:
        paths += itertools.product(given.precision, given.tile, [True])
    for precision, tile, compiled in paths:
        model = network(name)
        for block in model.blocks if compiled else ():
            block.prox = torch.compile(block.prox, dynamic=False)  # type: ignore[assignment]
        setup = execution.choose(device, precision, tile)
        seconds, image = best(partial(reconstruct, model, m, schedule, setup), device, given.times)
        psnr = None if reference is None else metrics.score(image, reference).psnr
        gain = plain / seconds if plain else None
        path = f"{precision}, tile {tile}" + ", compiled" * compiled
        rows.append(Row(label, size, path, seconds, gain, flop, peaks[precision], psnr))
    return rows


def reconstruct(
    model: Unfolding, m: Measurement, schedule: Schedule, setup: execution.Setup
) -> torch.Tensor:
    """What csrecon does with a measurement: the image on the CPU."""
    return execution.final(execution.steps(model, m, schedule, setup)).image


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["rcoast"])
    parser.add_argument("--size", nargs="+", default=["480x288"])
    parser.add_argument("--ipl", nargs="+", type=int, default=[None], help="[the model's own]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--tile", nargs="+", default=["auto"])
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="compiled blocks besides")
    parser.add_argument("--no-plain", action="store_true", help="leave out the plain path")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = execution.choose_device(given.device)
    peaks = {p: peak(device, p) for p in dict.fromkeys(["fp32", *given.precision])}
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(
        "| model | size | path | ms | times plain | images/s | GFLOP/s | of peak | PSNR to plain |"
    )
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    rows = []
    for name, size, ipl in itertools.product(given.model, given.size, given.ipl):
        for row in measure(name, size, ipl, given, peaks):
            rows.append(row)
            print(row, flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
