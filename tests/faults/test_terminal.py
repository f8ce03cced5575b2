"""Faults of names, of the terminal, and of what starts and ends a command."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csrecon
from csrecon.evaluation import plot
from csrecon.sensing import native
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import names, run


def started(*words, **options):
    """`csrecon` with these words in a process of its own."""
    command = [sys.executable, "-m", "csrecon", *map(str, words)]
    return subprocess.run(
        command, check=False, timeout=120, **{"capture_output": True, "text": True, **options}
    )


def many(*stems):
    """A folder of images of these names."""
    Path("photos").mkdir()
    for stem in stems:
        Image.fromarray(scene(40, 40)).save(f"photos/{stem}.png")


def test_f103(picture):
    """Two symbolic links to one image, and one name written twice
    two measurements; one"""
    for name in ("a.png", "b.png"):
        Path(name).symlink_to(picture)
    run("sample", "a.png", "b.png", "./a.png", "--ratio", 0.1, "-o", "out")
    assert names("out") == {"a.npy", "a.json", "b.npy", "b.json"}
    refused(2, "sample", "a.png", "out/../a.png", "out/a.npy", "--ratio", 0.1, "-o", "two",
            message="both write")  # fmt: skip


def test_f104():
    """Hidden files in a folder: `._a.png` of macOS, temporary files
    left out, of data sets and originals too"""
    many("a")
    for name in ("._a.png", ".tmp-0.png", ".tmp-0.npy", "Thumbs.db"):
        Path("photos", name).write_bytes(b"no image")
    run("sample", "photos", "--ratio", 0.1, "-o", "out")
    run("sample", "photos/*", "--ratio", 0.1, "-o", "out", "--overwrite")
    assert names("out") == {"a.npy", "a.json"}
    Path("out/.tmp-0.npy").write_bytes(b"no array")
    run("reconstruct", "out", "-o", "images", "--ref", "photos", "--ipl", 1)
    assert names("images") == {"a.png"}
    run("bench", "--dataset", "photos", "--model", "tv:iterations=2", "--ratio", 0.5)


def test_f105():
    """A folder of very many files
    planned in a time that grows with their number, not with its square"""
    Path("measured").mkdir()
    for index in range(1200):
        Path(f"measured/{index}.npy").touch()
    run("models", "list")  # what is imported on first use
    began = time.perf_counter()
    refused(4, "reconstruct", "measured", "-o", "out", "--model", "rcost", message="rcoast")
    assert time.perf_counter() - began < 4


@pytest.mark.parametrize("name", ["a:100:[red]b", "$x_$^", "$\\frac{$"])
def test_f106(name):
    """`:100:`, `[red]` or `$` in the name of a file
    shown as they are, in messages, tables, JSON and figures"""
    Image.fromarray(scene(40, 40)).save(f"{name}.png")
    measured = Path(f"{name}.npy")
    assert name in run("sample", f"{name}.png", "--ratio", 0.5, "-o", measured).stdout
    assert name in run("inspect", measured).stdout
    assert name in run("reconstruct", f"{name}x.npy", code=3).stderr
    np.savez("arrays.npz", **{f"{name}": np.eye(3)})
    assert name in run("inspect", "arrays.npz").stdout
    (facts,) = json.loads(run("reconstruct", measured, "-o", "o.npy", "--ipl", 1, "--json").stdout)
    assert facts["measurement"] == str(measured)
    run("compare", f"{name}.png", "--model", "tv:iterations=2", "-o", "c.svg")
    curve = plot.Curve(f"_{name}", [(1, 2), (3, 4)], names=[name, name])
    plot.curves([curve], Path("curve"), "x", "y")
    assert f"_{name}" in Path("curve.csv").read_text(encoding="utf-8")


HOSTILE = "a\x1b[31m\x07\x9b\u202e\n\udcffb"
ESCAPED = "a\\x1b[31m\\x07\\x9b\\u202e\\n\\udcffb"


def test_f107():
    """Control characters, or undecodable bytes, in the name of a file
    escaped on the terminal; true in JSON"""
    Image.fromarray(scene(40, 40)).save(f"{HOSTILE}.png")
    measured = f"{HOSTILE}.npy"
    assert ESCAPED in run("sample", f"{HOSTILE}.png", "--ratio", 0.5, "-o", measured).stdout
    assert ESCAPED in run("reconstruct", f"x{HOSTILE}.npy", code=3).stderr
    for words in (["sample", f"--{HOSTILE}"], [HOSTILE], ["sample", "--seed", "\x1b[31m\n"]):
        refusal = run(*words, code=2).stderr
        assert refusal.count("\n") == 1
        assert refusal.strip().isprintable()
    (facts,) = json.loads(run("reconstruct", measured, "-o", "o.npy", "--ipl", 1, "--json").stdout)
    assert facts["measurement"] == measured
    Path("set").mkdir()
    Path(f"{HOSTILE}.png").rename(f"set/{HOSTILE}.png")
    asked = ("--model", "tv:iterations=2", "--ratio", 0.5)
    run("bench", "--dataset", "set", *asked, "-o", "report")
    run("compare", f"set/{HOSTILE}.png", "--model", "tv:iterations=2", "-o", "c.pdf")


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({"LOCAL_RANK": "abc"}, 0),
        ({"LOCAL_RANK": "", "RANK": "3"}, 0),
        ({"RANK": "0", "WORLD_SIZE": "8"}, 0),
        ({"LOCAL_RANK": "abc", "RANK": "0", "WORLD_SIZE": "1"}, 2),
        ({"LOCAL_RANK": "0", "RANK": "-1", "WORLD_SIZE": "1"}, 2),
        ({"LOCAL_RANK": "0", "RANK": "2", "WORLD_SIZE": "2"}, 2),
        ({"LOCAL_RANK": "99", "RANK": "0", "WORLD_SIZE": "1"}, 2),
    ],
)
def test_f108(y, monkeypatch, variables, code):
    """LOCAL_RANK and the like in the environment, without torchrun
    ignored, or exit 2; no waiting for processes that never come"""
    if code:
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = run("reconstruct", y, "--ipl", 1, code=code)
    assert code == 0 or "torchrun" in result.stderr


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (2, 2), (1, 3000), (3000, 1)])
def test_f109(shape):
    """A comparison on an image of one row, one column or one pixel
    drawn"""
    Image.fromarray(scene(*shape)).save("slender.png")
    run("compare", "slender.png", "--model", "tv:iterations=2", "--ratio", 0.5)
    with Image.open("compare.png") as image:
        assert min(image.size) > 200


def test_f110(picture):
    """A comparison with a model whose path contains `@`, or a film of too many iterates
    the path is kept; exit 2"""
    refused(3, "compare", picture, "--model", "me@work/net.safetensors@2", message="me@work/net")
    refused(3, "compare", picture, "--model", "net@2.safetensors", message="net@2.safetensors")
    refused(2, "compare", picture, "--film", "--model", "tv:iterations=1000", message="too many")


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "", "--ratio", "0.1"],
        ["sample", "img.png", "--phi", ""],
        ["sample", "img.png", "--ratio", "0.1", "-o", ""],
        ["reconstruct", "y.npy", "--ref", ""],
        ["reconstruct", "y.npy", "--calibrate", "img.png", ""],
        ["reconstruct", "y.npy", "--model", ""],
        ["import", "y.npy", "--phi", "phi.npy", "--shape", "9x9", "-o", ""],
        ["bench", "--dataset", "", "--data-dir", ""],
        ["plot", ""],
        ["train", "rcoast", "--out", ""],
        ["data", "verify", "set11", ""],
        ["models", "convert", "", "a.safetensors", "--ipl", "1"],
    ],
)
def test_f111(y, words):
    """An empty path, as of a shell variable that is not set
    exit 2; which option"""
    refused(2, *words, message="it is empty")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_f112():
    """A reader of the results that goes away, a closed stdout or a full one
    all files are written, and nothing is printed into them; exit 5 if it is full"""
    many("a", "b")
    words = ["sample", "photos", "--ratio", "0.5", "-o"]
    command = f"'{sys.executable}' -m csrecon"
    bench = "bench --dataset photos --model tv:iterations=2 --ratio 0.5 --device cpu -o {}"
    ended = subprocess.run(
        f"{{ {command} {bench.format('r1')}; echo $? > code; }} | true; "
        f"{command} {' '.join(words)} closed -v >&- 2>&-; echo $? > code2;"
        f"{command} {bench.format('r2')} > /dev/full; echo $? > code3",
        shell=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0
    assert Path("code").read_text() == Path("code2").read_text() == "0\n"
    assert Path("code3").read_text() == "5\n"
    assert names("r1") == names("r2") == {f"bench.{s}" for s in ("csv", "json", "md", "tex")}
    for stem in ("a", "b"):
        native.load(Path(f"closed/{stem}.npy"))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX signals")
@pytest.mark.parametrize("numbers", [["SIGHUP"], ["SIGINT"] * 3, ["SIGTERM", "SIGHUP", "SIGINT"]])
def test_f113(numbers):
    """A terminal that is closed, or Ctrl-C again while temporary files are removed
    exit 129, 130 or 143; complete files only"""
    many(*map(str, range(40)))
    slow = """
