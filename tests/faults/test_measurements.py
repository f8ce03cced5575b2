"""Faults of measurements and lab files."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import csrecon
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run

LAB = ["--phi", "phi.npy", "--shape", "32x32"]


@pytest.fixture
def lab():
    """A Φ of 40 rows for blocks of 16×16, and what it measures of four blocks."""
    phi = np.random.Generator(np.random.PCG64(1)).normal(size=(40, 256)).astype(np.float32)
    np.save("phi.npy", phi)
    m = csrecon.sample(scene(32, 32)[..., 0], phi=phi)
    values = m.y.reshape(4, 40).numpy()
    np.save("lab.npy", values)
    return phi, values


def test_f11(lab):
    """NaN or infinite values
    exit 3; how many"""
    values = lab[1].copy()
    values[0, 3] = np.nan
    values[1, 1] = np.inf
    np.save("lab.npy", values)
    refused(3, "reconstruct", "lab.npy", *LAB, message="2 of 160 values are NaN or infinite")


def test_f12(lab):
    """Values of another shape than Φ's
    exit 3; both shapes"""
    np.save("lab.npy", lab[1][:, :39])
    refused(3, "reconstruct", "lab.npy", *LAB, message="(4, 39)")


def test_f13():
    """A layout that the shape does not determine
    exit 2; say --layout"""
    np.save("phi.npy", np.eye(4, 256))
    np.savetxt("lab.csv", np.ones((4, 4)), delimiter=",")
    refused(2, "reconstruct", "lab.csv", *LAB, message="say --layout")


def test_f14(y, lab):
    """A Φ that is not the one of the measurement
    exit 3; both digests"""
    np.save("other.npy", np.eye(64, 256))
    refused(3, "reconstruct", y, "--phi", "other.npy", message="wrong Φ")


def test_f15(lab):
    """Rows of Φ that are not orthonormal
    orthonormalized, with y; the same image"""
    phi, values = lab
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "a.npy")
    u, s, vt = np.linalg.svd(phi.astype(np.float64), full_matrices=False)
    np.save("phi.npy", vt)
    np.save("lab.npy", values @ u / s)
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "b.npy")
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=1e-3)


def test_f16(lab):
    """A Φ with linearly dependent rows
    reduced to its rank; a note says so"""
    phi, values = lab
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "a.npy")
    np.save("phi.npy", np.concatenate([phi, phi[:5]]))
    np.save("lab.npy", np.concatenate([values, values[:, :5]], axis=1))
    result = run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "b.npy")
    assert "rank 40 of 45" in result.stderr
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=1e-3)


def test_f17(y):
    """A sidecar of another y
    exit 3; one of the two is stale"""
    np.save(y, np.load(y) * np.float32(1.01))
    refused(3, "reconstruct", y, message="stale")


def test_f18(lab):
    """Values with a scale of 0..255
    exit 3; divide, or give --gain"""
    np.save("lab.npy", 255 * lab[1])
    refused(3, "reconstruct", "lab.npy", *LAB, message="--gain auto")
    run("reconstruct", "lab.npy", *LAB, "--gain", 255)


def test_f19(lab):
    """Integers of an analogue-to-digital converter
    used as numbers"""
    np.save("lab.npy", np.round(1000 * lab[1]).astype(np.int32))
    run("reconstruct", "lab.npy", *LAB, "--gain", 1000, "-o", "a.npy")
    np.save("lab.npy", lab[1])
    run("reconstruct", "lab.npy", *LAB, "-o", "b.npy")
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=0.01)


def test_f20():
    """Pickled objects among the values
    exit 3; never loaded"""
    np.save("lab.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(3, "reconstruct", "lab.npy", "--seed", 0, "--shape", "32x32", message="pickled")


def test_f21(lab):
    """A header that promises more than the file holds
    exit 3; truncated or damaged"""
    whole = Path("lab.npy").read_bytes()
    Path("lab.npy").write_bytes(whole[:-40])
    refused(3, "reconstruct", "lab.npy", *LAB, message="promises")


def test_f22(lab):
    """A zip or HDF5 file that expands without limit
    exit 3 before memory is allocated"""
    with h5py.File("bomb.h5", "w") as file:
        file.create_dataset("y", (2**20, 2**18), "f8", chunks=(1024, 1024), compression="gzip")
    refused(3, "reconstruct", "bomb.h5", *LAB, message="would expand")
    with (
        zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("y.npy", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    refused(3, "reconstruct", "bomb.npz", message="would expand")


def test_f23(lab):
    """An HDF5 file with a link to another file
    the link is not followed; a warning names it"""
    with h5py.File("secret.h5", "w") as file:
        file["y"] = lab[1]
    with h5py.File("lab.h5", "w") as file:
        file["y"] = h5py.ExternalLink("secret.h5", "y")
    refused(3, "reconstruct", "lab.h5", *LAB, message="holds no array")
