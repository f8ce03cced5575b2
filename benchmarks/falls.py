"""Whether more iterations ever make an image worse: PSNR against IPL on every image of a set.

    python benchmarks/falls.py frcoast --dataset set11 --data-dir SETS
    python benchmarks/falls.py mri-frcoast --dataset brain_test --data-dir SETS

Where layers are looped over, the image of IPL k is what the k-th loop yields, made consistent with
y where the network ends so; one pass in fp32 gives every IPL. Prints PSNR in dB (peak 1, clipped to
[0, 1], the mean over the images) and the largest fall from one IPL to the next, of the mean and of
any image. Φ is Gaussian of seed 0, which no training uses; a set of MRI has its own masks. Other
networks, whose counts are not prefixes of one another, are refused.
"""

import argparse
from pathlib import Path

import numpy as np
from torch import Tensor

import csrecon
from csrecon import metrics
from csrecon.evaluation.table import Table
from csrecon.io import arrays, images
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator
from csrecon.zoo import datasets

_SHOWN = (1, 2, 4, 8, 12, 16, 20, 24)


def main() -> None:
    """Parse the options, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--dataset", default="set11")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--ratio", default="0.1,0.3,0.5")
    parser.add_argument("--every", type=int, default=1, help="take every n-th image")
    given = parser.parse_args()
    network = csrecon.load(given.model)
    if not isinstance(network, Unfolding) or network.recursion.order != "looped":
        parser.error(f"{given.model}: expected a network whose layers are looped over.")
    network = network.at(network.trained.max_ipl)
    paths = datasets.images(given.dataset, given.data_dir)[:: given.every]
    masked = bool(datasets.card(given.dataset).masks)
    lines = []
    for ratio in map(float, given.ratio.split(",")):
        operator = None
        if masked:
            mask = arrays.pick(datasets.mask(given.dataset, ratio, given.data_dir)) != 0
            operator = FourierOperator(mask)
        psnr = np.array([curve(network, images.read(p).planes, ratio, operator) for p in paths])
        mean = psnr.mean(0, keepdims=True)
        shown = [f"{mean[0, ipl - 1]:.2f}" for ipl in _SHOWN if ipl <= psnr.shape[1]]
        lines.append([f"{ratio:.0%}", *shown, fall(mean), fall(psnr)])
    ipls = [f"IPL {ipl}" for ipl in _SHOWN if ipl <= network.trained.max_ipl]
    table = Table(["ratio", *ipls, "largest fall of the mean", "of an image"], lines)
    print(f"{given.model}, {given.dataset}, {len(paths)} images\n\n{table.markdown()}")


def curve(
    network: Unfolding, x: Tensor, ratio: float, operator: FourierOperator | None
) -> list[float]:
    """PSNR of an image (1, 1, H, W) after every loop; measured by Φ if there is no operator."""
    if operator is None:
        m = csrecon.sample(x[0, 0], ratio=ratio)
    else:
        m = Measurement.of(operator, operator(x))
    m = m.normalized()
    iterates = (s.image for s in execution.steps(network, m, execution.choose("cpu", "fp32")))
    if network.recursion.projection:
        iterates = map(m.consistent, iterates)
    return [metrics.score(image, x).psnr for image in iterates]


def fall(psnr: np.ndarray) -> str:
    """The largest fall between neighbours of rows (images, IPL), and after which IPL it comes."""
    falls = psnr[:, :-1] - psnr[:, 1:]
    worst = falls.max()
    after = int(np.unravel_index(falls.argmax(), falls.shape)[1]) + 1
    return f"{worst:.3f} (after {after})" if worst > 0 else "none"


if __name__ == "__main__":
    main()
