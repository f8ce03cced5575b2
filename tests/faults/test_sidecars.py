"""Faults of measurement files whose sidecar or y is hostile, damaged, or of another program."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csrecon.sensing.operators import make
from tests.conftest import scene
from tests.faults.checks import contents, refused
from tests.test_cli import run

FAST = ["--model", "fista:iterations=3", "-o", "x.npy"]


def edit(change, name="y.json"):
    content = json.loads(Path(name).read_text())
    change(content)
    Path(name).write_text(json.dumps(content))


def replaced(y):
    """Save another y, with its shape and digest in the sidecar."""
    np.save("y.npy", y)
    digest = hashlib.sha256(np.ascontiguousarray(y, dtype="<f4").tobytes()).hexdigest()
    edit(lambda c: c["arrays"]["y"].update(shape=list(y.shape), sha256=digest))


def everywhere(code, message):
    refused(code, "reconstruct", "y.npy", *FAST, message=message)
    refused(code, "inspect", "y.npy", message=message)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ([[row, column] for row in range(4) for column in range(5)], "all blocks are missing"),
        ([[0, 1], [0, 1]], "listed twice"),
        ([[0, 1]] * 200_000, "listed twice"),
        ([[9, 0]], "missing block 9,0 lies outside"),
        ([[0, 2**70]], "lies outside"),
    ],
)
def test_f64(y, missing, message):
    """A sidecar in which all blocks are missing, or one is listed twice
    exit 3; which"""
    assert json.loads(Path("y.json").read_text())["image"] == {
        "height": 50,
        "width": 70,
        "color": "gray",
        "bit_depth": 8,
    }  # 4×5 blocks of 16×16
    edit(lambda c: c["operator"].update(missing=missing))
    everywhere(3, message)


def block(side, m, height, width, kind="hadamard"):
    def change(content):
        content["image"].update(height=height, width=width)
        content["operator"].update(m=m, n=side**2, block=[side, side])
        content["operator"]["phi"].update(kind=kind)

    return change


@pytest.mark.parametrize(
    ("change", "shape", "message"),
    [
        (block(4096, 1, 9, 9), (1, 1, 1, 1), "1 values for 16777216 pixels"),
        (
            block(2048, 64, 2000, 2000, "gaussian"),
            (1, 1, 1, 64),
            "a dense Φ of shape (64, 4194304)",
        ),
        (block(2048, 64, 9, 9), (1, 5, 64), "has shape (C, 1, 1, 64)"),
        (block(1024, 4096, 9, 9), (1, 1, 1, 4), "has shape (C, 1, 1, 4096)"),
        (block(16, 1, 10**9, 10**9), (1, 1, 1, 1), "has shape (C, 62500000, 62500000, 1)"),
    ],
)
def test_f65(y, change, shape, message):
    """A measurement of a few values whose sidecar promises a huge Φ, mask or image
    exit 3 before any of them is made"""
    edit(change)
    replaced(np.ones(shape, np.float32))
    assert sum(map(len, (Path("y.npy").read_bytes(), Path("y.json").read_bytes()))) < 2500
    everywhere(3, message)


def test_f72_a_mask(picture):
    run("sample", picture, "--ratio", 0.25, "--kind", "fourier")
    edit(lambda c: c["image"].update(height=20000, width=20000))
    edit(lambda c: c["operator"]["mask"].update(count=3))
    replaced(np.ones((1, 3, 2), np.float32))
    everywhere(3, "6 values for 400000000 pixels")


def test_f72_what_is_sampled_can_be_read(picture, monkeypatch):
    """The same bound holds for options, so that no file is written that is refused later."""
    options = ["--m", 1, "--block", 4096, "--kind", "hadamard"]
    refused(3, "sample", picture, *options, message="1 values for 16777216 pixels")
    refused(3, "sample", picture, "--m", 64, "--block", 2048, message="too large")
    Image.fromarray(scene(33, 33)).save("one.png")
    run("sample", "one.png", "--m", 1, "--block", 512, "-o", "one.npy")
    run("inspect", "one.npy")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("image", "height"), "1e400"),
        (("image", "height"), "true"),
        (("image", "width"), "70.0"),
        (("image", "width"), "1" + 400 * "0"),
        (("image", "height"), "-0"),
        (("operator", "m"), "NaN"),
        (("operator", "kind"), "[]"),
        (("operator", "block"), "[true, 256]"),
        (("operator", "phi", "seed"), "1e3"),
        (("operator", "phi", "fingerprint"), "[" + ", ".join(["1e999"] * 16) + "]"),
        (("scale",), "1e999"),
        (("noise",), '{"sigma": 1e300}'),
        (("noise",), '{"sigma": true}'),
        (("written_by",), "[" * 5000 + "]" * 5000),
        (("version",), "9" * 5000),
    ],
)
def test_f69(y, path, text):
    """Numbers in a sidecar that are none of csrecon's: 1e400, true, 70.0, a σ of 1e300, deep nests
    exit 3; which field"""

    def change(content):
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = "here"

    edit(change)
    Path("y.json").write_text(Path("y.json").read_text().replace('"here"', text))
    everywhere(3, "y.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y + 0j, "complex values"),
        (lambda y: y.astype("U8"), "type <U8"),
        (lambda y: y[:0], "shape (0, 4, 5, 64)"),
        (lambda y: y[0, 0, 0, 0], "shape ()"),
        (lambda y: y * np.float64(1e60), "float32 holds"),
        (lambda y: np.concatenate([y, y]), "2 planes for a gray image"),
    ],
)
def test_f70(y, change, message):
    """A y of complex numbers, texts, no planes, or values beyond float32
    exit 3; what it is"""
    given = change(np.load(y))
    if len(given.shape) and given.size and given.dtype == np.float32:
        replaced(given)
    np.save(y, given)
    everywhere(3, message)


def test_a_phi_from_a_seed_is_not_made_before_y_is_compared(y, monkeypatch):
    make.cache_clear()
    monkeypatch.setattr("csrecon.sensing.operators.block.make", None)
    edit(lambda c: c["image"].update(height=90))
    before = contents()
    everywhere(3, "has shape (C, 6, 5, 64)")
    assert contents() == before


def test_a_solver_in_half_precision(y):
    """A DCT is no convolution: FISTA in bf16 is FISTA in fp32."""
    for precision in ("bf16", "fp32"):
        words = ["--model", "fista:iterations=20", "--precision", precision]
        run("reconstruct", y, *words, "-o", f"{precision}.npy")
    np.testing.assert_allclose(np.load("bf16.npy"), np.load("fp32.npy"), atol=1e-6)
