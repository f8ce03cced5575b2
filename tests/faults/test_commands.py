"""Faults of options, devices, disks and batches."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csrecon.io import files
from csrecon.reconstructors.nets.coast import CoastBlock
from csrecon.sensing import native as saved
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run

RCOAST = ("--model", "rcoast")


def test_f24(picture):
    """A ratio outside (0, 1]
    exit 2"""
    for ratio in ("0", "1.5", "nan"):
        refused(2, "sample", picture, "--ratio", ratio, message="ratio")


def test_f25(y):
    """An IPL that the model does not allow
    exit 2; what it allows"""
    refused(2, "reconstruct", y, "--ipl", 99, message="1..24")
    refused(2, "reconstruct", y, *RCOAST, "--ipl", "4,4", message="5 layers")


def test_f26(y):
    """A device that is unavailable
    exit 5; what PyTorch finds"""
    refused(5, "reconstruct", y, "--device", "cuda:7", message="cuda:7")


def test_f27(y, picture):
    """Options that contradict each other
    exit 2; which"""
    refused(2, "reconstruct", y, "--shape", "9x9", "--seed", 1, message="own metadata")
    refused(2, "sample", picture, "--ratio", 0.1, "--m", 3, "-o", "b.npy", message="give either")


def test_f28(y, monkeypatch):
    """A device that is out of memory
    smaller tiles and a warning; the same image"""
    run("reconstruct", y, "-o", "a.npy", *RCOAST, "--ipl", 1)
    original = CoastBlock.prox

    def starved(self, state, gradient, gain):
        if gradient[0].numel() > 100 * 85:
            raise torch.OutOfMemoryError("planted")
        return original(self, state, gradient, gain)

    Image.fromarray(scene(150, 160)).save("large.png")
    run("sample", "large.png", "--ratio", 0.25, "-o", "large.npy")
    run("reconstruct", "large.npy", "-o", "whole.npy", *RCOAST, "--ipl", 1)
    monkeypatch.setattr(CoastBlock, "prox", starved)
    result = run("reconstruct", "large.npy", "-o", "tiled.npy", *RCOAST, "--ipl", 1)
    assert "out of memory: continuing" in result.stderr
    np.testing.assert_allclose(np.load("tiled.npy"), np.load("whole.npy"), atol=2e-5)


def test_f29(y, monkeypatch):
    """Half precision that overflows
    repeated in fp32, with a warning"""
    run("reconstruct", y, "-o", "a.npy", *RCOAST, "--ipl", 1, "--precision", "fp32")
    original = CoastBlock.prox

    def narrow(self, state, gradient, gain):
        made, penalty = original(self, state, gradient, gain)
        overflows = torch.is_autocast_enabled("cpu")
        return (made.map(lambda t: t + torch.inf) if overflows else made), penalty

    monkeypatch.setattr(CoastBlock, "prox", narrow)
    result = run("reconstruct", y, "-o", "b.npy", *RCOAST, "--ipl", 1, "--precision", "bf16")
    assert "bf16 overflowed" in result.stderr
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))


def test_f30(picture, monkeypatch):
    """A disk that is full while an output is written
    exit 5; no partial file"""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_npy", full)
    refused(5, "sample", picture, "--ratio", 0.1, message="the disk is full")


def test_f31(picture, monkeypatch):
    """A folder that cannot be written
    exit 5; choose another"""

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_npy", forbidden)
    refused(5, "sample", picture, "--ratio", 0.1, message="no permission")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f39(number, code):
    """SIGINT or SIGTERM in a batch (in training: tests/training)
    exit 130 or 143; complete files only"""
    Path("photos").mkdir()
    for index in range(40):
        Image.fromarray(scene(200, 200)).save(f"photos/{index}.png")
    command = [sys.executable, "-m", "csrecon", "sample", "photos", "--ratio", "0.5", "-o", "out"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(Path("out").glob("*.json")) if Path("out").is_dir() else True:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == code
    made = {path.name for path in Path("out").iterdir()}
    assert not any(name.startswith(".") for name in made)
    for name in (name for name in made if name.endswith(".npy")):
        saved.load(Path("out") / name)


def test_f40(y, picture):
    """One bad file in a batch, or an output that exists
    the other files are done, exit 6; an existing file is kept, exit 2"""
    Path("photos").mkdir()
    Image.fromarray(scene()).save("photos/good.png")
    Path("photos/bad.png").write_text("hello")
    result = run("sample", "photos", "--ratio", 0.5, "-o", "out", code=6)
    assert "1 of 2 files failed (bad.png)" in result.stderr
    assert {path.name for path in Path("out").iterdir()} == {"good.npy", "good.json"}
    refused(2, "sample", picture, "--ratio", 0.1, message="--overwrite")
