"""The fault scorecard: forty numbered faults, what csrecon answers, and that nothing is lost.

`python -m tests.test_faults` prints docs/faults.md from the docstrings below: the first line says
the fault, the second the answer.
"""

import hashlib
import inspect
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

import csrecon
from csrecon.errors import ModelError
from csrecon.evaluation import selftest
from csrecon.io import downloads
from csrecon.io.downloads import Remote, fetch
from csrecon.reconstructors.nets.coast import CoastBlock
from csrecon.sensing import native as saved
from csrecon.zoo import cards
from tests.conftest import ROOT, scene
from tests.test_cli import run

BODY = bytes(range(256)) * 40
REMOTE = Remote(
    url="https://example.org/w.bin",
    digest=f"sha256:{hashlib.sha256(BODY).hexdigest()}",
    bytes=len(BODY),
)


@pytest.fixture
def picture():
    Image.fromarray(scene()).save("img.png")
    return Path("img.png")


@pytest.fixture
def y(picture):
    run("sample", picture, "--ratio", 0.25, "--block", 16)
    return Path("y.npy")


def refused(code, *words, message):
    """The command fails with this code and these words, and no file changes or appears."""
    before = contents()
    result = run(*words, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert contents() == before


def contents():
    """Every file below this folder, the cache aside."""
    found = (path for path in Path().rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in found if path.parts[0] != "cache"}


def sampled(image):
    """Sampling that image works, and gives the planes of what it shows."""
    run("sample", image, "--ratio", 1, "--block", 8, "-o", "whole.npz")
    m = saved.load(Path("whole.npz"))
    return m.operator.adjoint(m.y)[0, 0].numpy()


def test_f01(picture):
    """A truncated image
    exit 3; copy it again"""
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    refused(3, "sample", picture, "--ratio", 0.1, message="img.png")


def test_f02():
    """A file that is not an image
    exit 3"""
    Path("img.png").write_text("hello")
    refused(3, "sample", "img.png", "--ratio", 0.1, message="img.png")


def test_f03(picture, monkeypatch):
    """A decompression bomb
    exit 3 before any pixel is decoded"""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(3, "sample", picture, "--ratio", 0.1, message="decompression bomb")


def test_f04():
    """A 16-bit image
    16 bits in, 16 bits out"""
    levels = (scene()[..., 0].astype(np.uint16) * 257 + 13).clip(0, 65535)
    Image.fromarray(levels).save("deep.png")
    run("sample", "deep.png", "--ratio", 1, "--block", 8)
    run("reconstruct", "y.npy", "--ipl", 1)
    back = np.asarray(Image.open("y.png")).astype(int)
    assert abs(back - levels.astype(int)).max() <= 2


def test_f05():
    """A palette, or an alpha channel
    the visible colours; transparent pixels are flattened onto white"""
    Image.fromarray(scene()).quantize(64).save("palette.png")
    shown = np.asarray(Image.open("palette.png").convert("L")) / 255
    np.testing.assert_allclose(sampled("palette.png"), shown, atol=0.01)
    clear = Image.fromarray(scene()).convert("RGBA")
    clear.putalpha(0)
    clear.save("clear.png")
    Path("whole.npz").unlink()
    np.testing.assert_allclose(sampled("clear.png"), 1, atol=1e-3)


def test_f06():
    """A CMYK image
    its luma"""
    Image.fromarray(scene()).convert("CMYK").save("cmyk.tif")
    shown = np.asarray(Image.fromarray(scene()).convert("L")) / 255
    assert abs(sampled("cmyk.tif") - shown).mean() < 0.05


def test_f07():
    """An animation
    its first frame"""
    frames = [Image.fromarray(np.full((40, 40), v, np.uint8)) for v in (200, 10)]
    frames[0].save("a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(sampled("a.gif"), 200 / 255, atol=0.01)


def test_f08():
    """A photo with an EXIF rotation
    upright"""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene(40, 60)).save("turned.png", exif=exif)
    assert sampled("turned.png").shape == (60, 40)


def test_f09():
    """An image smaller than a block
    padded for measuring, cropped in the result"""
    Image.fromarray(scene(3, 5)).save("tiny.png")
    run("sample", "tiny.png", "--ratio", 0.5)
    run("reconstruct", "y.npy")
    assert Image.open("y.png").size == (5, 3)


def test_f10():
    """An empty or a missing file
    exit 3"""
    Path("empty.png").touch()
    refused(3, "sample", "empty.png", "--ratio", 0.1, message="empty")
    refused(3, "sample", "none.png", "--ratio", 0.1, message="no such file")


LAB = ["--phi", "phi.npy", "--shape", "32x32"]


@pytest.fixture
def lab():
    """A Φ of 40 rows for blocks of 16×16, and what it measures of four blocks."""
    phi = np.random.Generator(np.random.PCG64(1)).normal(size=(40, 256)).astype(np.float32)
    np.save("phi.npy", phi)
    m = csrecon.sample(scene(32, 32)[..., 0], phi=phi)
    values = m.y.reshape(4, 40).numpy()
    np.save("lab.npy", values)
    return phi, values


def test_f11(lab):
    """NaN or infinite values
    exit 3; how many"""
    values = lab[1].copy()
    values[0, 3] = np.nan
    values[1, 1] = np.inf
    np.save("lab.npy", values)
    refused(3, "reconstruct", "lab.npy", *LAB, message="2 of 160 values are NaN or infinite")


def test_f12(lab):
    """Values of another shape than Φ's
    exit 3; both shapes"""
    np.save("lab.npy", lab[1][:, :39])
    refused(3, "reconstruct", "lab.npy", *LAB, message="(4, 39)")


def test_f13():
    """A layout that the shape does not determine
    exit 2; say --layout"""
    np.save("phi.npy", np.eye(4, 256))
    np.savetxt("lab.csv", np.ones((4, 4)), delimiter=",")
    refused(2, "reconstruct", "lab.csv", *LAB, message="say --layout")


def test_f14(y, lab):
    """A Φ that is not the one of the measurement
    exit 3; both digests"""
    np.save("other.npy", np.eye(64, 256))
    refused(3, "reconstruct", y, "--phi", "other.npy", message="wrong Φ")


def test_f15(lab):
    """Rows of Φ that are not orthonormal
    orthonormalized, with y; the same image"""
    phi, values = lab
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "a.npy")
    u, s, vt = np.linalg.svd(phi.astype(np.float64), full_matrices=False)
    np.save("phi.npy", vt)
    np.save("lab.npy", values @ u / s)
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "b.npy")
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=1e-3)


