"""Fixtures of the fault tests."""

from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import scene
from tests.test_cli import run


@pytest.fixture
def picture():
    Image.fromarray(scene()).save("img.png")
    return Path("img.png")


@pytest.fixture
def y(picture):
    run("sample", picture, "--ratio", 0.25, "--block", 16)
    return Path("y.npy")
