"""Files that no output replaces, with --overwrite or not, and what it keeps of one it replaces."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import scene
from tests.faults.checks import contents, refused
from tests.test_cli import run

FAST = ["--model", "fista:iterations=2"]
SAMPLE = ["sample", "img.png", "--ratio", 0.25, "--block", 16]


def mode(name):
    return stat.S_IMODE(Path(name).stat().st_mode)


def test_f116(y):
    """A report, or a y.NPY, that would replace the y.json of y.npy, with --overwrite
    exit 2; a measurement keeps its description"""
    Path("photos").mkdir()
    Image.fromarray(scene(32, 32)).save("photos/a.png")
    bench = ["bench", "--dataset", "photos", *FAST, "--ratio", 0.25, "-o", "y.json"]
    refused(2, *bench, "--overwrite", message="describes a measurement")
    refused(2, *SAMPLE, "-o", "y.NPY", "--overwrite", message="y.npy is beside it")
    run("reconstruct", y, *FAST)
    Path("y.json").unlink()
    refused(2, *SAMPLE, "-o", "y.NpY", message="y.npy is beside it")
    Path("y.json").write_text("{}")
    run(*bench, "--overwrite")


@pytest.mark.parametrize("protected", ["y.npy", "y.json"])
def test_f117(y, protected):
    """A write-protected file in place of an output, with --overwrite
    exit 2; it is kept"""
    Path(protected).chmod(0o444)
    refused(2, *SAMPLE, "--overwrite", message=f"{protected}: is write-protected")
    run("reconstruct", y, *FAST)
    Path("y.png").chmod(0o400)
    refused(2, "reconstruct", y, *FAST, "--overwrite", message="y.png: is write-protected")
    refused(2, "compare", "img.png", *FAST, "-o", "y.png", "--overwrite", message="-protected")
    Path("y.png").chmod(0o600)
    run("reconstruct", y, *FAST, "--overwrite")


@pytest.mark.parametrize("packed", ["y.npy", "y.npz"])
def test_a_file_that_replaces_another_has_its_permissions(picture, packed):
    run(*SAMPLE, "-o", packed)
    run("reconstruct", packed, *FAST)
    for name, kept in ((packed, 0o600), ("y.png", 0o640)):
        Path(name).chmod(kept)
    run(*SAMPLE, "-o", packed, "--overwrite", "--seed", 1)
    run("reconstruct", packed, *FAST, "--overwrite")
    assert (mode(packed), mode("y.png")) == (0o600, 0o640)


def test_a_pipe_is_no_output(y):
    os.mkfifo("pipe.png")
    refused(2, "reconstruct", y, *FAST, "-o", "pipe.png", "--overwrite", message="or a pipe")
    assert Path("pipe.png").is_fifo()


def test_a_symbolic_link_is_replaced_and_never_written_through(y):
    np.save("precious.npy", np.arange(3.0))
    Path("precious.npy").chmod(0o444)
    Path("link.npy").symlink_to("precious.npy")
    before = contents()[Path("precious.npy")]
    run("reconstruct", y, *FAST, "-o", "link.npy", "--overwrite")
    assert not Path("link.npy").is_symlink()
    assert contents()[Path("precious.npy")] == before


def test_f125(picture):
    """An original, or bare values, under the name that an output has by default, with --overwrite
    exit 2; they are kept, unless -o gives the name"""
    Path("photos").mkdir()
    Image.open(picture).save("photos/a.png")
    run("sample", "photos", "--ratio", 0.25, "--block", 16, "-o", "photos")
    again = ["reconstruct", "photos/a.npy", *FAST, "--overwrite"]
    refused(2, *again, message="is it the original?")
    refused(2, *again, "-o", "photos", message="is it the original?")
    refused(2, "reconstruct", "photos", *FAST, "--overwrite", message="is it the original?")
    run(*again, "-o", "photos/b.png")
    Path("photos/a.npy").rename("photos/b.npy")
    Path("photos/a.json").rename("photos/b.json")
    run("reconstruct", "photos/b.npy", *FAST, "--overwrite")
    run("reconstruct", "photos/b.npy", *FAST, "--overwrite", "-o", "photos/a.png")


@pytest.mark.parametrize("levels", [np.uint8, np.uint16])
def test_an_image_of_csrecon_is_replaced(levels):
    np.save("img.npy", scene().astype(levels) * (1 if levels is np.uint8 else 257))
    run("sample", "img.npy", "--ratio", 0.25, "--block", 16, "--color", "rgb", "-o", "m.npy")
    for _ in range(2):
        run("reconstruct", "m.npy", *FAST, "--overwrite")


def test_f125_bare_values(picture):
    """`y.npy` of a laboratory where `sample` writes y.npy by default."""
    np.save("y.npy", np.ones((20, 64)))
    plain = SAMPLE[:-2]
    refused(2, *plain, "--overwrite", message="holds values that csrecon has not written")
    np.savez("y.npz", dark=np.ones(4))
    refused(2, *plain, "--pack", "npz", "--overwrite", message="not written")
    Path("y.npz").write_bytes(b"damaged")
    refused(2, *plain, "--pack", "npz", "--overwrite", message="not written")
    np.save("phi.npy", np.eye(64, 256))
    lab = ["import", "y.npy", "--phi", "phi.npy", "--shape", "64x80"]
    refused(2, *lab, "--overwrite", message="not written")
    Path("y.npz").unlink()
    for _ in range(2):
        run(*lab, "--overwrite")
    run(*plain, "--overwrite", "-o", "y.npy")
    for _ in range(2):
        run(*plain, "--overwrite")
