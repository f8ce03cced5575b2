"""Several processes of torchrun share a batch: nothing twice, nothing left out, one report."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

import csrecon
from csrecon.sensing import native
from tests.conftest import scene, together


@pytest.mark.slow
def test_reconstruct_shares_a_folder():
    Path("measured").mkdir()
    for index in range(3):
        m = csrecon.sample(scene(40 + index, 50), ratio=0.2)
        native.save(m, Path(f"measured/{index}.npy"))
    Path("measured/bad.npy").write_bytes(b"not an array")
    done = together("reconstruct", "measured", "-o", "images", "--ipl", "1", "--json")
    assert done.returncode != 0
    assert "1 of 4 files failed (bad.npy)" in done.stderr
    results = json.loads(done.stdout)
    assert [Path(r["measurement"]).name for r in results] == ["0.npy", "1.npy", "2.npy"]
    assert [r["height"] for r in results] == [40, 41, 42]
    assert sorted(path.name for path in Path("images").iterdir()) == ["0.png", "1.png", "2.png"]


@pytest.mark.slow
def test_bench_shares_a_set():
    Path("few").mkdir()
    for index in range(3):
        Image.fromarray(scene(40 + index, 50)).save(f"few/{index}.png")
    asked = ["bench", "--dataset", "few", "--model", "tv", "--ratio", "0.1,0.5", "--json"]
    done = together(*asked, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    shared = json.loads(done.stdout)
    journal = Path(os.environ["CSRECON_CACHE"]) / "bench" / "rows.jsonl"
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 6
    assert len(shared["rows"]) == 6
    assert [row["image"] for row in shared["rows"][:3]] == ["0.png", "1.png", "2.png"]
