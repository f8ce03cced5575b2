"""Faults that lose what a user had, or write half of it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import csrecon
from csrecon.sensing import native
from csrecon.zoo.store import folder as store_folder
from tests.conftest import scene
from tests.faults.checks import contents, refused
from tests.test_cli import run

FILES = ["recipe.json", "log.jsonl", "checkpoint.pt", "weights.safetensors", "curve.png"]
TINY = [
    argument
    for text in ("steps=2", "batch=1", "patch=36", "phi_bases=1", "scales=[1]")
    for argument in ("--set", text)
]
TRAIN = ["train", "rista", "--data", "photos", "--device", "cpu", "--out", "run", *TINY]


@pytest.fixture
def photos():
    Path("photos").mkdir()
    Image.fromarray(scene(64, 64)).save("photos/a.png")


def limited(*commands):
    """Run commands, (size, words) each, whose files end after so many bytes, as on a full disk.

    Returns their exit codes and what they say.
    """
    script = (
        "import json, resource, signal, sys; from csrecon.cli.app import app\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "for size, words in json.loads(sys.argv[1]):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))\n"
        "    try: app(words)\n"
        "    except SystemExit as ended: print(ended.code, flush=True)\n"
    )
    given = json.dumps([(size, [str(word) for word in words]) for size, words in commands])
    done = subprocess.run(
        [sys.executable, "-c", script, given],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.splitlines() if line.isdecimal()], done.stderr


@pytest.mark.parametrize("there", FILES)
def test_f41(photos, there):
    """`train --out` of a folder with any file that a run writes
    exit 2; --resume or --overwrite"""
    Path("run").mkdir()
    Path("run", there).write_text("all that a user had")
    refused(2, *TRAIN, message="--overwrite")


def test_resume_without_a_checkpoint_touches_nothing(photos):
    Path("run").mkdir()
    for name in set(FILES) - {"checkpoint.pt"}:
        Path("run", name).write_text("all that a user had")
    refused(3, *TRAIN, "--resume", message="no such file")
    refused(2, *TRAIN, "--resume", "--overwrite", message="give one")


def test_a_run_that_overwrites_leaves_nothing_of_the_old_one(photos):
    Path("run").mkdir()
    for name in FILES:
        Path("run", name).write_text("of the old run")
    run(*TRAIN, "--overwrite")
    assert {path.name for path in Path("run").iterdir()} == set(FILES) - {"curve.png"}
    assert all(b"of the old run" not in path.read_bytes() for path in Path("run").iterdir())
    assert Path("photos/a.png").exists()


def test_f42(picture):
    """An output that is an input of the command, with --overwrite
    exit 2; inputs are kept"""
    phi = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 16)))[0].T
    np.save("phi.npy", phi)
    np.savez("lab.npz", y=np.ones((54, 16)), phi=phi)
    Path("lab.csv").write_text("1,2")
    np.save("scene.npy", np.ones((54, 16)))
    np.save("mask.npy", np.ones((50, 70), np.uint8))
    Path("w.safetensors").write_bytes(csrecon.zoo.store.weights_path("rista").read_bytes())
    os.link("img.png", "hard.png")
    Path("soft.png").symlink_to("img.png")
    Path("y.json").write_text("{}")
    shutil.copy("scene.npy", "y.npy")
    lab = ["--shape", "50x70", "--phi", "phi.npy"]
    for words in (
        ["compare", "img.png", "-o", "img.png"],
        ["compare", "img.png", "-o", Path("../", Path.cwd().name, "img.png")],
        ["compare", "img.png", "-o", "hard.png"],
        ["compare", "img.png", "-o", "soft.png"],
        ["compare", "soft.png", "-o", "img.png"],
        ["sample", "img.png", "--phi", "phi.npy", "-o", "phi.npy"],
        ["sample", "img.png", "--kind", "fourier", "--mask", "mask.npy", "-o", "mask.npy"],
        ["import", "lab.csv", "--shape", "50x70", "--phi", "lab.npz:phi", "-o", "lab.npz"],
        ["import", "lab.csv", "--shape", "50x70", "--phi", "lab.npz:phi"],
        ["import", "y.npy", *lab, "-o", "y.NPY"],
        ["import", "lab.csv", *lab, "--calibrate", "scene.npy", "y.npy", "-o", "scene.npy"],
        ["import", "lab.csv", *lab, "--calibrate", "scene.npy", "y.npy", "-o", "y.npy"],
        ["import", "lab.csv", *lab, "--positions", "scene.npy", "-o", "scene.npy"],
        ["models", "convert", "w.safetensors", "w.safetensors", "--ipl", 1],
    ):
        refused(2, *words, "--overwrite", message="is an input of this command")


def test_inputs_of_benchmarks_and_trainings_are_kept(photos):
    Path("report.csv").write_text("{}")
    Path("figures").mkdir()
    Path("figures/psnr_ratio.csv").write_text("{}")
    same = "is an input of this command"
    refused(2, "plot", "figures/psnr_ratio.csv", "-o", "figures", "--overwrite", message=same)
    Path("run").mkdir()
    weights = Path("run/weights.safetensors")
    weights.write_bytes(csrecon.zoo.store.weights_path("rista").read_bytes())
    refused(2, *TRAIN, "--init", weights, "--overwrite", message=same)
    Image.fromarray(scene(64, 64)).save("run/curve.png")
    refused(2, *TRAIN[:3], "run", *TRAIN[4:], "--overwrite", message=same)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_f45(photos):
    """A checkpoint, a log or weights that do not fit on the disk
    exit 5; the last ones are intact"""
    run(*TRAIN)
    more = [*TRAIN, "--set", "steps=4"]
    Path("run/recipe.json").write_text(
        Path("run/recipe.json").read_text().replace('"steps": 2', '"steps": 4')
    )
    before = contents()
    codes, said = limited((5000, [*more, "--resume"]))
    assert codes == [5], said
    assert "bug" not in said
    after = contents()
    for name in ("checkpoint.pt", "weights.safetensors", "log.jsonl"):
        assert after[Path("run", name)] == before[Path("run", name)]
    assert set(after) == set(before)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_f46(picture):
    """A disk that is full at the last bytes of a file
    exit 5; no cut file that looks whole"""
    run("sample", picture, "--ratio", 0.25, "--block", 16)
    run("reconstruct", "y.npy", "--model", "tv:iterations=1", "-o", "whole.tif")
    run("reconstruct", "y.npy", "--model", "tv:iterations=1", "-o", "whole.npy")
    commands = [
        ("y.npy", ["sample", picture, "--ratio", 0.25, "--block", 16, "-o", "cut.npy"]),
        ("whole.tif", ["reconstruct", "y.npy", "--model", "tv:iterations=1", "-o", "cut.tif"]),
        ("whole.npy", ["reconstruct", "y.npy", "--model", "tv:iterations=1", "-o", "cut.npy"]),
    ]
    before = contents()
    codes, said = limited(*((Path(f).stat().st_size - 1, words) for f, words in commands))
    assert codes == [5, 5, 5], said
    assert contents() == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX limits")
def test_a_figure_on_a_full_disk(picture):
    """Where matplotlib's PDF is cut off, it fails in words that name no disk."""
    words = ["compare", picture, "--model", "tv:iterations=1", "-o"]
    before = contents()
    codes, said = limited(*((size, [*words, f"x{size}.pdf"]) for size in (0, 9, 3000)))
    assert codes == [5, 5, 5], said
    assert contents() == before


