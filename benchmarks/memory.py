"""Memory and time of a reconstruction on the CPU against the number of pixels.

    python benchmarks/memory.py --size 1080x1920 2160x3840 10000x10000 --ipl 1

Every size runs in a process of its own. Its peak is what the process has at most above what it had
once the libraries and weights were loaded and one tile was reconstructed, without the measurement
itself, which is the user's. Both columns per pixel stay the same if time and memory are straight
lines.
"""

import argparse
import multiprocessing
import resource
import time

import torch

from csrecon import api, execution
from csrecon.measurement import Measurement
from csrecon.operators import BlockOperator, make

BLOCK, TILE, PATTERN = 33, 512, 8 * 33


def peak() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measured(height: int, width: int, ratio: float) -> Measurement:
    """A periodic image, measured: the values of one period, repeated."""
    phi = make("gaussian", round(ratio * BLOCK**2), (BLOCK, BLOCK), 0)
    row, column = torch.meshgrid(torch.arange(PATTERN), torch.arange(PATTERN), indexing="ij")
    period = 0.5 + 0.2 * torch.sin(row / 7) * torch.cos(column / 5) + 0.2 * (row // 20 % 2)
    y = BlockOperator(phi, (PATTERN, PATTERN))(period[None, None])
    operator = BlockOperator(phi, (height, width))
    rows, columns = operator.grid
    times = -(-rows // y.shape[1]), -(-columns // y.shape[2])
    return Measurement.of(operator, y.repeat(1, *times, 1)[:, :rows, :columns].contiguous())


def run(size: str, given: argparse.Namespace) -> str:
    """A line of the table."""
    torch.set_num_threads(given.threads)
    height, width = (int(side) for side in size.split("x"))
    setup = execution.choose("cpu", given.precision, TILE)
    net = api.load(given.model)

    def reconstruct(m: Measurement) -> float:
        began = time.perf_counter()
        execution.final(api.reconstruct_steps(m, net, given.ipl, setup))
        return time.perf_counter() - began

    reconstruct(measured(TILE, TILE, given.ratio))
    m = measured(height, width, given.ratio)
    before = peak()
    seconds = reconstruct(m)
    more, pixels = peak() - before, height * width
    return (
        f"| {size} | {pixels / 1e6:.1f} | {seconds:.1f} | {1e6 * seconds / pixels:.2f} | "
        f"{more / 2**20:.0f} | {more / pixels:.1f} |"
    )


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", nargs="+", default=["1080x1920", "2160x3840"], metavar="HxW")
    parser.add_argument("--model", default="rcoast")
    parser.add_argument("--ipl", type=int)
    parser.add_argument("--ratio", type=float, default=0.1)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    print(f"{given.model}, IPL {given.ipl or 'its own'}, precision {given.precision}\n")
    print("| size | megapixels | s | µs a pixel | peak MiB above start | bytes a pixel |")
    print("|---|---:|---:|---:|---:|---:|")
    context = multiprocessing.get_context("spawn")
    for size in given.size:
        with context.Pool(1) as pool:
            print(pool.apply(run, (size, given)), flush=True)


if __name__ == "__main__":
    main()