def test_f16(lab):
    """A Φ with linearly dependent rows
    reduced to its rank; a note says so"""
    phi, values = lab
    run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "a.npy")
    np.save("phi.npy", np.concatenate([phi, phi[:5]]))
    np.save("lab.npy", np.concatenate([values, values[:, :5]], axis=1))
    result = run("reconstruct", "lab.npy", *LAB, "--precision", "fp32", "-o", "b.npy")
    assert "rank 40 of 45" in result.stderr
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=1e-3)


def test_f17(y):
    """A sidecar of another y
    exit 3; one of the two is stale"""
    np.save(y, np.load(y) * np.float32(1.01))
    refused(3, "reconstruct", y, message="stale")


def test_f18(lab):
    """Values with a scale of 0..255
    exit 3; divide, or give --gain"""
    np.save("lab.npy", 255 * lab[1])
    refused(3, "reconstruct", "lab.npy", *LAB, message="--gain auto")
    run("reconstruct", "lab.npy", *LAB, "--gain", 255)


def test_f19(lab):
    """Integers of an analogue-to-digital converter
    used as numbers"""
    np.save("lab.npy", np.round(1000 * lab[1]).astype(np.int32))
    run("reconstruct", "lab.npy", *LAB, "--gain", 1000, "-o", "a.npy")
    np.save("lab.npy", lab[1])
    run("reconstruct", "lab.npy", *LAB, "-o", "b.npy")
    np.testing.assert_allclose(np.load("a.npy"), np.load("b.npy"), atol=0.01)


