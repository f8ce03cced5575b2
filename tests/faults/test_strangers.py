"""Faults of memory, of signals, and of what strangers wrote."""

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from csrecon import errors
from csrecon.cli import signals
from csrecon.evaluation.table import Table
from csrecon.io import files, locks
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.training import checkpoint
from csrecon.training import recipe as recipes
from csrecon.zoo import cards, store
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import names, run

_NO_THREADS = """
import threading
def none(thread):
    raise RuntimeError("can't start new thread")
threading.Thread.start = none
from csrecon.cli import main
main()
"""


def test_f126(picture):
    """No thread or memory more, in whatever words a library says so
    done without; or exit 5"""
    photos = Path("photos")
    photos.mkdir()
    for name in ("a.png", "b.png"):
        (photos / name).write_bytes(picture.read_bytes())
    command = [sys.executable, "-c", _NO_THREADS, "sample", "photos", "--ratio", "0.1", "-o", "out"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert names("out") == {"a.npy", "a.json", "b.npy", "b.json"}
    command[3:] = ["reconstruct", "out/a.npy", "--model", "tv:iterations=1"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=60).returncode == 5
    for words in ("std::bad_alloc", "bad allocation", "could not create a primitive",
                  "unable to mmap 8 bytes from file <x>: Cannot allocate memory (12)"):  # fmt: skip
        assert errors.is_out_of_memory(RuntimeError(words))


def test_f127(monkeypatch):
    """A checkpoint that is out of memory while it is made
    exit 5; the last one is intact"""
    plan = recipes.recipe("rcoast")
    checkpoint.save(Path("run"), plan, {"step": 1})

    class Full(io.BytesIO):
        def write(self, _):
            raise MemoryError

    monkeypatch.setattr(io, "BytesIO", Full)
    with pytest.raises(errors.ResourceError, match="out of memory"):
        checkpoint.save(Path("run"), plan, {"step": 2, "weights": torch.zeros(100)})
    assert checkpoint.load(Path("run"), plan)["step"] == 1


def test_f128(monkeypatch):
    """A signal in the middle of the removal of temporary files
    all of them are removed"""
    remove, interrupted = Path.unlink, []

    def unlink(self, missing_ok=False):
        if not interrupted:
            interrupted.append(self)
            raise KeyboardInterrupt
        remove(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt), files.new_files(Path("a"), Path("b")) as made:
        for path in made:
            path.touch()
        raise ValueError
    assert interrupted
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f129(y, monkeypatch, number, code):
    """A signal that a compiled library loses, and fails for
    exit 130 or 143"""

    def steps(self, m):
        try:
            os.kill(os.getpid(), number)
        except BaseException:
            raise ValueError("could not determine the shape of an object") from None

    monkeypatch.setattr(Unfolding, "steps", steps)
    refused(code, "reconstruct", y, "-o", "x.png", message="no partial file")


@pytest.mark.parametrize("signalled", [True, False])
def test_destructors_of_half_made_objects_are_silent_after_a_signal(monkeypatch, signalled):
    class Half:
        def __del__(self):
            raise AttributeError("half made")

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: shown.append(lost.exc_type))
    with contextlib.suppress(KeyboardInterrupt), signals.unwinding():
        half = Half()
        try:
            if signalled:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        finally:
            del half
    assert shown == ([] if signalled else [AttributeError])


@pytest.mark.parametrize("made", [True, False])
def test_a_signal_while_a_lock_is_acquired(monkeypatch, made):
    acquire, interrupted = locks.FileLock.acquire, []

    def interrupt(self, *arguments, **options):
        if interrupted:
            return acquire(self, *arguments, **options)
        interrupted.append(made)
        if made:
            acquire(self, *arguments, **options)
        else:
            Path(".lock").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(locks.FileLock, "acquire", interrupt)
    with pytest.raises(KeyboardInterrupt), locks.locked(Path(".lock")):
        pass
    assert not Path(".lock").exists()


