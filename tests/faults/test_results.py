"""Faults of benchmarks: sets that are not whole, results of another day, and sizes without end."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from csrecon.errors import ModelError
from csrecon.evaluation import bench, report, workers
from csrecon.evaluation.cache import ResultCache
from csrecon.evaluation.rows import Row, summarize
from csrecon.io import downloads
from csrecon.runtime import execution
from csrecon.zoo import datasets
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run


@pytest.fixture
def few():
    Path("few").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(scene(40, 50 if name == "a.png" else 48)).save(Path("few") / name)
    return Path("few")


def rows(folder, results=None, ratio=0.3, **changes):
    paths = datasets.list_images(folder)
    plan = bench.Plan("few", paths, execution.Setup(torch.device("cpu")), **changes)
    return list(bench.run(["fista:iterations=3"], [ratio], [None], plan, results))


def partial(folder, count):
    """A folder with so many files of Set11, and what a download leaves beside them."""
    folder.mkdir(parents=True)
    for index, name in enumerate(sorted(datasets.remotes("set11"))):
        if index < count:
            Image.fromarray(scene(9, 9)).save(folder / name)
        (folder / f".{name}.lock").touch()
    return folder


@pytest.mark.parametrize("given", [True, False])
def test_f96(monkeypatch, given):
    """A set of images of which some files are missing
    fetched if it is in the cache; else exit 4; how many are missing"""
    place = Path("sets") if given else downloads.cache_dir() / "data"
    data_dir = Path("sets") if given else None
    partial(place / "set11", 8)
    assert not datasets.at_hand("set11", data_dir)
    with pytest.raises(ModelError, match="3 of the 11 images" if given else "not on this machine"):
        datasets.images("set11", data_dir)


def test_a_set_with_a_file_of_another(monkeypatch):
    folder = partial(Path("sets/set11"), 10)
    Image.fromarray(scene(9, 9)).save(folder / "mine.png")
    assert not datasets.at_hand("set11", Path("sets"))
    with pytest.raises(ModelError, match=r"1 of the 11 images .* missing"):
        datasets.images("set11", Path("sets"))


def test_f97(few, tmp_path):
    """A kept result of the same image under another name, ratio or seed
    its figures, with the names of today's request"""
    results = ResultCache(tmp_path / "rows.jsonl")
    first = rows(few, results)
    for path in few.iterdir():
        path.rename(path.with_name("new-" + path.name))
    same = 0.3 + 1e-6  # as many rows of Φ
    again = rows(few, results, ratio=same)
    assert [(r.image, r.ratio) for r in again] == [("new-a.png", same), ("new-b.png", same)]
    assert [r.psnr for r in again] == [r.psnr for r in first]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    assert len(summarize([*again, *rows(few, results, ratio=same)])) == 1


GOOD = {"m": 5, "psnr": 20.0, "ssim": 0.5, "seconds": 1.0, "peak_memory": None, "lpips": None}


@pytest.mark.parametrize(
    "damage",
    [
        b"\xff\n",
        b'{"key": "a", "row"',
        b"[" * 100_000 + b"\n",
        b'{"key": 5, "row": {}}\n{"key": "b", "row": []}\n7\n',
        b'{"key": "a", "row": {"m": ' + b"9" * 5000 + b"}}\n",
    ],
)
def test_f98(few, tmp_path, caplog, damage):
    """A damaged line in the result cache
    left out, with a warning; the row is computed again"""
    results = ResultCache(tmp_path / "rows.jsonl")
    first = rows(few, results)
    kept = results.path.read_bytes().splitlines(keepends=True)
    results.path.write_bytes(kept[0] + damage)
    again = ResultCache(results.path)
    assert "damaged lines are left out" in caplog.text
    assert [r.psnr for r in rows(few, again)] == [r.psnr for r in first]
    added = results.path.read_bytes().splitlines()[-1]
    assert json.loads(added)["key"] == json.loads(kept[1])["key"]


@pytest.mark.parametrize(
    "change",
    [
        {"psnr": "20"},
        {"psnr": None},
        {"m": True},
        {"seconds": [1]},
        {"lpips": "x"},
        "psnr",
        "later",
    ],
)
def test_f105_of_other_types(few, tmp_path, change):
    results = ResultCache(tmp_path / "rows.jsonl")
    first = rows(few, results)
    lines = [json.loads(line) for line in results.path.read_text().splitlines()]
    for line in lines:
        if change == "later":
            line["row"] |= {"a_field_of_a_later_release": 1}
        elif change == "psnr":
            del line["row"]["psnr"]
        else:
            line["row"] |= change
    results.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = rows(few, ResultCache(results.path))
    assert [(r.image, r.psnr, r.m) for r in again] == [(r.image, r.psnr, r.m) for r in first]


