"""The gain in speed of every optimization alone, side by side in one run.

    python benchmarks/levers.py --precision bf16

Each lever is one part of an R-COAST iteration with alternative implementations (ways), on the sizes
below. `times` is the speed relative to the first way, and `differs` the largest relative difference
of the results: it is rounding, unless the ways do not compute the same.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from speed import TYPES, synthetic
from torch import Tensor
from torch.nn import functional

from csrecon import api
from csrecon.evaluation.meter import Timed, best
from csrecon.evaluation.table import Table, line
from csrecon.reconstructors.base import State
from csrecon.reconstructors.modulation import RFMU
from csrecon.reconstructors.nets.coast import CoastBlock
from csrecon.reconstructors.unfolding import Recursion, Unfolding
from csrecon.runtime import execution
from csrecon.runtime.allocator import keep_freed_memory
from csrecon.runtime.tiles import Tiles
from csrecon.sensing.measurement import Measurement

SIZE, LARGE, SMALL, MANY = (480, 288), (1080, 1920), (64, 64), 16
RATIOS = (0.1, 0.5)
SIDES = (64, 128, 192, 256, 320, 384, 448, 512, 1024)

Ways = dict[str, Callable[[], Tensor]]


@dataclass(frozen=True)
class Machine:
    """Device, precision and number of runs."""

    device: torch.device
    precision: str
    times: int

    def convolved(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The same run with its convolutions in the given precision."""
        dtype = TYPES[self.precision]

        def cast() -> Tensor:
            with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                return run()

        return cast

    def block(self, layout: torch.memory_format = torch.channels_last) -> CoastBlock:
        """A block with random weights."""
        torch.manual_seed(0)
        return CoastBlock(32).to(self.device, memory_format=layout)

    def measured(self, size: tuple[int, int], ratio: float) -> Measurement:
        """A measured image."""
        return api.sample(synthetic(*size), ratio).to(self.device)


def sizes(size: tuple[int, int]) -> str:
    """480×288."""
    return f"{size[0]}×{size[1]}"


def layout(machine: Machine) -> Ways:
    """Memory layout of the features."""
    x = torch.rand(1, 1, *SIZE, device=machine.device)
    gain = torch.ones(1, 32, device=machine.device)

    def way(memory: torch.memory_format) -> Callable[[], Tensor]:
        block = machine.block(memory)
        return machine.convolved(lambda: block.prox(State(x), x, gain)[0].image)

    return {"contiguous": way(torch.contiguous_format), "channels_last": way(torch.channels_last)}


def modulation(machine: Machine) -> Ways:
    """The gains of a residual unit: multiplied into its output, or into its weights."""
    h = torch.rand(1, 32, *SIZE, device=machine.device).to(memory_format=torch.channels_last)
    gain = torch.rand(32, 1, 1, device=machine.device)
    first, second = (
        torch.nn.Conv2d(32, 32, 3, padding=1).to(machine.device, memory_format=torch.channels_last)
        for _ in range(2)
    )

    def folded() -> Tensor:
        weight, bias = second.weight * gain[..., None], second.bias * gain.flatten()
        return h + functional.conv2d(functional.relu(first(h)), weight, bias, padding=1)

    return {
        "into the output": machine.convolved(lambda: h + gain * second(functional.relu(first(h)))),
        "into the weights": machine.convolved(folded),
    }


