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
    lines = []
    for ratio in map(float, given.ratio.split(",")):
        masked = bool(datasets.card(given.dataset).masks)
        mask = datasets.mask(given.dataset, ratio, given.data_dir) if masked else None
        psnr = np.array([curve(network, path, ratio, mask) for path in paths])
        mean = psnr.mean(0, keepdims=True)
        shown = [f"{mean[0, ipl - 1]:.2f}" for ipl in _SHOWN if ipl <= psnr.shape[1]]
        lines.append([f"{ratio:.0%}", *shown, fall(mean), fall(psnr)])
    ipls = [f"IPL {ipl}" for ipl in _SHOWN if ipl <= network.trained.max_ipl]
    table = Table(["ratio", *ipls, "largest fall of the mean", "of an image"], lines)
    print(f"{given.model}, {given.dataset}, {len(paths)} images\n\n{table.markdown()}")


def curve(network: Unfolding, path: Path, ratio: float, mask: Path | None) -> list[float]:
    """PSNR of an image after every loop."""
    x = images.read(path).planes
    if mask is None:
        m = csrecon.sample(x[0, 0], ratio=ratio)
    else:
        operator = FourierOperator(arrays.pick(mask) != 0)
        m = Measurement.of(operator, operator(x))
    m = m.normalized()
    iterates = execution.steps(network, m, execution.choose("cpu", "fp32"))
    if not network.recursion.projection:
        return [metrics.score(step.image, x).psnr for step in iterates]
    return [metrics.score(m.consistent(step.image), x).psnr for step in iterates]


def fall(psnr: np.ndarray) -> str:
    """The largest fall between neighbours of rows (images, IPL), and after which IPL it comes."""
    falls = psnr[:, :-1] - psnr[:, 1:]
    worst = falls.max()
    after = int(np.unravel_index(falls.argmax(), falls.shape)[1]) + 1
    return f"{worst:.3f} (after {after})" if worst > 0 else "none"


if __name__ == "__main__":
    main()
