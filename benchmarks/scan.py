"""Simulate a scan with eight coils from a NIfTI volume, in every file format that is read.

    python benchmarks/scan.py VOLUME.nii.gz FOLDER

Axial slices with a smooth phase, simulated sensitivities, whole columns of k-space left out
(equispaced, 30 %, 24 columns at the centre), complex noise of standard deviation 0.003 on values
whose images lie in [0, 1], zero frequency in the middle. FOLDER gets kspace.h5 (as of fastMRI),
kspace.cfl with its .hdr (BART), kspace.npy, kspace.mat, raw.h5 (ISMRMRD, by the package of its
authors; its readouts are the columns, so its images are transposed, and they are oversampled
twofold), and truth.npy (complex images). slice.png is a slice that no network was trained on, in
the middle of 256×256 pixels.
"""

import argparse
from pathlib import Path

import h5py
import ismrmrd
import nibabel
import numpy as np
from PIL import Image
from scipy.io import savemat

from csrecon.sensing.operators.masks import Origin, draw
from csrecon.sensing.operators.sense import simulated
from csrecon.training import slices

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


def write_slice(volume: Path, path: Path) -> None:
    """A held-out axial slice, upright."""
    plane = np.rot90(slices.held_out(volume, 1)[0])
    whole = np.zeros((256, 256), np.uint8)
    top, left = ((256 - side) // 2 for side in plane.shape)
    whole[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    Image.fromarray(whole).save(path)


def write_raw(path: Path, values: np.ndarray, measured: np.ndarray) -> None:
    """ISMRMRD raw data of k-space (S, coils, phase encodings, samples)."""
    xsd, (_, _, rows, samples) = ismrmrd.xsd, values.shape

    def space(width: int) -> ismrmrd.xsd.encodingSpaceType:
        return xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=width, y=rows, z=1),
            fieldOfView_mm=xsd.fieldOfViewMm(x=float(width), y=float(rows), z=15.0),
        )

    steps = xsd.limitType(minimum=0, maximum=rows - 1, center=rows // 2)
    encoding = xsd.encodingType(
        encodedSpace=space(2 * samples),
        reconSpace=space(samples),
        encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=steps),
        trajectory=xsd.trajectoryType.CARTESIAN,
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_000_000)
    header = xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[encoding])
    lines = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(values, axes=-1), norm="ortho"), axes=-1)
    lines = np.pad(lines, [(0, 0)] * 3 + [(samples // 2, samples - samples // 2)])
    wide = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(lines, axes=-1), norm="ortho"), axes=-1)
    with ismrmrd.Dataset(path, "dataset", mode="w") as file:
        file.write_xml_header(xsd.ToXML(header).encode())
        for place, part in enumerate(wide.astype(np.complex64)):
            for row in np.flatnonzero(measured):
                one = ismrmrd.Acquisition.from_array(np.ascontiguousarray(part[:, row]))
                one.center_sample, one.idx.kspace_encode_step_1, one.idx.slice = samples, row, place
                one.position[:], one.slice_dir[:] = (0, 0, 15 * place), (0, 0, 1)
                file.append_acquisition(one)


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
    write_slice(given.volume, given.folder / "slice.png")
    np.save(given.folder / "truth.npy", truth.astype(np.complex64))
    np.save(given.folder / "kspace.npy", values)
    with h5py.File(given.folder / "kspace.h5", "w") as file:
        file["kspace"], file["mask"] = values, mask.astype(np.float32)
    write_raw(given.folder / "raw.h5", values.swapaxes(2, 3), mask)
    turned = values.transpose(2, 3, 1, 0)
    savemat(given.folder / "kspace.mat", {"kspace": turned})
    bart = turned.reshape(*SHAPE, 1, COILS, *[1] * 9, len(SLICES))
    (given.folder / "kspace.hdr").write_text(f"# Dimensions\n{' '.join(map(str, bart.shape))}\n")
    bart.ravel(order="F").tofile(given.folder / "kspace.cfl")


if __name__ == "__main__":
    main()