def test_f47(photos):
    """A training log whose last line was cut off, or with damaged lines
    they are left out, and a warning says so; --resume continues"""
    run(*TRAIN)
    log = Path("run/log.jsonl")
    whole = ['{"step": 1, "loss": 0.5}', '{"step": 2, "loss": 0.4}']
    log.write_bytes(f"{whole[0]}\n\0\0x\n{whole[1]}\n".encode() + b'{"step": 2, "lo')
    result = run(*TRAIN, "--resume")
    assert "cut off" in result.stderr
    assert "line 2" in result.stderr
    assert log.read_text().splitlines() == whole


def test_a_log_of_something_else_is_kept(photos):
    run(*TRAIN)
    Path("run/log.jsonl").write_text("Tuesday: moved the detector\n")
    refused(3, *TRAIN, "--resume", message="not the log")


def test_f48(picture, monkeypatch):
    """A command that is out of memory
    exit 5; the other files of a batch are done"""
    fault = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to")
    original = native.save

    def starved(m, path, overwrite=False):
        if "b" in path.stem:
            raise fault
        original(m, path, overwrite)

    shutil.copy(picture, "b.png")
    monkeypatch.setattr(native, "save", starved)
    refused(5, "sample", "b.png", "--ratio", 0.1, "-o", "b.npy", message="out of memory")
    result = run("sample", "b.png", picture, "--ratio", 0.1, "-o", "out/", code=6)
    assert "b.png: out of memory" in result.stderr
    assert Path("out/img.npy").exists()


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**9, 10**9), np.dtype("f4")),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
)
def test_every_word_for_out_of_memory(picture, monkeypatch, fault):
    def starved(*_, **__):
        raise fault

    monkeypatch.setattr("csrecon.sensing.sample.make_operator", starved)
    refused(5, "sample", picture, "--ratio", 0.1, message="out of memory")


def test_f50():
    """`models prune` where the folder of the cache has files of the user
    they are kept"""
    store_folder().mkdir(parents=True)
    mine = store_folder() / "mine" / "weights.safetensors"
    mine.parent.mkdir()
    mine.write_text("a week of training")
    (store_folder() / "0123456789ab-old.pkl").write_text("nobody refers to it")
    run("models", "prune")
    assert mine.exists()
    assert len([path for path in store_folder().rglob("*") if path.is_file()]) == 1


def test_f51(photos):
    """Two trainings in one folder
    exit 2 for the second; the first is not disturbed"""
    from filelock import FileLock

    run(*TRAIN)
    with FileLock("run/.lock"):
        refused(2, *TRAIN, "--resume", message="another process trains")
    run(*TRAIN, "--resume")


def test_f52(y, picture):
    """`reconstruct -o` with the name of another measurement, with --overwrite
    exit 2; an image never replaces the values of a measurement"""
    run("sample", picture, "--ratio", 0.5, "-o", "other.npz")
    words = ["reconstruct", "other.npz", "-o", "y.npy", "--model", "tv:iterations=1"]
    refused(2, *words, "--overwrite", message="belongs to the measurement")


def test_one_report_under_two_names_is_written_once():
    from csrecon.evaluation import report

    given = [Path("a.csv"), Path("../") / Path.cwd().name / "a.csv", Path("a.md")]
    assert len(report.targets(given, overwrite=False)) == 2