def test_f99():
    """Several seeds, and images that are recovered exactly
    an infinite mean without a standard deviation; null in JSON"""
    common = {"model": "tv", "dataset": "few", "image": "a", "ratio": 1.0, "ipl": ""}
    found = [Row(**common, **GOOD | {"psnr": float("inf")}, seed=seed) for seed in (0, 1)]
    found.append(Row(**common, **GOOD, seed=2))
    (cell,) = summarize(found)
    assert (cell.score.psnr, cell.spread) == (float("inf"), None)
    assert "inf / 0.5" in report.listing([cell]).markdown()
    plan = bench.Plan("few", [], execution.Setup(torch.device("cpu")), range(3))
    facts = json.loads(report.to_json([cell], found, report.Conditions(plan)))
    assert facts["cells"][0]["psnr"] is None
    assert asdict(cell)["spread"] is None


def test_f106_on_the_command_line(few):
    for path in few.iterdir():
        Image.new("L", (33, 33)).save(path)
    words = ["--model", "fista:iterations=3", "--ratio", 1, "--seeds", 2, "--json"]
    facts = json.loads(run("bench", "--dataset", few, *words).stdout)
    assert facts["cells"][0]["seeds"] == 2


@pytest.mark.parametrize(
    "words",
    [
        *(("--limit", value) for value in (0, -1, "x")),
        *(("--jobs", value) for value in (0, -1)),
        *(("--batch", value) for value in (0, -1)),
        *(("--seeds", value) for value in (0, -1, 10**9)),
        *(("--seed", value) for value in (-1,)),
        *(("--ipls", value) for value in ("0..3", "1..1000000000", "1..", "9" * 5000)),
        *(("--ipl", value) for value in ("0", "9" * 5000, "1e3")),
        *(("--ratio", value) for value in ("0", "nan", "inf", "", "1e400", "-1")),
        *(("--noise-sigma", value) for value in ("nan", "inf", "-1", "")),
        *(("--block", value) for value in ("0", "-1", "9" * 30)),
        *(("--metrics", value) for value in ("vmaf", "", "psnr;ssim")),
        ("--protocol", "x"),
        ("--kind", "x"),
        ("--tile", "0"),
        ("--model", "nothing:"),
    ],
)
def test_f100(few, words):
    """A number of images, processes, seeds or iterations that cannot be
    exit 2, at once"""
    refused(2, "bench", "--dataset", few, "--model", "rcoast", *words, message="")


def test_f107_of_folders(few):
    refused(4, "bench", "--dataset", "nowhere", message="nowhere")
    (few / "b.png").write_bytes(b"no image")
    refused(3, "bench", "--dataset", few, message="b.png")
    for path in few.iterdir():
        path.unlink()
    refused(3, "bench", "--dataset", few, message="no image")


def test_processes_are_no_more_than_twice_the_cores(caplog):
    most = 2 * os.cpu_count()
    assert [workers.count(asked) for asked in (1, most, 10**6)] == [1, most, most]


@pytest.mark.parametrize("precision", ["bf16", "auto"])
def test_f102(few, precision):
    """FISTA where half precision is the default
    its transform runs in fp32"""
    words = ["--ratio", 0.3, "--model", "fista:iterations=5", "--json"]
    found = [
        json.loads(run("bench", "--dataset", few, *words, "--precision", each).stdout)
        for each in (precision, "fp32")
    ]
    assert found[0]["rows"][0]["psnr"] == pytest.approx(found[1]["rows"][0]["psnr"], abs=0.01)


def test_f101(few):
    """SIGTERM to `bench --jobs`, whose processes have hours of work
    exit 143 after the rows in work; they are kept"""
    command = [sys.executable, "-m", "csrecon", "bench", "--dataset", "few", "--jobs", "2"]
    command += ["--model", "fista:iterations=1000", "--ratio", "0.3", "--seeds", "5"]
    rows = downloads.cache_dir() / "bench" / "rows.jsonl"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as running:
        while not rows.exists() and running.poll() is None:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        try:
            code = running.wait(120)
        finally:
            running.kill()
        assert (code, "Traceback" in running.stderr.read()) == (143, False)
    kept = rows.read_text()
    assert kept.endswith("\n") and kept.count("\n") < 2 * 5