def test_f20():
    """Pickled objects among the values
    exit 3; never loaded"""
    np.save("lab.npy", np.array([{}], dtype=object), allow_pickle=True)
    refused(3, "reconstruct", "lab.npy", "--seed", 0, "--shape", "32x32", message="pickled")


def test_f21(lab):
    """A header that promises more than the file holds
    exit 3; truncated or damaged"""
    whole = Path("lab.npy").read_bytes()
    Path("lab.npy").write_bytes(whole[:-40])
    refused(3, "reconstruct", "lab.npy", *LAB, message="promises")


def test_f22(lab):
    """A zip or HDF5 file that expands without limit
    exit 3 before memory is allocated"""
    with h5py.File("bomb.h5", "w") as file:
        file.create_dataset("y", (2**20, 2**18), "f8", chunks=(1024, 1024), compression="gzip")
    refused(3, "reconstruct", "bomb.h5", *LAB, message="would expand")
    with (
        zipfile.ZipFile("bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("y.npy", "w") as member,
    ):
        for _ in range(300):
            member.write(bytes(2**20))
    refused(3, "reconstruct", "bomb.npz", message="would expand")


def test_f23(lab):
    """An HDF5 file with a link to another file
    the link is not followed; a warning names it"""
    with h5py.File("secret.h5", "w") as file:
        file["y"] = lab[1]
    with h5py.File("lab.h5", "w") as file:
        file["y"] = h5py.ExternalLink("secret.h5", "y")
    refused(3, "reconstruct", "lab.h5", *LAB, message="holds no array")


def test_f24(picture):
    """A ratio outside (0, 1]
    exit 2"""
    for ratio in ("0", "1.5", "nan"):
        refused(2, "sample", picture, "--ratio", ratio, message="ratio")


def test_f25(y):
    """An IPL that the model does not allow
    exit 2; what it allows"""
    refused(2, "reconstruct", y, "--ipl", 99, message="1..12")
    refused(2, "reconstruct", y, "--ipl", "4,4", message="5 layers")


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
    run("reconstruct", y, "-o", "a.npy", "--ipl", 1)
    original = CoastBlock.prox

    def starved(self, state, gradient, gain):
        if gradient[0].numel() > 100 * 85:
            raise torch.OutOfMemoryError("planted")
        return original(self, state, gradient, gain)

    Image.fromarray(scene(150, 160)).save("large.png")
    run("sample", "large.png", "--ratio", 0.25, "-o", "large.npy")
    run("reconstruct", "large.npy", "-o", "whole.npy", "--ipl", 1)
    monkeypatch.setattr(CoastBlock, "prox", starved)
    result = run("reconstruct", "large.npy", "-o", "tiled.npy", "--ipl", 1)
    assert "out of memory: continuing" in result.stderr
    np.testing.assert_allclose(np.load("tiled.npy"), np.load("whole.npy"), atol=2e-5)


def test_f29(y, monkeypatch):
    """Half precision that overflows
    repeated in fp32, with a warning"""
    run("reconstruct", y, "-o", "a.npy", "--ipl", 1, "--precision", "fp32")
    original = CoastBlock.prox

    def narrow(self, state, gradient, gain):
        made, penalty = original(self, state, gradient, gain)
        overflows = torch.is_autocast_enabled("cpu")
        return (made.map(lambda t: t + torch.inf) if overflows else made), penalty

    monkeypatch.setattr(CoastBlock, "prox", narrow)
    result = run("reconstruct", y, "-o", "b.npy", "--ipl", 1, "--precision", "bf16")
    assert "bf16 overflowed" in result.stderr
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))


def test_f30(picture, monkeypatch):
    """A disk that is full while an output is written
    exit 5; no partial file"""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    refused(5, "sample", picture, "--ratio", 0.1, message="the disk is full")


def test_f31(picture, monkeypatch):
    """A folder that cannot be written
    exit 5; choose another"""

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "save", forbidden)
    refused(5, "sample", picture, "--ratio", 0.1, message="no permission")


@pytest.fixture
def remote(server, monkeypatch):

    monkeypatch.setattr(downloads, "DELAYS", (0.01,))
    server.answers["/example.org/w.bin"] = BODY
    return REMOTE


