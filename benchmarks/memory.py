"""Memory and time of a reconstruction on the CPU against the number of pixels.

    python benchmarks/memory.py --size 1080x1920 2160x3840 10000x10000 --ipl 1

Every size runs in its own process. The peak is the memory above that of the process after loading
the libraries and weights, reconstructing one tile and making the measurement. Both columns per
pixel are constant if time and memory are linear in the number of pixels. With `--commands` a second
table follows for the commands `csrecon sample` and `csrecon reconstruct`, from PNG to PNG: seconds,
and the peak above that of the same command on one tile, with everything included.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from csrecon import api
from csrecon.evaluation.meter import process_peak
from csrecon.evaluation.table import Table, line
from csrecon.runtime import execution
from csrecon.runtime.allocator import keep_freed_memory
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, make

BLOCK, TILE, PATTERN = 33, 320, 8 * 33


def period() -> torch.Tensor:
    """One period of the measured image, (PATTERN, PATTERN) in [0, 1]."""
    row, column = torch.meshgrid(torch.arange(PATTERN), torch.arange(PATTERN), indexing="ij")
    return 0.5 + 0.2 * torch.sin(row / 7) * torch.cos(column / 5) + 0.2 * (row // 20 % 2)


def measured(height: int, width: int, ratio: float) -> Measurement:
    """A periodic image, measured: the values of one period, repeated."""
    phi = make("gaussian", round(ratio * BLOCK**2), (BLOCK, BLOCK), 0)
    y = BlockOperator(phi, (PATTERN, PATTERN))(period()[None, None])
    operator = BlockOperator(phi, (height, width))
    rows, columns = operator.grid
    times = -(-rows // y.shape[1]), -(-columns // y.shape[2])
    return Measurement.of(operator, y.repeat(1, *times, 1)[:, :rows, :columns].contiguous())


def run(size: str, given: argparse.Namespace) -> list[str]:
    """A line of the table."""
    torch.set_num_threads(given.threads)
    keep_freed_memory()  # as `csrecon` does
    height, width = (int(side) for side in size.split("x"))
    setup = execution.choose("cpu", given.precision, TILE)
    net = api.load(given.model)

    def reconstruct(m: Measurement) -> float:
        began = time.perf_counter()
        execution.final(api.reconstruct_steps(m, net, given.ipl, setup))
        return time.perf_counter() - began

    reconstruct(measured(TILE, TILE, given.ratio))
    m = measured(height, width, given.ratio)
    before = process_peak() or 0
    seconds = reconstruct(m)
    more, pixels = (process_peak() or 0) - before, height * width
    return [
        *(size, f"{pixels / 1e6:.1f}", f"{seconds:.1f}", f"{1e6 * seconds / pixels:.2f}"),
        *(f"{more / 2**20:.0f}", f"{more / pixels:.1f}"),
    ]


def typed(folder: Path, *arguments: str) -> tuple[float, int]:
    """Seconds and peak bytes of a csrecon command in a folder."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "csrecon", *arguments, "-q"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"csrecon {' '.join(arguments)} ended with {child.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


def commands(height: int, width: int, given: argparse.Namespace) -> dict[str, tuple[float, int]]:
    """Seconds and peak bytes of measuring an image and reconstructing it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        times = -(-height // PATTERN), -(-width // PATTERN)
        pixels = period().mul(255).byte().repeat(*times)[:height, :width]
        Image.fromarray(pixels.numpy()).save(folder / "img.png")
        options = ["--model", given.model, "--precision", given.precision, "--tile", str(TILE)]
        options += ["--ipl", str(given.ipl)] if given.ipl else []
        return {
            "sample": typed(folder, "sample", "img.png", "--ratio", str(given.ratio)),
            "reconstruct": typed(folder, "reconstruct", "y.npy", "-o", "x.png", *options),
        }


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", nargs="+", default=["1080x1920", "2160x3840"], metavar="HxW")
    parser.add_argument("--model", default="rcoast")
    parser.add_argument("--ipl", type=int)
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--commands", action="store_true", help="measure the whole commands too")
    given = parser.parse_args()
    print(f"{given.model}, IPL {given.ipl or 'default'}, precision {given.precision}\n")
    header = ["size", "megapixels", "s", "µs per pixel", "peak MiB above start", "bytes per pixel"]
    print(Table(header, []).markdown(), end="")
    context = multiprocessing.get_context("spawn")
    for size in given.size:
        with context.Pool(1) as pool:
            print(line(pool.apply(run, (size, given))), flush=True)
    if given.commands:
        header = ["command", "size", "s", "peak MiB above one tile's", "bytes per pixel"]
        print("\n" + Table(header, [], left=2).markdown(), end="")
        one = commands(TILE, TILE, given)
        for size in given.size:
            height, width = (int(side) for side in size.split("x"))
            for name, (seconds, used) in commands(height, width, given).items():
                more = used - one[name][1]
                cells = [name, size, f"{seconds:.1f}", f"{more / 2**20:.0f}"]
                print(line([*cells, f"{more / (height * width):.1f}"]), flush=True)


if __name__ == "__main__":
    main()
