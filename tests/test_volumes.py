"""NIfTI volumes as images to sample from."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from csrecon.errors import InputError
from csrecon.io import volumes
from csrecon.sensing import native
from tests.test_cli import run

nibabel = pytest.importorskip("nibabel", reason="needs the extra mri")


def write(path, values, affine=None):
    image = nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine)
    nibabel.save(image, path)


@pytest.fixture
def values():
    """x, y, z: the brightest voxel is behind, right and on top."""
    made = np.random.default_rng(0).integers(0, 200, (12, 16, 5)).astype(np.int16)
    made[11, 0, 4] = 250
    return made


def test_slices_are_axial_with_anterior_upwards(values):
    write("a.nii.gz", values)
    read = volumes.read(Path("a.nii.gz"))
    assert read.shape == (5, 16, 12)
    assert read[4, 15, 11] == 1
    flipped = np.diag([1, -1, 1, 1])
    write("b.nii", values[:, ::-1], flipped)
    np.testing.assert_array_equal(volumes.read(Path("b.nii")), read)


def test_every_slice_is_sampled(values):
    write("head.nii.gz", values)
    asked = ("sample", "head.nii.gz", "--kind", "fourier", "--ratio", 0.5)
    run(*asked, "--slices", "1:5:3", "-o", "out/", "--coils", 2, "--phase")
    made = sorted(path.name for path in Path("out").glob("*.npy"))
    assert made == ["head_001.npy", "head_004.npy"]
    m = native.load(Path("out/head_004.npy"))
    assert m.operator.domain == (2, 16, 12)
    run(*asked, "--ratio", 1.0, "--slices", 3, "-o", "one/")
    whole = native.load(Path("one/head_003.npy"))
    x = whole.operator.adjoint(whole.y)[0, 0].numpy()
    np.testing.assert_allclose(x, volumes.read(Path("head.nii.gz"))[3], atol=1e-5)
    for slices, message in (("7", "slices 0 to 4"), ("a:b", "FIRST:END"), ("1:2:3:4", "FIRST:END")):
        assert message in run(*asked, "--slices", slices, "-o", "no/", code=2).stderr


def test_volumes_that_cannot_be(values):
    Path("text.nii").write_text("no volume")
    Path("cut.nii.gz").write_bytes(gzip.compress(values.tobytes())[:300])
    write("four.nii", np.stack([values, values], axis=-1))
    write("negative.nii", values - 100)
    for name in ("text.nii", "cut.nii.gz", "four.nii", "negative.nii", "none.nii"):
        with pytest.raises(InputError):
            volumes.read(Path(name))
