"""ISMRMRD raw data, written with the package of its authors: k-space, voxels, and the checks."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from csrecon.errors import InputError
from csrecon.io import arrays
from csrecon.sensing.operators.masks import Origin, draw
from csrecon.sensing.operators.sense import simulated
from tests.test_cli import run
from tests.test_kspace import SHAPE, centred, error, volume

ismrmrd = pytest.importorskip("ismrmrd", reason="writes its files with ismrmrd")

NOISE, CALIBRATION, REVERSE = 19, 20, 22


def coil_images(slices=2, several=3):
    """Coil images (S, C, H, W)."""
    return simulated(SHAPE, several) * volume(slices)[:, None]


def row_mask(share=0.5):
    return np.fft.fftshift(draw((SHAPE[0], 1), Origin("equispaced", share, 1, 12))[:, 0])


def oversampled(images):
    """Coil images in a field of view of twice the width."""
    side = SHAPE[1] // 2
    return np.pad(images, [(0, 0), (0, 0), (0, 0), (side, side)])


def header(encoded, recon, trajectory="cartesian", depth=1, mode="embedded"):
    """The XML header as the authors' package writes it."""
    xsd = ismrmrd.xsd

    def space(width):
        size = xsd.matrixSizeType(x=width, y=SHAPE[0], z=depth)
        fov = xsd.fieldOfViewMm(x=2.0 * width, y=1.5 * SHAPE[0], z=5.0)
        return xsd.encodingSpaceType(matrixSize=size, fieldOfView_mm=fov)

    steps = xsd.limitType(minimum=0, maximum=SHAPE[0] - 1, center=SHAPE[0] // 2)
    one = xsd.encodingType(
        encodedSpace=space(encoded),
        reconSpace=space(recon),
        encodingLimits=xsd.encodingLimitsType(kspace_encoding_step_1=steps),
        trajectory=xsd.trajectoryType(trajectory),
        parallelImaging=xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(
                kspace_encoding_step_1=2, kspace_encoding_step_2=1
            ),
            calibrationMode=xsd.calibrationModeType(mode),
        ),
    )
    conditions = xsd.experimentalConditionsType(H1resonanceFrequency_Hz=123_000_000)
    return xsd.ToXML(xsd.ismrmrdHeader(experimentalConditions=conditions, encoding=[one])).encode()


