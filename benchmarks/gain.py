"""Loss by `--gain auto`: PSNR with the estimated gain and offset, and with the true ones.

    python benchmarks/gain.py --data-dir SETS
    python benchmarks/gain.py --cases 12 --data-dir SETS

Cases are drawn from all combinations of the FACTORS, with all values of a factor equally often. The
first case is a scene of 256×256 pixels in a dark field of 792×1188 with less than half of its
blocks measured. Prints a Markdown table; offset, its error and the noise are relative to the root
mean square of Φx. The relative error of a gain refers to the gain that puts the bright end of the
true image at 0.97 (csrecon.reconstructors.calibration).
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from csrecon import zoo
from csrecon.errors import InputError
from csrecon.evaluation.table import Table, line
from csrecon.io import images
from csrecon.reconstructors import calibration
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi, make
from csrecon.zoo import datasets

FACTORS: dict[str, list[Any]] = {
    "share": [0.05, 0.1, 0.25, 0.5, 1.0],
    "background": [0.0, 0.0, 0.5],
    "missing": [0.0, 0.0, 0.4],
    "kind": ["gaussian", "normal", "binary", "bernoulli"],
    "ratio": [0.05, 0.1, 0.25, 0.5],
    "side": [16, 24, 32, 33],
    "gain": [1e-3, 1.0, 850.0, 1e5, -40.0],
    "offset": [0.0, 0.3, -3.0, 10.0],
    "noise": [0.0, 0.0, 0.01, 0.05],
}
FIELD = (256, 256)
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A scene in a field, and the sampling, gain, offset and noise of the camera."""

    share: float
    background: float
    missing: float
    kind: str
    ratio: float
    side: int
    gain: float
    offset: float
    noise: float
    field: tuple[int, int] = FIELD

    def phi(self, seed: int) -> Phi:
        """Φ; "normal" is Gaussian without orthonormal rows."""
        n = self.side**2
        m = max(1, round(self.ratio * n))
        if self.kind == "normal":
            return Phi.given(np.random.default_rng(seed).normal(size=(m, n)))
        return Phi.given(make(self.kind, m, (self.side,) * 2, seed).rows().matrix().numpy())


def drawn(count: int, seed: int) -> list[Case]:
    """The first case of the table, and random cases."""
    fault = Case(0.074, 0.0, 0.53, "gaussian", 0.1, 33, 850.0, 0.3, 0.0, (792, 1188))
    rng = np.random.default_rng(seed)
    columns = {
        name: [values[k % len(values)] for k in rng.permutation(count)]
        for name, values in FACTORS.items()
    }
    return [fault, *(Case(**{k: v[i] for k, v in columns.items()}) for i in range(count))]


def field(scene: Image, case: Case, rng: np.random.Generator) -> Image:
    """The scene, cropped to its share, at a random position in the field."""
    side = min(round((case.share * case.field[0] * case.field[1]) ** 0.5), *scene.shape)
    canvas = np.full(case.field, case.background, np.float32)
    row, column = (int(rng.integers(size - side + 1)) for size in case.field)
    canvas[row : row + side, column : column + side] = scene[:side, :side]
    return canvas


def psnr(m: Measurement, truth: Image, seen: NDArray[np.bool_], network: Any) -> float:
    """PSNR over the observed pixels, clipped to [0, 1], after the best gain and offset."""
    steps = execution.steps(network.at(2), m, execution.choose())
    x = execution.final(steps).image[0, 0].numpy()[seen].clip(0, 1)
    columns = np.stack([x, np.ones_like(x)], axis=1).astype(np.float64)
    best = columns @ np.linalg.lstsq(columns, truth[seen], rcond=None)[0]
    return float(-10 * np.log10(np.mean((best - truth[seen]) ** 2)))


def compared(case: Case, scene: Image, seed: int, network: Any) -> tuple[str, float | None]:
    """A row of the table, and the gap in dB; None if the estimate was refused."""
    rng = np.random.default_rng(seed)
    truth = field(scene, case, rng)
    whole = BlockOperator(case.phi(seed), case.field)
    present = torch.from_numpy((rng.random(whole.grid) >= case.missing).astype(np.float32))
    operator = BlockOperator(whole.phi, case.field, None, None, present)
    clean = operator(torch.from_numpy(truth)[None, None])
    rms = float(clean[clean != 0].square().mean().sqrt())
    noise = case.noise * rms * torch.from_numpy(rng.normal(size=clean.shape))
    offset = case.gain * case.offset * rms
    y = operator.masked(case.gain * (clean.double() + noise) + offset).float()
    seen = operator.observed().numpy()  # type: ignore[union-attr]

    def at(gain: float, zero: float) -> float:
        values = operator.masked(((y.double() - zero) / gain).float())
        return psnr(Measurement.of(operator, values), truth, seen, network)

    true = at(case.gain, offset)
    said = [*(str(getattr(case, name)) for name in FACTORS), f"{true:.2f}"]
    try:
        found = calibration.estimate(y, operator, None)
    except InputError as error:
        return line([*said, "refused", "", "", str(error).partition(";")[0]]), None
    gap = true - at(found.gain, found.offset)
    bright = calibration.bright_end(truth[seen].astype(np.float64), int(seen.sum()))
    gain = found.gain / case.gain * calibration.BRIGHT / bright - 1
    unit = abs(case.gain) * rms
    figures = [
        f"{true - gap:.2f}",
        f"{gap:+.2f}",
        f"{100 * gain:+.1f} ± {100 * found.gain_error:.1f}",
        f"{(found.offset - offset) / unit:+.5f} ± {found.offset_error / unit:.5f}",
    ]
    return line([*said, *figures]), gap


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dataset", default="set11")
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    paths = datasets.images(given.dataset, given.data_dir)
    network = zoo.load("rcoast")
    head = [*FACTORS, "true PSNR", "auto PSNR", "gap", "gain off by, %", "offset off by"]
    print(Table(head, [], left=len(head)).markdown(), end="")
    gaps = []
    for index, case in enumerate(drawn(given.cases, given.seed)):
        picture = images.read(paths[index % len(paths)], "gray").planes[0, 0].numpy()
        row, gap = compared(case, picture, given.seed + index, network)
        print(row, flush=True)
        gaps.append(gap)
    known = [gap for gap in gaps if gap is not None]
    print(f"\n{len(known)} estimates, {len(gaps) - len(known)} refused. Gap in dB:")
    print(f"mean {np.mean(known):.2f}, worst {max(known):.2f}.")


if __name__ == "__main__":
    main()