import sys, time
from pathlib import Path
remove = Path.unlink
def unlink(self, *a, **k):
    time.sleep(0.3)
    remove(self, *a, **k)
Path.unlink = unlink
sys.argv = ["csrecon", "sample", "photos", "--ratio", "0.5", "-o", "out"]
from csrecon.cli import main
main()
"""
    process = subprocess.Popen([sys.executable, "-c", slow], stderr=subprocess.PIPE, text=True)
    while not list(Path("out").glob(".*")) if Path("out").is_dir() else True:
        assert process.poll() is None
        time.sleep(0.005)
    for name in numbers:
        process.send_signal(getattr(signal, name))
        time.sleep(0.1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, numbers[0]), said
    assert "Traceback" not in said
    assert not any(name.startswith(".") for name in names("out"))


def test_f114(picture):
    """A signal while the program is still being loaded
    ended without a traceback"""
    for number, wait in ((signal.SIGINT, 0.15), (signal.SIGINT, 0.4), (signal.SIGTERM, 0.3)):
        command = [sys.executable, "-X", "importtime", "-m", "csrecon", "sample", str(picture)]
        process = subprocess.Popen([*command, "--ratio", "0.1"], stderr=subprocess.PIPE, text=True)
        while "csrecon.cli.signals" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(wait)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        # Python ends itself by SIGINT, a shell's 130, if that once left a string in exec().
        assert process.returncode in (128 + number, -number, 0), said
        assert "Traceback" not in said


def test_f115(picture):
    """A loop of symbolic links, a dangling one, or a name that is too long
    exit 3 or 2, before any work"""
    Path("loop.npy").symlink_to("loop.npy")
    Path("gone.npy").symlink_to("nowhere.npy")
    for name, message in (("loop.npy", "loop.npy"), ("gone.npy", "no such"), ("x" * 300, "xxx")):
        refused(3, "reconstruct", name, message=message)
        refused(3, "inspect", name, message=message)
        refused(3, "sample", name, "--ratio", 0.1, message=message)
    refused(3, "sample", "img.png/a.png", "--ratio", 0.1, message="img.png/a.png")
    m = csrecon.sample(np.zeros((9, 9), np.float32), ratio=0.5)
    native.save(m, Path("m.npy"))
    Path("loop.png").symlink_to("loop.png")
    refused(2, "reconstruct", "m.npy", "-o", "loop.png", message="loop.png")
    refused(2, "sample", picture, "--ratio", 0.1, "-o", "loop.npy", message="loop.npy")
