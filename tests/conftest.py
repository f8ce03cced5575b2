"""Fixtures: the shared reference folder where there is one, and images made from formulas."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("CSRECON_SHARED", ROOT.parent / "shared"))

torch.set_num_threads(min(2, torch.get_num_threads()))


def shared(*parts: str) -> Path:
    """A file of the shared reference folder; skips the test where it is not there."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {Path(*parts)} of the reference folder (set CSRECON_SHARED)")
    return path


def scene(height: int = 50, width: int = 70) -> np.ndarray:
    """A colourful uint8 image (H, W, 3) with smooth parts and edges."""
    row, column = np.mgrid[:height, :width]
    red = 120 + 90 * np.sin(row / 6)
    green = 120 + 90 * np.cos(column / 9)
    blue = 60 + 120 * ((row // 8 + column // 8) % 2)
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "img.png"
    Image.fromarray(scene()).save(path)
    return path


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads the user's cache or data, and relative outputs land in its own folder."""
    monkeypatch.setenv("CSRECON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CSRECON_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
