"""What the published MRI comparison would gain from slices of its own scanner to train on.

    python benchmarks/domain_gap.py SETS [--weights mri-frcoast] [--minutes 15]

Every second slice of the set `brain_test` below SETS (the 2nd, 4th, …) trains a copy of the weights
further, with radial masks of 10 to 50 %; the others measure both, with the masks of the set. Prints
PSNR in dB, peak 1, clipped to [0, 1], the mean over these slices. The copy is for this comparison
alone: it has seen the test set.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import csrecon
from csrecon import metrics
from csrecon.io import arrays, images
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator
from csrecon.zoo import datasets

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
OPTIONS = (
    "seed=2741",
    "learning_rate=3.0e-4",
    "warmup=50",
    "scales=[1]",
    "stages=[{until: 1, cap: 20, patch: 128, batch: 2}]",
    "task={name: mri, masks: [radial], ratios: [0.1, 0.5]}",
)


def train(folder: Path, weights: str, minutes: float, sets: Path) -> Path:
    """The weights of `csrecon train` on the images in a folder, beginning with others."""
    asked = ["train", "mri-frcoast", "--threads", "1", "--fit", "--max-time", f"{minutes:g}m"]
    asked += ["--data", str(folder), "--data-dir", str(sets), "--out", str(folder / "run")]
    for option in (f"init={weights}", *OPTIONS):
        asked += ["--set", option]
    subprocess.run([sys.executable, "-m", "csrecon", *asked], check=True)
    return folder / "run" / "weights.safetensors"


def measure(weights: str | Path, slices: Sequence[Path], sets: Path) -> str:
    """A line of the table."""
    network, setup = csrecon.load(weights), execution.choose("cpu")
    planes = [images.read(path).planes for path in slices]
    cells = []
    for ratio in RATIOS:
        operator = FourierOperator(arrays.pick(datasets.mask("brain_test", ratio, sets)) != 0)
        found = []
        for x in planes:
            made = execution.image(network, Measurement.of(operator, operator(x)), setup)
            found.append(metrics.score(made, x).psnr)
        cells.append(fmean(found))
    return " | ".join(f"{psnr:.2f}" for psnr in cells)


def main() -> None:
    """Train on one half, print a table of the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", type=Path)
    parser.add_argument("--weights", default="mri-frcoast")
    parser.add_argument("--minutes", type=float, default=15)
    given = parser.parse_args()
    paths = datasets.images("brain_test", given.sets)
    with tempfile.TemporaryDirectory() as name:
        for path in paths[1::2]:
            (Path(name) / path.name).symlink_to(path.resolve())
        trained = train(Path(name), given.weights, given.minutes, given.sets.resolve())
        print("| weights |", " | ".join(f"{100 * ratio:.0f} %" for ratio in RATIOS), "|")
        print("|---|" + "---:|" * len(RATIOS))
        print(f"| as they are | {measure(given.weights, paths[::2], given.sets)} |", flush=True)
        print(f"| and the other half | {measure(trained, paths[::2], given.sets)} |")


if __name__ == "__main__":
    main()
