"""The command line: the documented commands, their exit codes, and nothing lost on a fault."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from csrecon.cli.app import app
from csrecon.sensing import native
from tests.conftest import scene


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def names(folder):
    return {path.name for path in Path(folder).iterdir()} - {"cache"}


@pytest.fixture
def measured(photo):
    run("sample", photo, "--ratio", 0.1)
    return Path("y.npy")


def test_sample_then_reconstruct_as_typed(photo):
    run("sample", "img.png", "--ratio", "0.1")
    assert names(".") == {"img.png", "y.npy", "y.json"}
    result = run("reconstruct", "y.npy", "--model", "rcoast", "--ipl", "6", "--ref", "img.png")
    assert "30 iterations" in result.stdout
    assert "PSNR" in result.stdout
    with Image.open("y.png") as image:
        assert image.size == (70, 50)
        assert image.mode == "L"


@pytest.mark.parametrize("color", ["rgb", "ycbcr"])
def test_colour(photo, color):
    run("sample", photo, "--ratio", 0.5, "--color", color, "--pack", "npz")
    result = run("reconstruct", "y.npz", "--ref", photo, "--json")
    (facts,) = json.loads(result.stdout)
    assert facts["psnr"] > 20
    assert facts["color"] == color
    with Image.open("y.png") as image:
        assert image.mode == "RGB"


def test_sixteen_bits_stay_sixteen(tmp_path):
    Image.fromarray(scene()[..., 0].astype(np.uint16) * 257).save("deep.png")
    run("sample", "deep.png", "--ratio", 0.5)
    run("reconstruct", "y.npy", "--ipl", 1)
    with Image.open("y.png") as image:
        assert image.mode == "I;16"


def test_ipl_per_layer(measured):
    result = run("reconstruct", measured, "--model", "rcoast", "--ipl", "1,2,3,1,1", "--json")
    assert json.loads(result.stdout)[0]["iterations"] == 8


def test_beyond_the_training_is_said(measured):
    words = ("reconstruct", measured, "--model", "rcoast", "--ipl", 7)
    assert "above 6 iterations" in run(*words).stderr
    assert "above 6 iterations" not in run(*words, "-q", "--overwrite").stderr


def test_a_phi_of_your_own(photo):
    phi = np.random.Generator(np.random.PCG64(0)).normal(size=(60, 256))
    np.save("phi.npy", phi)
    run("sample", photo, "--phi", "phi.npy")
    assert "--phi" in run("reconstruct", "y.npy", code=2).stderr
    run("reconstruct", "y.npy", "--phi", "phi.npy")
    np.save("bare.npy", np.load("y.npy"))
    run("reconstruct", "bare.npy", "--phi", "phi.npy", "--shape", "50x70")
    assert Path("bare.png").read_bytes() == Path("y.png").read_bytes()


def test_bare_values_with_a_seed(photo, measured):
    np.save("bare.npy", np.load(measured))
    result = run("reconstruct", "bare.npy", code=2)
    assert "--shape" in result.stderr
    assert "--seed" in result.stderr
    run("reconstruct", "bare.npy", "--seed", 0, "--shape", "50x70", "--ref", photo)


def test_folders_and_globs(tmp_path):
    Path("photos").mkdir()
    for index in range(3):
        Image.fromarray(scene(40, 40 + index)).save(f"photos/{index}.png")
    run("sample", "photos", "--ratio", 0.1, "-o", "measured")
    assert names("measured") == {f"{i}.{kind}" for i in range(3) for kind in ("npy", "json")}
    result = run("reconstruct", "measured/[01].npy", "--ipl", 1, "-o", "out", "--ref", "photos")
    assert result.stdout.count("PSNR") == 2
    assert names("out") == {"0.png", "1.png"}
    assert "-o FOLDER" in run("sample", "photos", "--ratio", 0.1, code=2).stderr


def test_one_bad_file_in_a_batch(tmp_path):
    Path("photos").mkdir()
    Image.fromarray(scene(40, 40)).save("photos/good.png")
    Path("photos/bad.png").write_text("not an image")
    result = run("sample", "photos", "--ratio", 0.1, "-o", "measured", code=6)
    assert "1 of 2 files failed (bad.png)" in result.stderr
    assert "good.png" in result.stdout
    assert names("measured") == {"good.npy", "good.json"}


def test_two_inputs_of_one_name(tmp_path):
    for suffix in ("png", "bmp"):
        Image.fromarray(scene(40, 40)).save(f"a.{suffix}")
    result = run("sample", "a.png", "a.bmp", "--ratio", 0.1, "-o", "out", code=2)
    assert "both write" in result.stderr
    assert not Path("out").exists()


def test_models(tmp_path):
    assert "rcoast" in run("models", "list").stdout
    assert "18,287 steps" in run("models", "info", "rcoast-first").stdout
    assert json.loads(run("models", "info", "rcoast", "--json").stdout)["parameters"] == 281_674
    assert set(json.loads(run("models", "list", "--json").stdout)) >= {"rcoast", "coast"}
    assert "did you mean 'rcoast'" in run("models", "info", "rcost", code=4).stderr


def test_bench_a_folder(tmp_path):
    Path("few").mkdir()
    Image.fromarray(scene(40, 40)).save("few/a.png")
    arguments = ("bench", "--dataset", "few", "--ratio", "0.1,0.5", "--ipls", "1..2")
    result = run(*arguments, "-o", "report")
    assert "not rounded" in result.stdout
    assert names("report") == {"bench.csv", "bench.json", "bench.md", "bench.tex"}
    assert len(json.loads(run(*arguments, "--json").stdout)["rows"]) == 4
    run(*arguments, "-o", "report", code=2)


def test_doctor(monkeypatch):
    result = run("doctor")
    assert result.stdout.count("self-test       ok") == 3
    facts = json.loads(run("doctor", "--json").stdout)
    assert all(stage["ok"] for stage in facts["selftest"])


def test_doctor_finds_a_wrong_machine(monkeypatch):
    from csrecon.evaluation import selftest

    right = selftest.compute

    def wrong(device):
        values = right(device)
        return values | {"image": values["image"] + np.float32(2e-3)}

    monkeypatch.setattr(selftest, "compute", wrong)
    result = run("doctor", code=7)
    assert "FAIL reconstruction" in result.stdout
    assert "cannot be trusted" in result.stderr


@pytest.mark.slow
def test_quickstart():
    result = run("quickstart", "--json")
    facts = json.loads(result.stdout)
    scores = {r["ipl"]: r["psnr"] for r in facts["results"]}
    assert list(scores) == [2, 4, 8, 20]
    assert scores[20] > scores[8] > scores[4] > scores[2] > 20
    with Image.open("quickstart.png") as image:
        assert image.width > 1200
    assert "exists" in run("quickstart", code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["sample", "img.png", "--ratio", "0"], 2, "ratio 0"),
        (["sample", "img.png", "--ratio", "-0.1"], 2, "ratio -0.1"),
        (["sample", "img.png", "--ratio", "1.5"], 2, "ratio 1.5"),
        (["sample", "img.png", "--ratio", "nan"], 2, "ratio nan"),
        (["sample", "img.png", "--ratio", "x"], 2, "ratio"),
        (["sample", "img.png"], 2, "--ratio"),
        (["sample", "img.png", "--m", "0"], 2, "m = 0"),
        (["sample", "img.png", "--ratio", "0.1", "--color", "red"], 2, "red"),
        (["sample", "img.png", "--ratio", "0.1", "--pack", "zip"], 2, "zip"),
        (["sample", "img.png", "--ratio", "0.1", "-o", "y.mat"], 2, ".npy or .npz"),
        (["sample", "missing.png", "--ratio", "0.1"], 3, "no such file"),
        (["sample", "text.png", "--ratio", "0.1"], 3, "not an image"),
        (["sample", "cut.png", "--ratio", "0.1"], 3, "truncated"),
        (["sample", "empty.png", "--ratio", "0.1"], 3, "empty"),
        (["sample", "nothing", "--ratio", "0.1", "-o", "out"], 3, "no image"),
        (["sample", "*.gif", "--ratio", "0.1", "-o", "out"], 3, "no file matches"),
        (["sample", "img.png", "--phi", "pickled.npy"], 3, "pickled"),
        (["reconstruct", "missing.npy"], 3, "no such file"),
        (["reconstruct", "pickled.npy", "--seed", "0", "--shape", "9x9"], 3, "pickled"),
        (["reconstruct", "short.npy", "--seed", "0", "--shape", "9x9"], 3, "promises"),
        (["reconstruct", "nan.npy", "--seed", "0", "--shape", "9x9"], 3, "NaN"),
        (["reconstruct", "nothing", "-o", "out"], 3, "no measurement"),
        (["reconstruct", "m.npy", "--ipl", "0"], 2, "at least 1"),
        (["reconstruct", "m.npy", "--ipl", "25"], 2, "1..24"),
        (["reconstruct", "m.npy", "--ipl", "two"], 2, "two"),
        (["reconstruct", "m.npy", "--ipl", "4,4"], 2, "1 layer"),
        (["reconstruct", "m.npy", "--model", "rcost"], 4, "did you mean 'rcoast'"),
        (["reconstruct", "m.npy", "--model", "a.safetensors"], 3, "no such file"),
        (["reconstruct", "m.npy", "--device", "tpu"], 2, "tpu"),
        (["reconstruct", "m.npy", "--device", "cuda:99"], 5, "cuda:99"),
        (["reconstruct", "m.npy", "--shape", "50"], 2, "HxW"),
        (["reconstruct", "m.npy", "--phi", "other.npy"], 3, "wrong Φ"),
        (["reconstruct", "m.npy", "-o", "x.xyz"], 2, "image format"),
        (["reconstruct", "m.npy", "--ref", "small.png"], 3, "is this the original"),
        (["bench", "--dataset", "bsd86"], 4, "did you mean 'bsd68'"),
        (["bench", "--dataset", "bsd68"], 4, "not on this machine"),
        (["bench", "--dataset", "photos", "--protocol", "mine"], 2, "mine"),
        (["bench", "--dataset", "photos", "--model", "rcost"], 4, "rcoast"),
        (["bench", "--dataset", "photos", "--ipls", "0..3"], 2, "0..3"),
        (["bench", "--dataset", "photos", "--ipls", "25..26"], 2, "1..24"),
        (["bench", "--dataset", "photos", "--model", "tv", "--ipl", "3"], 2, "classical solver"),
        (["sample", "img.png", "--ratio", "0.1", "--pack", "npz", "-o", "a.npy"], 2, "contradict"),
        (["reconstruct", "m.npy", "--shape", "9" * 5000 + "x3"], 2, "HxW"),
        (["reconstruct", "m.npy", "--block", "0"], 2, "greater than or equal to 1"),
        (["reconstruct", "m.npy", "--seed", "-1"], 2, "greater than or equal to 0"),
        (["quickstart", "-o", "figure"], 2, "expected a figure with suffix"),
        (["models", "info", "tv"], 4, "classical solver"),
        (["sample", "phot*", "--ratio", "0.1", "-o", "out"], 3, "no file matches"),
        (["bench", "--dataset", "photos", "--ratio", "0.1,2"], 2, "ratio 2"),
    ],
)
def test_bad_input(photo, arguments, code, message):
    run("sample", photo, "--ratio", 0.1, "-o", "m.npy")
    whole = photo.read_bytes()
    Path("cut.png").write_bytes(whole[: len(whole) // 2])
    Path("text.png").write_text("hello")
    Path("empty.png").touch()
    Path("nothing").mkdir()
    Path("photos").mkdir()
    Image.fromarray(scene(40, 40)).save("photos/a.png")
    Image.fromarray(scene(40, 40)).save("small.png")
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("nan.npy", np.full((1, 109), np.nan))
    np.save("other.npy", np.eye(109, 1089))
    Path("short.npy").write_bytes(Path("nan.npy").read_bytes()[:-40])
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    result = run(*arguments, code=code)
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before


def test_stale_sidecar(measured):
    np.save(measured, np.load(measured) * np.float32(1.01))
    assert "stale" in run("reconstruct", measured, code=3).stderr
    assert not Path("y.png").exists()


def test_outputs_are_kept(photo, measured):
    run("reconstruct", measured, "--ipl", 1)
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    assert "--overwrite" in run("sample", photo, "--ratio", 0.2, code=2).stderr
    assert "--overwrite" in run("reconstruct", measured, code=2).stderr
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
    run("sample", photo, "--ratio", 0.2, "--overwrite")
    run("reconstruct", measured, "--overwrite")
    assert Path("y.png").read_bytes() != before[Path("y.png")]


def test_inputs_are_never_outputs(photo, measured):
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    for target in ("y.npy", "img.png"):
        result = run(
            "reconstruct", measured, "-o", target, "--ref", photo, "--overwrite", code=2
        )  # fmt: skip
        assert "is an input" in result.stderr
    run("sample", photo, "--ratio", 0.1, "-o", "./")
    result = run("reconstruct", "img.npy", "--ref", photo, "--overwrite", code=2)
    assert "is an input" in result.stderr
    assert before.items() <= {p: p.read_bytes() for p in Path().iterdir() if p.is_file()}.items()


def test_names_as_people_give_them(tmp_path):
    for name in ("two words.png", "a.b.c.PNG", "~tilde.png", "Φ.png"):
        Image.fromarray(scene(40, 40)).save(name)
        run("sample", name, "--ratio", 0.1, "-o", "out.v2/")
        measured = Path("out.v2") / f"{Path(name).stem}.npy"
        run("reconstruct", measured, "--ipl", 1)
        assert measured.with_suffix(".png").exists()
    Path("out.v2/Φ.npy").rename("UPPER.NPY")
    run("reconstruct", "UPPER.NPY", "--seed", 0, "--shape", "40x40", "--ipl", 1)


def test_small_images_give_valid_json(tmp_path):
    Image.fromarray(scene(5, 5)).save("tiny.png")
    run("sample", "tiny.png", "--ratio", 1)
    (facts,) = json.loads(run("reconstruct", "y.npy", "--ref", "tiny.png", "--json").stdout)
    assert facts["ssim"] is None


@pytest.mark.parametrize("arguments", [["models", "list"], ["models", "info", "rcoast"], ["-h"]])
def test_a_terminal_that_has_only_ascii(arguments):
    command = [sys.executable, "-c", "from csrecon.cli import main; main()", *arguments]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_as_stdout():
    command = [sys.executable, "-c", "from csrecon.cli import main; main()", "models", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 5


def test_a_bug_is_exit_code_1_and_debug_shows_it(photo, monkeypatch, capfd):

    def broken(*_):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(native, "save", broken)
    result = run("sample", photo, "--ratio", 0.1, code=1)
    assert "please report" in result.stderr
    assert "Traceback" not in result.stderr
    assert "Traceback" in run("sample", photo, "--ratio", 0.1, "--debug", code=1).stderr


def test_every_command_has_help_with_an_example():
    for command in (
        ["quickstart"], ["sample"], ["reconstruct"], ["calibrate"], ["bench"], ["doctor"],
        ["models", "list"], ["models", "info"], ["models", "convert"],
    ):  # fmt: skip
        text = run(*command, "--help").stdout
        assert f"csrecon {' '.join(command)}" in text.split("Example")[1]
    assert "0." in run("--version").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_nothing_half_written(tmp_path, number, code):
    Image.fromarray(scene(900, 900)).save("big.png")
    run("sample", "big.png", "--ratio", 0.1)
    command = [sys.executable, "-c", "from csrecon.cli import main; main()"]
    process = subprocess.Popen(
        [*command, "reconstruct", "y.npy", "--ipl", "12", "-v"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert process.stderr is not None
    said = process.stderr.readline()  # the device is chosen: work begins
    assert "device" in said
    time.sleep(1.0)
    process.send_signal(number)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == code, rest
    assert names(".") == {"big.png", "y.npy", "y.json"}
