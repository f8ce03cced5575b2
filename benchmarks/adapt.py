"""What adapting to measurements alone gains in true PSNR, beside fine-tuning with the images.

    python benchmarks/adapt.py --max-time 90
    python benchmarks/adapt.py --kinds brain photos --ratios 0.25 --data-dir SETS

For every kind of images and ratio: 20 images of 132×132 are measured by one Φ, and the network is
adapted to the values for so many seconds. Then it is fine-tuned as long, by the same steps, rows
and crops, with the squared error of the images instead of that of the rows. Both are scored on
other images of the kind, clipped to [0, 1]. Kinds: `text` is rendered pages, `cells` is drawn blobs
and filaments as under a microscope, `brain` needs DIR/brain_train/ch2.nii.gz (axial slices, those
for the test lie between those that are measured), `photos` needs DIR/bsd400. Prints one table.
"""

import argparse
import gzip
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from csrecon import zoo
from csrecon.evaluation.table import Table
from csrecon.io import images
from csrecon.metrics import score
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import parts
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, make
from csrecon.training.adapt import Adaptation, Adapted, AdaptOptions
from csrecon.training.prediction import Prediction

SIDE, BLOCK = 132, 33
MEASURED = 20
CAMERA = 7  # seed of Φ
_WORDS = (
    "the of measured rows image noise block and sparse random camera light each signal network "
    "which pixel basis trained pattern error small layer recovers sampling is a to by in as from"
)
WORDS = _WORDS.split()
Plane = NDArray[np.float32]