def test_f32(server, remote):
    """A download that is interrupted
    repeated with growing pauses; then exit 4; no partial file"""

    def cut(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(BODY)))
        handler.end_headers()
        handler.wfile.write(BODY[:100])

    server.answers["/example.org/w.bin"] = cut
    with pytest.raises(ModelError, match="times") as caught:
        fetch(remote, Path("cache/w.bin"))
    assert caught.value.exit_code == 4
    assert not Path("cache/w.bin").exists()
    server.answers["/example.org/w.bin"] = BODY
    fetch(remote, Path("cache/w.bin"))
    assert Path("cache/w.bin").read_bytes() == BODY


def test_f33(server, remote):
    """A download with a wrong hash
    exit 4; quarantined, never used"""
    server.answers["/example.org/w.bin"] = b"?" + BODY[1:]
    with pytest.raises(ModelError, match="instead of sha256"):
        fetch(remote, Path("cache/w.bin"))
    assert not Path("cache/w.bin").exists()
    assert len(list(Path("cache/quarantine").iterdir())) == 1


def test_f34(y):
    """No network
    exit 4; what to do"""
    refused(4, "reconstruct", y, "--model", "rcoast-paper", "--offline", message="switched off")


def test_f35(server, remote):
    """Two processes that need the same file
    one download for both"""
    asked = [threading.Thread(target=fetch, args=(remote, Path("cache/w.bin"))) for _ in range(4)]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert Path("cache/w.bin").read_bytes() == BODY
    assert server.asked == ["/example.org/w.bin"]


def test_f36(y):
    """Weights that are corrupt
    exit 4"""
    path = Path("mine.safetensors")
    path.write_bytes(selftest.GOLDEN.with_name("rcoast.safetensors").read_bytes()[:-1000])
    refused(4, "reconstruct", y, "--model", path, message="mine.safetensors")


def test_f37(y):
    """Weights that are a pickle in disguise
    exit 4; none of its code runs"""

    class Evil:
        def __reduce__(self):
            return Path.touch, (Path("ran"),)

    torch.save({"model": Evil()}, "mine.safetensors")
    refused(4, "reconstruct", y, "--model", "mine.safetensors", message="mine.safetensors")
    words = ["models", "convert", "mine.safetensors", "out.safetensors", "--ipl", 4]
    refused(4, *words, message="safely")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nmodels: {a: !!python/object/apply:os.system ['touch ran']}",
        "version: 1\nmodels: {a: 1}\nmodels: {b: 2}",
        "version: 1\nmodels: {a: {summary: x, surprise: 1}}",
        "[" * 100_000,
        "\udcff",
    ],
)
def test_f38(text):
    """A hostile models.yaml
    exit 4; no code runs; a duplicate key is refused"""
    Path("models.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ModelError) as caught:
        cards.read_cards(Path("models.yaml"))
    assert caught.value.exit_code == 4
    assert not Path("ran").exists()


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


def scorecard() -> str:
    """docs/faults.md."""
    tests = {name: value for name, value in globals().items() if name.startswith("test_f")}
    lines = []
    for name, test in sorted(tests.items()):
        fault, answer = inspect.cleandoc(test.__doc__).splitlines()
        lines.append(f"| {name.removeprefix('test_').upper()} | {fault} | {answer} |")
    return (
        "# Faults\n\nWhat can go wrong, and what csrecon does. Each line has a test of its number "
        "in `tests/test_faults.py`, which also writes this table (`python -m tests.test_faults`). "
        "Every refusal is one line on stderr without a traceback, and no file is changed, lost or "
        "left incomplete.\n\n| | fault | answer |\n|---|---|---|\n" + "\n".join(lines) + "\n"
    )


def test_the_scorecard_is_the_published_one():
    text = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert text == scorecard()
    assert [line[2:5] for line in text.splitlines() if line.startswith("| F")] == [
        f"F{number:02}" for number in range(1, 41)
    ]


if __name__ == "__main__":
    sys.stdout.write(scorecard())
