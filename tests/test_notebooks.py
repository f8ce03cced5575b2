"""The notebooks in docs/ run from top to bottom, and were executed when they were written."""

import json

import matplotlib as mpl
import pytest
from matplotlib import pyplot

from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, monkeypatch):
    monkeypatch.setattr(pyplot, "show", lambda: None)
    mpl.use("Agg")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert any(cell["outputs"] for cell in code)
    names: dict[str, object] = {}
    for cell in code:
        exec("".join(cell["source"]), names)
    assert pyplot.get_fignums()
    pyplot.close("all")


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["quickstart", "your_own_measurements"]
