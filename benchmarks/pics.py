"""BART's `pics` beside csrecon's own solvers, on the same k-space: an independent check.

    python benchmarks/pics.py VOLUME.nii.gz …
    python benchmarks/pics.py --test FOLDER --bart dau2=0.0003 --bart tv=0.0003

Without --test: the middle (176×176) of two held-out slices of every volume, with radial masks of 10
to 50 %, for several strengths λ; choices are made here. With --test: all slices of the set
`brain_test` below FOLDER and its masks, for the named strengths alone. One coil, real images.

BART (Debian's package `bart`) solves min ½‖Ax - y‖² + λ R(x) for a real x (`-c`) and unscaled data
(`-w 1`): ℓ1 of wavelets (Daubechies 2 or CDF 4/4) by FISTA (`-R W`, which is `-l1 -r λ`), or total
variation by ADMM (`-R T`). PSNR is in dB, peak 1, clipped to [0, 1], the mean over the slices;
seconds are those of a slice.
"""

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import csrecon
from csrecon import metrics
from csrecon.io import arrays, images
from csrecon.runtime import execution
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import FourierOperator
from csrecon.sensing.operators.masks import Mask, Origin, draw
from csrecon.training.tasks.mri import held_out
from csrecon.zoo import datasets

RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
OURS = ("adjoint", "fista:transform=wavelet", "tv")
TERMS = {
    "dau2": ["--wavelet", "dau2", "-R", "W:3:0"],
    "cdf44": ["--wavelet", "cdf44", "-R", "W:3:0"],
    "tv": ["-u0.01", "-R", "T:3:0"],  # ρ of ADMM; its default of 0.5 converges slower
}
TRIED = tuple(f"{kind}={weight}" for kind in TERMS for weight in (1e-4, 3e-4, 1e-3))


def cases(given: argparse.Namespace) -> Iterator[tuple[float, Mask, Tensor]]:
    """Ratio, mask (zero frequency in the corner) and image (1, 1, H, W)."""
    if given.test is None:
        planes = held_out(given.volumes)
    else:
        planes = [images.read(p).planes for p in datasets.images("brain_test", given.test)]
    for ratio in given.ratios:
        for index, x in enumerate(planes[: given.limit]):
            if given.test is None:
                shape = x.shape[-2], x.shape[-1]
                yield ratio, draw(shape, Origin("radial", ratio, index)), x
            else:
                path = datasets.mask("brain_test", ratio, given.test)
                yield ratio, arrays.pick(path) != 0, x


def write_cfl(path: Path, values: np.ndarray) -> None:
    """An array of BART."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, values.shape))}\n")
    values.astype(np.complex64).ravel(order="F").tofile(path)


def pics(folder: Path, m: Measurement, what: str, iterations: int) -> tuple[Tensor, float]:
    """BART's image (1, 1, H, W) of a measurement, and its seconds.

    BART has both origins in the middle; here both are in the corner.
    """
    kind, _, weight = what.partition("=")
    shape = m.operator.image_shape
    spectrum = np.zeros(shape, np.complex64)
    spectrum[m.operator.mask] = torch.view_as_complex(m.y[0]).numpy()
    write_cfl(folder / "k.cfl", np.fft.fftshift(spectrum))
    write_cfl(folder / "s.cfl", np.ones(shape))
    asked = ["bart", "pics", "-d0", "-w1", "-c", *TERMS[kind]]
    asked[-1] += f":{weight}"
    began = time.perf_counter()
    subprocess.run(
        [*asked, f"-i{iterations}", "k", "s", "x"],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    found = np.fft.fftshift(arrays.pick(folder / "x.cfl").reshape(shape)).real
    return torch.from_numpy(np.ascontiguousarray(found, np.float32))[None, None], seconds


def main() -> None:
    """Print a line per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volumes", type=Path, nargs="*")
    parser.add_argument("--test", type=Path, help="folder of data sets with brain_test")
    parser.add_argument("--bart", action="append", help="dau2=λ, cdf44=λ or tv=λ; may be repeated")
    parser.add_argument("--ours", action="append", help="a model; may be repeated")
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--iterations", type=int, default=200, help="of BART")
    parser.add_argument("--limit", type=int, help="slices")
    given = parser.parse_args()
    setup = execution.choose("cpu", "fp32")
    scores: dict[str, dict[float, list[tuple[float, float]]]] = {}
    ours, theirs = given.ours or OURS, given.bart or TRIED
    with tempfile.TemporaryDirectory() as name:
        for ratio, mask, x in cases(given):
            operator = FourierOperator(mask)
            m = Measurement(operator, operator(x))
            for model in ours:
                began = time.perf_counter()
                made = execution.image(csrecon.load(model), m, setup)
                facts = metrics.score(made, x).psnr, time.perf_counter() - began
                scores.setdefault(model, {}).setdefault(ratio, []).append(facts)
            for what in theirs:
                made, seconds = pics(Path(name), m, what, given.iterations)
                facts = metrics.score(made, x).psnr, seconds
                scores.setdefault(f"bart {what}", {}).setdefault(ratio, []).append(facts)
    print(f"{'':24}" + "".join(f"{100 * r:7.0f} %" for r in given.ratios) + "     mean  seconds")
    for method, found in scores.items():
        means = [float(np.mean([psnr for psnr, _ in found[r]])) for r in given.ratios]
        seconds = np.mean([s for r in given.ratios for _, s in found[r]])
        figures = "".join(f"{psnr:9.2f}" for psnr in [*means, float(np.mean(means))])
        print(f"{method:24}{figures}{seconds:9.2f}")


if __name__ == "__main__":
    main()
