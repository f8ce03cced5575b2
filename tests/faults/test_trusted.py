"""Faults of the commands that judge a result, adapt a network and fit Φ."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csrecon.sensing.operators import Phi
from tests.conftest import scene
from tests.faults.checks import contents, refused
from tests.test_cli import run

FAST = ("--model", "rista", "--ipl", "1")


@pytest.fixture(autouse=True)
def photo():
    """img.png of 66×99 pixels, and y.npy, its measurement at 30 %."""
    Image.fromarray(scene(66, 99)).convert("L").save("img.png")
    run("sample", "img.png", "--ratio", 0.3, "-o", "y.npy")


def test_f136():
    """A check of a measurement with too few rows to hold any out
    exit 2; how many there are"""
    run("sample", "img.png", "--m", 1, "-o", "one.npy")
    refused(2, "reconstruct", "one.npy", *FAST, "--check", message="too few to hold any out")


def test_f137():
    """Values that a reconstruction does not predict: another Φ, order or scale
    a warning; `inspect` tries the orders"""
    np.save("lab.npy", np.load("y.npy")[0].reshape(6, -1))
    np.save("phi.npy", Phi.make(327, 1089, 99).matrix)
    lab = ("lab.npy", "--phi", "phi.npy", "--shape", "66x99")
    assert "do not fit this Φ" in run("reconstruct", *lab, *FAST, "--check").stderr


def test_f138():
    """A map of the uncertainty under the name of another output, or of several measurements
    exit 2 before any work"""
    words = ("reconstruct", "y.npy", *FAST, "--uncertainty")
    refused(2, *words, "y.tif", "-o", "y.tif", message="would have one name")
    Path("other.npy").write_bytes(Path("y.npy").read_bytes())
    Path("other.json").write_bytes(Path("y.json").read_bytes())
    refused(2, *words[:2], "other.npy", *words[2:], "s.tif", message="one measurement")


def test_f139():
    """An adaptation that gains nothing on values that were held out
    exit 7; no weights are written"""
    before = contents()
    words = ("adapt", "y.npy", "--model", "rista", "--steps", 1, "--precision", "fp32")
    words = (*words, "-o", "mine.safetensors")
    assert "Nothing was written" in run(*words, code=7).stderr
    assert contents() == before


def test_f140():
    """Measurements of different blocks, of no blocks or with NaN, to adapt to
    exit 2 or 3; which"""
    run("sample", "img.png", "--ratio", 0.3, "--block", 16, "-o", "small.npy")
    run("sample", "img.png", "--kind", "fourier", "--ratio", 0.3, "-o", "k.npy")
    words = ("--model", "rista", "--steps", 1, "-o", "mine.safetensors")
    refused(2, "adapt", "y.npy", "small.npy", *words, message="33×33")
    refused(2, "adapt", "k.npy", *words, message="block sampling only")
    y = np.load("y.npy")
    y[0, 0, 0] = np.nan
    np.save("nan.npy", y)
    Path("nan.json").write_bytes(Path("y.json").read_bytes())
    refused(3, "adapt", "nan.npy", *words, message="NaN")


def test_f141():
    """Known images that are constant, of another size, or measured with different Φ
    exit 3; nothing is fitted"""
    words = ("calibrate", "pairs", "-o", "phi.npy")
    Path("pairs").mkdir()
    Image.fromarray(np.full((66, 99), 90, np.uint8)).save("pairs/a.png")
    run("sample", "pairs/a.png", "--ratio", 0.3, "-o", "pairs/a.npy")
    refused(3, *words, message="constant")
    run("sample", "img.png", "--ratio", 0.3, "--seed", 7, "-o", "pairs/img.npy")
    Path("pairs/img.png").write_bytes(Path("img.png").read_bytes())
    refused(3, *words, message="another Φ than the first")
    for name in ("a.npy", "a.json", "a.png"):
        Path("pairs", name).unlink()
    Image.fromarray(scene(66, 90)).save("pairs/img.png")
    refused(3, *words, message="Is it of this image?")


def test_f142():
    """A Φ that was fitted since, for a measurement that records another
    exit 3, unless --replace-phi says so"""
    np.save("fitted.npy", 1.05 * Phi.make(327, 1089, 0).matrix)
    words = ("reconstruct", "y.npy", "--phi", "fitted.npy", *FAST)
    refused(3, *words, message="--replace-phi")
    run(*words, "--replace-phi")
    assert Path("y.png").exists()


def test_f143():
    """Options for lab measurements that `inspect` does not need for a file of csrecon
    exit 2; the file has its order and units"""
    refused(2, "inspect", "y.npy", "--pixel-order", "F", message="only --phi")