def text(index: int, _: Path | None) -> Plane:
    """A piece of a page, dark on light."""
    draw = np.random.default_rng(index)
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", str(draw.choice(FONTS)))
    size = int(draw.integers(9, 17))
    page = Image.new("L", (2 * SIDE, 2 * SIDE), int(draw.integers(225, 256)))
    pen = ImageDraw.Draw(page)
    ink = int(draw.integers(0, 60))
    for line in range(2 * SIDE // (size + 4)):
        words = " ".join(draw.choice(WORDS, 14))
        pen.text((3, line * (size + 4)), words, ink, ImageFont.truetype(font, size))
    left, top = draw.integers(0, SIDE, 2)
    return np.asarray(page.crop((left, top, left + SIDE, top + SIDE)), np.float32) / 255


FONTS = ("DejaVuSans.ttf", "DejaVuSerif.ttf", "STIXGeneral.ttf", "DejaVuSans-Bold.ttf")


def cells(index: int, _: Path | None) -> Plane:
    """Bright spots, rings and filaments on a dark ground."""
    draw = np.random.default_rng(index)
    row, column = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    plane = np.full((SIDE, SIDE), 0.06)
    for _number in range(int(draw.integers(8, 18))):
        y, x, radius = *draw.uniform(0, SIDE, 2), draw.uniform(5, 14)
        away = np.hypot(row - y, (column - x) * draw.uniform(0.7, 1.4))
        plane += draw.uniform(0.1, 0.35) * np.exp(-((away / radius) ** 4))
        plane += draw.uniform(0.1, 0.4) * np.exp(-(((away - radius) / 1.3) ** 2))
        for _spot in range(4):
            dy, dx = draw.normal(0, radius / 2.5, 2)
            plane += draw.uniform(0.1, 0.4) * np.exp(
                -((row - y - dy) ** 2 + (column - x - dx) ** 2) / draw.uniform(1, 5)
            )
    for _number in range(int(draw.integers(6, 14))):
        place, angle = draw.uniform(0, SIDE, 2), draw.uniform(0, 2 * np.pi)
        for _step in range(90):
            top, left = (np.round(place).astype(int) - 4).clip(0, SIDE - 9)
            near = np.s_[top : top + 9, left : left + 9]
            away = (row[near] - place[0]) ** 2 + (column[near] - place[1]) ** 2
            plane[near] = np.maximum(plane[near], 0.5 * np.exp(-away / 1.2))
            angle += draw.normal(0, 0.12)
            place += np.array([np.sin(angle), np.cos(angle)])
    return plane.clip(0, 1).astype(np.float32)


def brain(index: int, folder: Path | None) -> Plane:
    """An axial slice; even numbers and odd ones are apart from each other."""
    volume = nifti(_of(folder, "brain_train/ch2.nii.gz"))
    middle = volume[:, :, 40 + 3 * index]
    top, left = ((side - SIDE) // 2 for side in middle.shape)
    return middle[top : top + SIDE, left : left + SIDE] / np.float32(volume.max())


def nifti(path: Path) -> Plane:
    """The volume of a NIfTI file of bytes or 16-bit integers."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, "<i2", 3, 42)
    kind = {2: "u1", 4: "<i2"}[int(np.frombuffer(content, "<i2", 1, 70)[0])]
    begin = int(np.frombuffer(content, "<f4", 1, 108)[0])
    values = np.frombuffer(content, kind, int(np.prod(shape.astype(int))), begin)
    return values.reshape(shape, order="F").astype(np.float32)


def photos(index: int, folder: Path | None) -> Plane:
    """The middle of a photograph."""
    path = sorted(_of(folder, "bsd400").iterdir())[index]
    plane = images.read(path, "gray").planes[0, 0].numpy()
    top, left = ((side - SIDE) // 2 for side in plane.shape)
    return np.ascontiguousarray(plane[top : top + SIDE, left : left + SIDE])


def _of(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise SystemExit(f"{name}: give the folder of the image sets by --data-dir.")
    return folder / name


KINDS: dict[str, Callable[[int, Path | None], Plane]] = {
    "text": text,
    "cells": cells,
    "brain": brain,
    "photos": photos,
}


class WithImages(Prediction):
    """The loss with ground truth: the squared error of the image instead of that of the rows."""

    def __init__(self, truth: Sequence[Plane], *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._truth = [torch.from_numpy(plane)[None, None] for plane in truth]

    def error(
        self, x: Tensor, m: Measurement, targets: Sequence[int], place: tuple[int, parts.Corner]
    ) -> Tensor:
        """The loss of the image of a crop."""
        index, (top, left) = place
        height, width = x.shape[-2:]
        rows = slice(top * BLOCK, top * BLOCK + height)
        columns = slice(left * BLOCK, left * BLOCK + width)
        return self.form((x - self._truth[index][..., rows, columns]).square(), 0.0)


def psnr(network: Unfolding, planes: Sequence[Plane], camera: BlockOperator) -> NDArray[np.float64]:
    """PSNR of every image."""
    setup = execution.choose("cpu")
    found = []
    for plane in planes:
        x = torch.from_numpy(plane)[None, None]
        image = execution.final(execution.steps(network, Measurement(camera, camera(x)), setup))
        found.append(score(image.image, x).psnr)
    return np.array(found)


def trained(
    network: Unfolding, values: Sequence[Measurement], options: AdaptOptions, objective: object
) -> Adapted:
    """The network after a run."""
    setup = execution.choose("cpu")
    run = Adaptation(network, values, options, setup, objective=objective)  # type: ignore[arg-type]
    for _ in run.run():
        pass
    return run.result()


def compared(
    network: Unfolding, kind: str, ratio: float, given: argparse.Namespace
) -> tuple[str, ...]:
    """A row of the table."""
    planes = [KINDS[kind](2 * i, given.data_dir) for i in range(MEASURED)]
    others = [KINDS[kind](2 * i + 1, given.data_dir) for i in range(given.test)]
    phi = make("gaussian", round(ratio * BLOCK**2), (BLOCK, BLOCK), CAMERA)
    camera = BlockOperator(phi, (SIDE, SIDE), (BLOCK, BLOCK))
    values = [Measurement(camera, camera(torch.from_numpy(plane)[None, None])) for plane in planes]
    options = AdaptOptions(
        max_seconds=None if given.steps else given.max_time,
        steps=given.steps,
        patience=10,
        learning_rate=given.learning_rate,
        equivariance=given.equivariance,
        loss=given.loss,
        layers=given.layers,
    )
    alone = trained(network, values, options, Prediction)
    same = options.model_copy(update={"max_seconds": None, "steps": alone.steps})
    known = trained(network, values, same, partial(WithImages, planes))
    before, after, best = (psnr(n, others, camera) for n in (network, alone.network, known.network))
    seen = psnr(alone.network, planes[: given.test], camera)
    seen -= psnr(network, planes[: given.test], camera)
    return (
        kind,
        f"{ratio:g}",
        str(alone.steps),
        f"{before.mean():.2f}",
        *(_mean(figures) for figures in (after - before, best - before, seen)),
        str(alone.gain),
    )


def _mean(figures: NDArray[np.float64]) -> str:
    return f"{figures.mean():+.2f} ± {figures.std(ddof=1) / len(figures) ** 0.5:.2f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["text", "cells"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.25, 0.5])
    parser.add_argument("--model", default="rcoast")
    parser.add_argument("--max-time", type=float, default=90, help="seconds of every run")
    parser.add_argument("--steps", type=int, help="of every run, instead of --max-time")
    parser.add_argument("--test", type=int, default=10, help="images for the test")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--equivariance", type=float, default=0.0)
    parser.add_argument("--loss", choices=("log", "plain"), default="log")
    parser.add_argument("--layers", choices=("all", "last"), default="all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    network = zoo.load(given.model)
    if not isinstance(network, Unfolding):
        raise SystemExit(f"{given.model}: a classical solver has no weights.")
    rows = [compared(network, kind, ratio, given) for kind in given.kinds for ratio in given.ratios]
    header = (
        "images",
        "m/n",
        "steps",
        "PSNR before",
        "measurements alone",
        "with images",
        "on the measured images",
        "estimated on these",
    )
    print(Table(header, rows, left=1).markdown(), end="")


if __name__ == "__main__":
    main()
