"""The training queue runs unattended, goes on where it was, and reports what failed."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from csrecon.training.recipe import recipe

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "training" / "run_queue.py"


@pytest.fixture
def queue(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(noise).save(photos / "noise.png")
    tiny = {"data": [str(photos)], "patch": 16, "batch": 1, "scales": [1]}
    entries = [
        {"name": "broken", "model": "rista", "recipe": "refine", "settings": {"patch": "wide"}},
        {"name": "small", "model": "rista", "recipe": "refine", "settings": tiny},
        {"name": "more", "model": "rista", "recipe": "refine", "settings": tiny, "after": "small"},
    ]
    path = tmp_path / "queue.yaml"
    path.write_text(yaml.safe_dump(entries))
    return path


def run(queue, *options):
    command = [sys.executable, SCRIPT, "--queue", queue, "--out", queue.parent / "out"]
    return subprocess.run(
        [*map(str, command), "--budget", "2s", "--threads", "1", "--device", "cpu", *options],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_queue_trains_reports_and_goes_on(queue):
    done = run(queue)
    assert done.returncode == 6, done.stderr
    out = queue.parent / "out"
    broken, small, more = json.loads((out / "report.json").read_text())
    assert [one["state"] for one in (broken, small, more)] == ["failed", "done", "done"]
    begun = json.loads((out / "more" / "recipe.json").read_text())["init"]
    assert begun == str(out / "small" / "weights.safetensors")
    assert small["steps"] > 0
    assert (out / "small" / "weights.safetensors").stat().st_size < 16 * 2**20
    assert "small | done" in (out / "report.md").read_text()
    kept = (out / "small" / "checkpoint.pt").stat().st_mtime_ns
    again = run(queue)
    assert again.returncode == 6
    assert "small:" not in again.stderr  # finished: not trained again
    assert "broken:" in again.stderr
    assert (out / "small" / "checkpoint.pt").stat().st_mtime_ns == kept


def test_an_unknown_entry_is_refused(queue):
    done = run(queue, "--only", "smal")
    assert done.returncode == 2
    assert "no such entry" in done.stderr


def test_every_entry_of_the_queue_has_its_recipe():
    entries = yaml.safe_load((ROOT / "training" / "queue.yaml").read_text())
    for entry in entries:
        plan = recipe(entry["model"], entry.get("recipe"))
        settings = {name: json.dumps(value) for name, value in entry.get("settings", {}).items()}
        assert plan.changed(settings).model == entry["model"]