def test_a_signal_that_a_destructor_loses(y, monkeypatch):
    class Last:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)

    def steps(self, m):
        last = Last()
        del last
        for _ in range(100):
            time.sleep(0.05)
        raise AssertionError("never ended")

    monkeypatch.setattr(Unfolding, "steps", steps)
    refused(143, "reconstruct", y, "-o", "x.png", message="no partial file")


@pytest.mark.parametrize("device", ["cuda:99999999999999999999", "cuda:٣"])
def test_a_device_number_that_is_none(y, device):
    refused(2, "reconstruct", y, "--device", device, "-o", "x.png", message="cuda:N")


def test_values_and_an_offset_beyond_float32_for_an_automatic_gain():
    phi = np.random.default_rng(0).random((20, 64))
    np.save("phi.npy", phi)
    np.save("values.npy", 1e200 * np.ones((4, 4, 1)) * phi.sum(1))
    words = ["reconstruct", "values.npy", "--phi", "phi.npy", "--shape", "32x32", "-o", "x.png"]
    refused(3, *words, "--gain", "auto", message="float32")
    refused(2, *words, "--gain", "auto", "--offset", 1e300, message="offset")


def test_f130():
    """`train --data` of a folder with undecodable bytes in its name
    trained, and continued"""
    folder = Path(os.fsdecode(b"photos\xff"))
    folder.mkdir()
    Image.fromarray(scene(80, 80)).save(folder / "a.png")
    words = ["train", "rcoast", "--data", folder, "--out", "run", "--set", "batch=1",
             "--set", "patch=33", "--set", "steps=2",
             "--set", "stages=[{until: 1, cap: 1}]"]  # fmt: skip
    run(*words)
    assert json.loads(Path("run/recipe.json").read_text())["data"]["sets"] == ["photos\\udcff"]
    run(*words, "--resume")
    assert recipes.recipe("rcoast").model_dump_json().startswith('{"model":"rcoast","init":null')


def _fifo(path):
    os.mkfifo(path)


def _huge(path):
    with path.open("wb") as stream:
        stream.truncate(2**36)


_READERS = """
import sys
import time
from pathlib import Path
from csrecon.errors import InputError, ModelError
from csrecon.evaluation import figures
from csrecon.evaluation.cache import ResultCache
from csrecon.training import runlog
from csrecon.zoo import cards
path = Path(sys.argv[1])
for read in (figures.read_cells, ResultCache, runlog.read, cards.read_cards):
    try:
        read(path)
    except (InputError, ModelError) as error:
        print(read.__name__)
"""


@pytest.mark.parametrize("made", [_fifo, _huge])
def test_f131(made):
    """A pipe or gigabytes in place of a report, the result cache, a log or a list of models
    exit 3 or 4; nothing is waited for"""
    made(Path("given"))
    done = subprocess.run(
        [sys.executable, "-c", _READERS, "given"], check=True, capture_output=True, timeout=30
    )
    assert done.stdout.split() == [b"read_cells", b"ResultCache", b"read", b"read_cards"]


