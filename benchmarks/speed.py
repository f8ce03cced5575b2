"""Speed of the plain network and of csrecon's execution, side by side in one run.

    python benchmarks/speed.py                                        # the whole table
    python benchmarks/speed.py --model rcoast --size 480x288 --ipl 1 2 4 8

`plain` is the network called directly: fp32, contiguous memory, whole images, in a separate process
with the default allocator; with `--kept` also with freed memory kept, as the command line does for
all other rows. The other rows are csrecon's execution in the given precision; `compiled` has its
blocks compiled by torch.compile.
Every row is the best of several runs after a warm-up; a warm-up longer than ten seconds is the only
run. PSNR is against the plain result. The peak FLOP/s are those of a matrix product. Memory is the
peak of a run above the memory before it (on the CPU only under Linux).
"""

import argparse
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from csrecon import api, metrics
from csrecon.evaluation.meter import Timed, best
from csrecon.evaluation.table import Table, line
from csrecon.reconstructors.base import last
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.runtime.allocator import keep_freed_memory
from csrecon.sensing.measurement import Measurement
from csrecon.zoo import cards

SIZES = ["256x256", "480x288", "1080x1920", "2160x3840"]
MODELS = ["rcoast", "coast", "rista", "istanet-plus"]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def synthetic(height: int, width: int) -> np.ndarray:
    """An image with smooth parts, edges and texture, (H, W) in [0, 1]."""
    row, column = np.mgrid[:height, :width].astype(np.float32)
    image = 0.5 + 0.2 * np.sin(row / 17) * np.cos(column / 23)
    image += 0.2 * ((row // 40 + column // 56) % 2) + 0.05 * np.sin(row * column / 900)
    return np.clip(image, 0, 1).astype(np.float32)


def timed_plain(name: str, ipl: int | None, m: Measurement, given: argparse.Namespace) -> Timed:
    """The network called directly."""
    torch.set_num_threads(given.threads)
    device = execution.choose_device(given.device)
    here, bare = m.to(device), network(name).to(device)
    run = bare.at(ipl) if ipl else bare
    with torch.inference_mode():
        return best(lambda: run(here).cpu(), device, given.times)


def peak(device: torch.device, precision: str) -> float:
    """FLOP/s of a matrix product of this device and precision."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.rand(n, n, device=device, dtype=TYPES[precision])
    return 2 * n**3 / best(lambda: a @ a, device, 5).seconds


def network(name: str, ipl: int | None = None) -> Unfolding:
    """The model with its weights, or with random ones if it has none."""
    card = cards.cards().get(name)
    loaded = api.load(name) if card is None or card.weights else card.build().eval()
    assert isinstance(loaded, Unfolding)
    return loaded.at(ipl) if ipl else loaded


@dataclass(frozen=True)
class Row:
    """One path on images of one size: seconds and FLOP of an image, PSNR to the plain result."""

    model: str
    size: str
    path: str
    seconds: float
    times_plain: float | None
    flop: float
    peak: float
    psnr: float | None
    memory: int | None

    def cells(self) -> list[str]:
        """A line of the table."""
        rate = self.flop / self.seconds
        return [
            *(self.model, self.size, self.path, f"{1e3 * self.seconds:.1f}"),
            f"{self.times_plain:.2f}" if self.times_plain else "",
            f"{1 / self.seconds:.2f}",
            f"{rate / 1e9:.0f}",
            f"{100 * rate / self.peak:.0f} %",
            f"{self.memory / 2**20:.0f}" if self.memory is not None else "",
            f"{self.psnr:.1f} dB" if self.psnr else "",
        ]


def measure(
    name: str, size: str, ipl: int | None, given: argparse.Namespace, peaks: dict[str, float]
) -> Iterator[Row]:
    """All paths of a model at an IPL on images of a size, HxW."""
    device = execution.choose_device(given.device)
    height, width = (int(side) for side in size.split("x"))
    m = Measurement.stacked([api.sample(synthetic(height, width), given.ratio)] * given.batch)
    net = network(name, ipl)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        last(net.steps(api.sample(synthetic(66, 66), given.ratio)))
    flop = counter.get_total_flops() * height * width / 66**2

    def row(path: str, precision: str, timed: Timed) -> Row:
        seconds = timed.seconds / given.batch
        gain, psnr = None, None
        if plain is not None:
            gain = plain.seconds / timed.seconds
            psnr = metrics.score(timed.image, plain.image).psnr if timed is not plain else None
        label = f"{name}, IPL {net.schedule}"
        return Row(label, size, path, seconds, gain, flop, peaks[precision], psnr, timed.memory)

    plain = None
    if not given.no_plain:
        with multiprocessing.get_context("spawn").Pool(1) as other:
            plain = other.apply(timed_plain, (name, ipl, m, given))
        yield row("plain fp32", "fp32", plain)
        if given.kept:
            yield row("plain fp32, memory kept", "fp32", timed_plain(name, ipl, m, given))
    for precision, tile, compiled in itertools.product(
        given.precision, given.tile, (False, True) if given.compile else (False,)
    ):
        model = network(name, ipl)
        for block in model.blocks if compiled else ():
            block.prox = torch.compile(block.prox, dynamic=False)
        setup = execution.choose(device, precision, tile)
        path = f"{precision}, tile {tile}" + ", compiled" * compiled
        run = partial(reconstruct, model, m, setup)
        yield row(path, precision, best(run, device, given.times))


def reconstruct(model: Unfolding, m: Measurement, setup: execution.Setup) -> torch.Tensor:
    """csrecon's execution of a reconstruction: the image on the CPU."""
    return execution.image(model, m, setup)


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=MODELS)
    parser.add_argument("--size", nargs="+", default=SIZES)
    parser.add_argument("--ipl", nargs="+", type=int, default=[None], help="[the model's default]")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--tile", nargs="+", default=["auto"])
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=1, help="images per batch")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="also with compiled blocks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--kept", action="store_true", help="also the plain network with freed memory kept"
    )
    parser.add_argument("--no-plain", action="store_true", help="leave out the plain network")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as `csrecon` does
    device = execution.choose_device(given.device)
    peaks = {p: peak(device, p) for p in dict.fromkeys(["fp32", *given.precision])}
    print(f"{device}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    header = ["model", "size", "path", "ms", "times plain", "images/s", "GFLOP/s", "of peak"]
    table = Table([*header, "MiB", "PSNR to plain"], [], left=3)
    print(table.markdown(), end="")
    rows = []
    for name, size, ipl in itertools.product(given.model, given.size, given.ipl):
        for row in measure(name, size, ipl, given, peaks):
            rows.append(row)
            print(line(row.cells()), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
