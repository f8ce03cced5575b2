"""Speed of the plain path and of csrecon's, side by side in one run.

    python benchmarks/speed.py --model rcoast --size 480x288 --device cpu

`plain` is the network called as it is: fp32, contiguous memory, whole images. The others are
csrecon's execution with the precision named. Every row gives the best of several runs, after one
that is not counted; PSNR is against the plain result. The peak is that of a matrix product.
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
from csrecon.recursion import Reconstructor, Unfolding, last

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
    image = run()
    fastest = float("inf")
    for _ in range(times):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        image = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - began)
    return fastest, image


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


def measure(name: str, size: str, given: argparse.Namespace, peaks: dict[str, float]) -> list[Row]:
    """All paths of a model on an image of a size, HxW."""
    device = execution.choose_device(given.device)
    height, width = (int(side) for side in size.split("x"))
    m = api.sample(synthetic(height, width), given.ratio)
    net = network(name)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        last(net.steps(api.sample(synthetic(66, 66), given.ratio)))
    flop = counter.get_total_flops() * height * width / 66**2
    rows: list[Row] = []
    plain = reference = None
    if not given.no_plain:
        here, bare = m.to(device), network(name).to(device)
        with torch.inference_mode():
            plain, reference = best(lambda: bare(here).cpu(), device, given.times)
        rows.append(Row(name, size, "plain fp32", plain, 1.0, flop, peaks["fp32"], None))
    for precision, tile in itertools.product(given.precision, given.tile):
        setup = execution.choose(device, precision, tile)
        run = partial(reconstruct, net, m, setup)
        seconds, image = best(run, device, given.times)
        psnr = None if reference is None else metrics.score(image, reference).psnr
        gain = plain / seconds if plain else None
        path = f"{precision}, tile {tile}"
        rows.append(Row(name, size, path, seconds, gain, flop, peaks[precision], psnr))
    return rows


def reconstruct(model: Reconstructor, m: Measurement, setup: execution.Setup) -> torch.Tensor:
    """What csrecon does with a measurement: the image on the CPU."""
    return execution.final(execution.steps(model, m, None, setup)).image


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["rcoast"])
    parser.add_argument("--size", nargs="+", default=["480x288"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--tile", nargs="+", default=["auto"])
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--times", type=int, default=3)
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
    for name, size in itertools.product(given.model, given.size):
        for row in measure(name, size, given, peaks):
            rows.append(row)
            print(row, flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