def test_f132(caplog):
    """`--gain auto` with weak rows of Φ
    as exact as without them; a note says once what is discarded"""
    draw = np.random.default_rng(0)
    row, column = np.mgrid[:128, :128]
    image = (
        0.5 + 0.3 * np.sin(row / 9) * np.cos(column / 7) + 0.2 * ((row // 16 + column // 16) % 2)
    )
    blocks = image.clip(0, 1).reshape(4, 32, 4, 32).swapaxes(1, 2).reshape(4, 4, 1024)
    phi = draw.random((102, 1024)).astype(np.float32)
    phi[:4] *= 1e-3
    y = 37 * blocks @ phi.T + 5 + 0.2 * draw.standard_normal((4, 4, 102))
    np.savez("lab.npz", values=y)
    np.save("phi.npy", phi)
    done = run("reconstruct", "lab.npz", "--phi", "phi.npy", "--shape", "128x128",
               "--gain", "auto", "--model", "tv:iterations=2")  # fmt: skip
    assert done.stderr.count("components of Φ discarded") == 1


def test_f133():
    """A name like a formula, or with `|`, a newline or a command of LaTeX, in a report
    shown as it is, in its cell"""
    name = "=1+1|a\nb\\input{x}~^"
    table = Table(["model", "dB"], [[name, "-1.50"], ["@SUM(A1)", "+0.1 / 0.9"], ["+1+cmd", "1"]])
    assert len(table.markdown().splitlines()) == 5
    assert r"| =1+1\|a\nb\input{x}~^ |" in table.markdown()
    lines = table.latex("set\n\\input{x}").splitlines()
    assert lines[0] == r"% set\n\input{x}"
    assert r"\textbackslash{}input\{x\}\textasciitilde{}\textasciicircum{}" in lines[5]
    cells = list(csv.reader(io.StringIO(table.csv())))
    assert cells[1:] == [[f"'{name}", "-1.50"], ["'@SUM(A1)", "+0.1 / 0.9"], ["'+1+cmd", "1"]]


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(1).to_sparse(),
        torch.tensor([torch.nan]),
        torch.ones(1, dtype=torch.complex64),
        torch.ones(1, device="meta"),
    ],
    ids=["sparse", "nan", "complex", "meta"],
)
def test_f134(value):
    """Weights of the authors, or a state of a run, that are no finite, dense, real numbers
    exit 4; nothing is written"""
    torch.save({"fcs.0.lambda_step": value}, "authors.pkl")
    refused(4, "models", "convert", "authors.pkl", "w.safetensors", "--ipl", 1, message="finite")


@pytest.mark.parametrize(
    "change",
    [{"step": "7"}, {"step": -1}, {"seconds": float("nan")}, {"bases": ["a"]}, {"own": 5},
     {"network": {}}, {"average": {"a": torch.ones(1)}}, {"optimizer": 3}, {"common": None}],
    ids=str,
)  # fmt: skip
def test_f135(change):
    """A checkpoint of a run with a state that is none
    exit 4; it is kept"""
    Path("photos").mkdir()
    Image.fromarray(scene(80, 80)).save("photos/a.png")
    words = ["train", "rcoast", "--data", "photos", "--out", "run", "--set", "batch=1",
             "--set", "patch=33", "--set", "steps=1"]  # fmt: skip
    run(*words)
    path = Path("run/checkpoint.pt")
    torch.save(torch.load(path, weights_only=True) | change, path)
    refused(4, *words, "--resume", message="checkpoint")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder")
def test_a_working_folder_that_was_removed(photo):
    """MKL ends the process when it loads its kernels there."""
    sample = f"{sys.executable} -m csrecon sample {photo} --ratio 0.1"
    script = f"mkdir gone && cd gone && rmdir ../gone && {sample}"
    done = subprocess.run(
        ["sh", "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "was removed" in done.stderr) == (5, True)


def test_an_option_of_a_solver_that_is_given_twice(y):
    refused(2, "reconstruct", y, "--model", "tv:first=1,first=2", "-o", "x.png", message="twice")


@pytest.mark.parametrize("made", [lambda path: path.write_bytes(b"\xff"), Path.mkdir])
def test_a_record_of_the_cache_that_is_none(made):
    """Converted weights count only with a record of their digest; else they are made again."""
    path = store._made("coast-paper", cards.card("coast-paper").weights)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no weights")
    made(path.with_suffix(".sha256"))
    with pytest.raises(errors.ModelError, match="not in the cache"):
        store.weights_path("coast-paper")


def test_an_archive_of_very_many_arrays():
    np.savez("many.npz", **{f"a{i}": np.ones(2) for i in range(600)})
    assert "100 more arrays" in run("inspect", "many.npz").stdout
    refused(2, "reconstruct", "many.npz", "--phi", "many.npz", "--shape", "9x9", "-o", "x.png",
            message="and 580 more")  # fmt: skip
