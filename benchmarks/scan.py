"""Simulate a scan with eight coils from a NIfTI volume, in every file format that is read.

    python benchmarks/scan.py VOLUME.nii.gz FOLDER

Axial slices with a smooth phase, simulated sensitivities, whole columns of k-space left out
(equispaced, 30 %, 24 columns at the centre), complex noise of standard deviation 0.003 on values
whose images lie in [0, 1], zero frequency in the middle. FOLDER gets kspace.h5 (as of fastMRI),
kspace.cfl with its .hdr (BART), kspace.npy, kspace.mat, and truth.npy (complex images).
"""

import argparse
from pathlib import Path

import h5py
import nibabel
import numpy as np
from scipy.io import savemat

from csrecon.sensing.operators.masks import Origin, draw
from csrecon.sensing.operators.sense import simulated

COILS, SLICES, SHAPE, NOISE = 8, (70, 85, 100), (256, 192), 0.003


def images(path: Path) -> np.ndarray:
    """Complex slices (S, H, W), magnitudes in [0, 1]."""
    volume = np.asarray(nibabel.load(path).dataobj, np.float64)
    made = np.zeros((len(SLICES), *SHAPE))
    for index, place in enumerate(SLICES):
        one = np.rot90(volume[:, :, place])[: SHAPE[0], : SHAPE[1]]
        top, left = ((a - b) // 2 for a, b in zip(SHAPE, one.shape, strict=True))
        made[index, top : top + one.shape[0], left : left + one.shape[1]] = one / volume.max()
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return made * np.exp(1j * (row / 60 - column / 50))


def main() -> None:
    """Write every file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("volume", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    truth, axes = images(given.volume), (-2, -1)
    seen = np.fft.ifftshift(simulated(SHAPE, COILS) * truth[:, None], axes=axes)
    values = np.fft.fftshift(np.fft.fft2(seen, norm="ortho"), axes=axes)
    noise = np.random.Generator(np.random.PCG64(0)).standard_normal((2, *values.shape))
    columns = draw((SHAPE[1], 1), Origin("equispaced", 0.3, 1, 24))[:, 0]
    mask = np.fft.fftshift(columns)
    values = ((values + NOISE * (noise[0] + 1j * noise[1])) * mask).astype(np.complex64)
    given.folder.mkdir(parents=True, exist_ok=True)
    np.save(given.folder / "truth.npy", truth.astype(np.complex64))
    np.save(given.folder / "kspace.npy", values)
    with h5py.File(given.folder / "kspace.h5", "w") as file:
        file["kspace"], file["mask"] = values, mask.astype(np.float32)
    turned = values.transpose(2, 3, 1, 0)
    savemat(given.folder / "kspace.mat", {"kspace": turned})
    bart = turned.reshape(*SHAPE, 1, COILS, *[1] * 9, len(SLICES))
    (given.folder / "kspace.hdr").write_text(f"# Dimensions\n{' '.join(map(str, bart.shape))}\n")
    bart.ravel(order="F").tofile(given.folder / "kspace.cfl")


if __name__ == "__main__":
    main()