def readout(line, row, index=0, **fields):
    """A readout of (C, W) samples; fields of the header, `flag`, and counters of `idx`."""
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(line, np.complex64))
    acquisition.center_sample = fields.pop("center_sample", line.shape[1] // 2)
    acquisition.idx.kspace_encode_step_1, acquisition.idx.slice = row, index
    acquisition.position[:] = 0, 0, 7.0 * index
    acquisition.slice_dir[:] = 0, 0, 1
    if "flag" in fields:
        acquisition.setFlag(fields.pop("flag"))
    for name, value in fields.items():
        setattr(acquisition.idx if hasattr(acquisition.idx, name) else acquisition, name, value)
    return acquisition


def readouts(values, mask, **fields):
    """Every measured row of k-space (S, C, H, W)."""
    return [
        readout(part[:, row], row, index, **fields)
        for index, part in enumerate(values)
        for row in np.flatnonzero(mask)
    ]


def write(name, xml, lines):
    with ismrmrd.Dataset(name, "dataset", mode="w") as file:
        file.write_xml_header(xml)
        for line in lines:
            file.append_acquisition(line)


def test_kspace_and_voxels_come_back():
    values, mask = centred(coil_images()), row_mask()
    write("a.h5", header(SHAPE[1], SHAPE[1]), readouts(values, mask)[::-1])
    found = arrays.read(Path("a.h5"))
    np.testing.assert_allclose(found["kspace"], values * mask[:, None], atol=1e-6)
    np.testing.assert_allclose(found["voxel_mm"], [7, 1.5, 2])


def test_readout_oversampling_is_removed():
    images, mask = coil_images(), row_mask()
    wide = centred(oversampled(images))
    write("a.h5", header(2 * SHAPE[1], SHAPE[1]), readouts(wide, mask))
    found = arrays.read(Path("a.h5"))
    np.testing.assert_allclose(found["kspace"], centred(images) * mask[:, None], atol=1e-6)
    np.testing.assert_allclose(found["voxel_mm"], [7, 1.5, 2])


def test_partial_readouts_keep_their_oversampling(caplog):
    wide, mask = centred(oversampled(coil_images())), row_mask()
    cut = 2 * SHAPE[1] // 8
    lines = readouts(wide[..., cut:], mask, center_sample=SHAPE[1] - cut)
    write("a.h5", header(2 * SHAPE[1], SHAPE[1]), lines)
    found = arrays.pick(Path("a.h5"), "kspace")
    wide[..., :cut] = 0
    np.testing.assert_allclose(found, wide * mask[:, None], atol=1e-6)
    assert "partial readouts keep their oversampling" in caplog.text
    whole = readouts(wide, mask, discard_pre=cut, discard_post=3)
    write("b.h5", header(2 * SHAPE[1], 2 * SHAPE[1]), whole)
    wide[..., -3:] = 0
    found = arrays.pick(Path("b.h5"), "kspace")
    np.testing.assert_allclose(found, wide * mask[:, None], atol=1e-6)


def test_averages_are_averaged_and_other_readouts_left_out(caplog):
    values, mask = centred(coil_images(1)), row_mask()
    lines = readouts(values - 1, mask) + readouts(values + 1, mask, average=1)
    noise = readout(np.ones((3, 17)), 0, flag=NOISE)
    write("a.h5", header(SHAPE[1], SHAPE[1]), [noise, *lines])
    found = arrays.pick(Path("a.h5"), "kspace")
    np.testing.assert_allclose(found, values * mask[:, None], atol=1e-6)
    assert "1 readouts of noise" in caplog.text


@pytest.mark.parametrize(("mode", "count"), [("embedded", 12), ("separate", 11)])
def test_calibration_lines_count_if_they_are_rows_of_the_image(mode, count):
    values, mask = centred(coil_images(1)), row_mask(0.25)
    lines = readouts(values, mask)
    lines[3].setFlag(CALIBRATION)
    write("a.h5", header(SHAPE[1], SHAPE[1], mode=mode), lines)
    found = arrays.pick(Path("a.h5"), "kspace")
    assert (found != 0).any(axis=(0, 1, 3)).sum() == count == len(lines) - (mode == "separate")


def test_a_scan_is_reconstructed_as_a_volume():
    nibabel = pytest.importorskip("nibabel", reason="needs the extra mri")
    images, mask = coil_images(), row_mask()
    wide = 20 * centred(oversampled(images))
    write("scan.h5", header(2 * SHAPE[1], SHAPE[1]), readouts(wide, mask))
    facts = json.loads(run("inspect", "scan.h5", "--json").stdout)["kspace"]
    assert facts["axes"] == "2 slices × 3 coils × 48 rows × 40 columns"
    assert facts["sampled"] == "rows"
    run("reconstruct", "scan.h5", "--model", "tv:iterations=20", "-o", "scan.nii.gz")
    made = nibabel.load("scan.nii.gz")
    np.testing.assert_allclose(made.affine, np.diag([2, 1.5, 7, 1]))
    slices = np.asarray(made.dataobj).transpose(2, 1, 0)[:, ::-1]
    for found, truth in zip(slices, np.abs(volume()), strict=True):
        assert error(found, truth) < 0.08


def many_contrasts(values, mask):
    return header(SHAPE[1], SHAPE[1]), [
        *readouts(values, mask),
        *readouts(values, mask, contrast=1),
    ]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda v, m: (header(40, 40, "radial"), readouts(v, m)), "only Cartesian"),
        (lambda v, m: (header(40, 40, depth=16), readouts(v, m)), "3-D k-space"),
        (lambda v, m: (header(40, 40), readouts(v, m, kspace_encode_step_2=3)), "3-D k-space"),
        (lambda v, m: (header(40, 40), readouts(v, m, flag=REVERSE)), "EPI"),
        (lambda v, m: (header(40, 40), readouts(v, m, flag=NOISE)), "no readout of an image"),
        (many_contrasts, "2 values of `contrast`"),
        (lambda v, m: (header(32, 32), readouts(v, m)), "outside of the encoded matrix"),
        (lambda v, m: (header(40, 40), readouts(v, m, center_sample=7)), "outside of the encoded"),
        (
            lambda v, m: (header(40, 40), [*readouts(v, m), readout(v[0, :1, 0], 0)]),
            "the coils disagree",
        ),
        (lambda v, m: (b"<ismrmrdHeader>", readouts(v, m)), "XML header of ISMRMRD is damaged"),
        (lambda v, m: (b"<ismrmrdHeader/>", readouts(v, m)), "describes no encoding"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_said(made, message):
    write("a.h5", *made(centred(coil_images(1)), row_mask()))
    with pytest.raises(InputError, match=message):
        arrays.read(Path("a.h5"))


def test_a_hostile_size_is_not_allocated():
    values = centred(coil_images(1))
    xml = header(40, 40).replace(b">40<", b">4000000<")
    write("a.h5", xml, readouts(values, row_mask()))
    with pytest.raises(InputError, match="would expand"):
        arrays.read(Path("a.h5"))


def test_other_hdf5_files_with_these_names_are_no_scans():
    with h5py.File("a.h5", "w") as file:
        file["other/xml"], file["other/data"] = [1.0], np.arange(3.0)
    with pytest.raises(InputError, match="layout of ISMRMRD"):
        arrays.read(Path("a.h5"))
    with h5py.File("b.h5", "w") as file:
        file["data"], file["xml"] = np.arange(3.0), [2.0]
    assert set(arrays.read(Path("b.h5"))) == {"data", "xml"}
