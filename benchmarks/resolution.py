"""What networks for MRI keep when resolution and masks change without retraining.

    python benchmarks/resolution.py VOLUME.nii.gz WEIGHTS.safetensors ... [--slices 4]

Held-out axial slices of a volume, padded to squares and resampled to 192, 256 and 320 pixels a
side, so that the field of view is the same; masks of every kind at 10 and 30 %. Prints the mean
PSNR in dB, and the gain over FISTA with wavelets, which was trained for no resolution.
"""

import argparse
import json
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import csrecon
from csrecon import metrics
from csrecon.reconstructors.base import Reconstructor
from csrecon.runtime import execution
from csrecon.training import slices
from csrecon.training.tasks.mri import MaskCamera

SIDES = (192, 256, 320)
REFERENCE = "fista:transform=wavelet,iterations=50"
MASKS = ("random1d", "random2d", "radial", "equispaced")
RATIOS = (0.1, 0.3)
SEED = 2**32  # of masks that no training draws; even, so that lines are rows


def squares(path: Path, count: int) -> list[Image.Image]:
    """Held-out slices in the middle of a black square."""
    found = []
    for plane in slices.held_out(path, count):
        whole = np.zeros((max(plane.shape),) * 2, np.uint8)
        top, left = ((len(whole) - side) // 2 for side in plane.shape)
        whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
        found.append(Image.fromarray(whole))
    return found


def resampled(image: Image.Image, side: int) -> Tensor:
    """An image (1, 1, side, side) in [0, 1]."""
    small = np.asarray(image.resize((side, side), Image.Resampling.LANCZOS), np.float32)
    return torch.from_numpy(small)[None, None] / 255


def psnr(model: Reconstructor, kind: str, planes: list[Tensor], setup: execution.Setup) -> float:
    """The mean over slices and ratios."""
    found = []
    for index, x in enumerate(planes):
        for ratio in RATIOS:
            m = MaskCamera(kind, ratio, SEED + 2 * index)(x, torch.Generator())
            found.append(metrics.score(execution.image(model, m, setup), x).psnr)
    return fmean(found)


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path)
    parser.add_argument("weights", type=Path, nargs="+")
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    setup = execution.choose("cpu")
    images = squares(given.volume, given.slices)
    planes = {side: [resampled(image, side) for image in images] for side in SIDES}
    models = {name: csrecon.load(name) for name in ("adjoint", REFERENCE)}
    models |= {path.parent.name: csrecon.load(str(path)) for path in given.weights}
    table: dict[str, dict[str, list[float]]] = {}
    print(
        "| | mask |", *(f"{side}² |" for side in SIDES), *(f"gain at {side}² |" for side in SIDES)
    )
    print("|---|---|" + "---:|" * (2 * len(SIDES)))
    for name, model in models.items():
        table[name] = {}
        for kind in MASKS:
            row = table[name][kind] = [psnr(model, kind, planes[side], setup) for side in SIDES]
            known = table.get(REFERENCE, {}).get(kind, [float("nan")] * len(SIDES))
            cells = [f"{value:.2f}" for value in row]
            cells += [f"{value - one:+.2f}" for value, one in zip(row, known, strict=True)]
            print(
                f"| {name} | {kind} |",
                " | ".join(cells).replace("+nan", "").replace("nan", ""),
                "|",
                flush=True,
            )
    if given.json:
        given.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
