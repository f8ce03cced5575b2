"""What `csrecon calibrate` recovers of a Φ that is not exactly the nominal one.

    python benchmarks/fit_phi.py --data-dir SETS

The nominal Φ is Gaussian, 25 % of blocks of 33×33. The camera's rows have gains with 5 % standard
deviation, and its entries errors of 1, 2 or 5 % of the root mean square of an entry. It measures 2,
5 or 20 images of T91, without noise or with σ = 0.01. Prints a Markdown table: the relative error
of Φ before and after the fit, and the mean PSNR in dB of two images of Set11, measured by this
camera with the same noise, reconstructed by `rcoast` with the nominal Φ, with fitted gains of the
rows alone, with the fitted and with the true Φ.
"""

import argparse
import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import csrecon
from csrecon import metrics
from csrecon.evaluation.table import line
from csrecon.io import folders, images
from csrecon.io.images import Picture
from csrecon.sensing.fitting import fit
from csrecon.sensing.known import Array, gathered
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi

SIDE, RATIO, GAINS = 33, 0.25, 0.05
ENTRIES, COUNTS, NOISES = (0.01, 0.02, 0.05), (2, 5, 20), (0.0, 0.01)
SCENES = ("Monarch", "Parrots")
HEAD = (
    "entry errors (%)", "noise σ", "images", "blocks", "model",
    "error of Φ before (%)", "after (%)", "PSNR nominal", "gains alone", "fitted", "true",
)  # fmt: skip


def measured(
    picture: Picture, true: Phi, believed: Phi, noise: float, rng: np.random.Generator
) -> Measurement:
    """What the camera with the true Φ gives, taken for a measurement by another Φ."""
    shape = tuple(picture.planes.shape[2:])
    y = BlockOperator(true, shape)(picture.planes)
    y = y + noise * torch.from_numpy(rng.standard_normal(tuple(y.shape)).astype(np.float32))
    return Measurement.of(BlockOperator(believed, shape), y)


def quality(
    pictures: list[Picture], true: Phi, believed: Phi, noise: float, offset: Array | None = None
) -> float:
    """Mean PSNR of the scenes, with the fitted offset removed."""
    found = []
    for index, picture in enumerate(pictures):
        m = measured(picture, true, believed, noise, np.random.default_rng(index))
        if offset is not None:
            m = replace(m, y=m.y - torch.from_numpy(offset).float())
        image = torch.from_numpy(csrecon.reconstruct(m, "rcoast"))[None, None]
        found.append(metrics.score(image, picture.planes).psnr)
    return float(np.mean(found))


def error(phi: NDArray[np.floating], true: Phi) -> float:
    """Relative error of Φ, in percent."""
    return float(100 * np.linalg.norm(phi - true.matrix) / np.linalg.norm(true.matrix))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with t91 and set11")
    sets = parser.parse_args().data_dir
    known = [images.read(path) for path in folders.listed(sets / "t91", images.SUFFIXES)]
    scenes = [images.read(sets / "set11" / f"{name}.tif") for name in SCENES]
    nominal = Phi.make(round(RATIO * SIDE**2), SIDE**2, 0)
    m, n = nominal.shape
    print(line(HEAD))
    print(line(["---"] * len(HEAD)))
    for size, noise in itertools.product(ENTRIES, NOISES):
        rng = np.random.default_rng(1)
        gains = 1 + GAINS * rng.standard_normal((m, 1))
        scale = float(np.sqrt(np.square(nominal.matrix).mean()))
        true = Phi.given(gains * nominal.matrix + size * scale * rng.standard_normal((m, n)))
        low, high = (quality(scenes, true, phi, noise) for phi in (nominal, true))
        for count in COUNTS:
            pictures = known[:count]
            pairs = [(str(i), p, measured(p, true, nominal, noise, rng)) for i, p in
                     enumerate(pictures)]  # fmt: skip
            blocks, _ = gathered(pairs)
            found = fit(blocks, nominal.matrix)
            fitted = Phi.given(found.phi)
            gains_alone = Phi.given(found.gains[:, None] * nominal.matrix)
            rows = quality(scenes, true, gains_alone, noise)
            reached = quality(scenes, true, fitted, noise, found.offset)
            cells = [
                f"{100 * size:g}", f"{noise:g}", count, len(blocks.pixels), found.model,
                f"{error(nominal.matrix, true):.2f}", f"{error(fitted.matrix, true):.2f}",
                f"{low:.2f}", f"{rows:.2f}", f"{reached:.2f}", f"{high:.2f}",
            ]  # fmt: skip
            print(line([str(cell) for cell in cells]), flush=True)


if __name__ == "__main__":
    main()