def gradient(ratio: float, machine: Machine) -> Ways:
    """Φᵀ(Φx - y) on all blocks, always fp32."""
    m = machine.measured(SIZE, ratio)
    phi = m.operator.rows.matrix()
    x = torch.rand(1, 1, *SIZE, device=machine.device)
    kernels = phi.reshape(-1, 1, 33, 33)
    (height, width), (rows, columns) = SIZE, m.y.shape[1:3]
    margin = (0, 33 * columns - width, 0, 33 * rows - height)
    values, square = m.y.permute(0, 3, 1, 2).contiguous(), phi.T @ phi
    back = m.operator.adjoint(m.y)

    def cut(image: Tensor) -> Tensor:
        return functional.pad(image, margin).view(rows, 33, columns, 33).transpose(1, 2)

    def unshuffled() -> Tensor:
        blocks = functional.pixel_unshuffle(functional.pad(x, margin), 33)
        planes = torch.einsum("nm,bmhw->bnhw", phi.T, torch.einsum("mn,bnhw->bmhw", phi, blocks))
        return functional.pixel_shuffle(planes, 33)[..., :height, :width] - back

    def strided() -> Tensor:
        error = functional.conv2d(functional.pad(x, margin), kernels, stride=33) - values
        return functional.conv_transpose2d(error, kernels, stride=33)[..., :height, :width]

    def one_product() -> Tensor:
        blocks = cut(x).reshape(rows, columns, -1) @ square
        whole = blocks.reshape(rows, columns, 33, 33).transpose(1, 2)
        return whole.reshape(1, 1, 33 * rows, 33 * columns)[..., :height, :width] - back

    return {
        "blocks copied, two products": lambda: m.gradient(x),
        "pixel_unshuffle, two products": unshuffled,
        "strided convolutions": strided,
        "blocks copied, one product with ΦᵀΦ": one_product,
    }


def tiles(size: tuple[int, int], machine: Machine) -> Ways:
    """Tiles of at most this many pixels per side."""
    x = torch.rand(1, 1, *size, device=machine.device)
    gain, block = torch.ones(1, 32, device=machine.device), machine.block()

    def way(side: int) -> Callable[[], Tensor]:
        return machine.convolved(lambda: Tiles(side)(block, State(x), x, gain)[0].image)

    whole = {"off": machine.convolved(lambda: block(State(x), x, gain)[0].image)}
    return whole | {str(side): way(side) for side in SIDES}


def batch(machine: Machine) -> Ways:
    """Small images, one by one or as one batch; a whole reconstruction at IPL 1."""
    torch.manual_seed(0)
    blocks = [CoastBlock(32) for _ in range(5)]
    net = Unfolding(blocks, Recursion((1,) * 5), RFMU(32, max_steps=5)).to(machine.device)
    one = machine.measured(SMALL, 0.1)
    many = Measurement.stacked([one] * MANY)
    setup = execution.choose(machine.device, machine.precision)

    def run(m: Measurement) -> Tensor:
        return execution.final(api.reconstruct_steps(m, net, None, setup)).image

    return {
        f"{MANY} one by one": lambda: torch.cat([run(one) for _ in range(MANY)]),
        f"{MANY} in one batch": lambda: run(many),
    }


def compiled(machine: Machine) -> Ways:
    """A block in eager mode, and compiled by torch.compile."""
    x = torch.rand(1, 1, *SIZE, device=machine.device)
    gain, block = torch.ones(1, 32, device=machine.device), machine.block()
    fast = torch.compile(machine.block().prox, dynamic=False)
    return {
        "eager": machine.convolved(lambda: block.prox(State(x), x, gain)[0].image),
        "torch.compile": machine.convolved(lambda: fast(State(x), x, gain)[0].image),
    }


LEVERS: dict[str, Callable[[Machine], Ways]] = {
    "features": layout,
    "modulation": modulation,
    **{f"gradient at {100 * ratio:g} %": partial(gradient, ratio) for ratio in RATIOS},
    **{f"tiles, {sizes(size)}": partial(tiles, size) for size in (SIZE, LARGE)},
    f"images of {sizes(SMALL)}": batch,
    "block": compiled,
}


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bf16", choices=TYPES)
    parser.add_argument("--times", type=int, default=10)
    given = parser.parse_args()
    keep_freed_memory()  # as `csrecon` does
    machine = Machine(execution.choose_device(given.device), given.precision, given.times)
    print(f"{machine.device}, {given.precision}, {torch.get_num_threads()} threads\n")
    print(Table(["lever", "way", "ms", "times", "differs"], [], left=2).markdown(), end="")
    for lever, ways in LEVERS.items():
        plain: Timed | None = None
        for way, run in ways(machine).items():
            with torch.inference_mode():
                timed = best(run, machine.device, machine.times)
            plain = plain or timed
            differs = float((timed.image - plain.image).abs().max() / plain.image.abs().max())
            times = plain.seconds / timed.seconds
            cells = [lever, way, f"{1e3 * timed.seconds:.2f}", f"{times:.2f}", f"{differs:.0e}"]
            print(line(cells), flush=True)


if __name__ == "__main__":
    main()
