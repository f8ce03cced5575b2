"""The documents: README's commands run as written, those of the others where they are cheap.

Nothing of a command is changed. Instead the folder where it is typed is made ready: images, values
of cameras, and image sets with the names and numbers of the real ones and tiny images in them.
"""

import itertools
import re
import runpy
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import typer
from PIL import Image
from scipy.io import savemat
from torch import nn
from typer.testing import CliRunner

import csrecon
from csrecon import metrics
from csrecon.cli.app import app
from csrecon.errors import UsageError
from csrecon.io import images
from csrecon.reconstructors.nets import BLOCKS
from csrecon.reconstructors.solvers import SOLVERS
from csrecon.sensing.operators import OPERATORS, BlockOperator, Phi
from csrecon.training import recipe
from csrecon.zoo.datasets import DATASETS
from tests.checks import check_operator, check_reconstructor
from tests.conftest import ROOT, scene
from tests.test_kspace import measured as kspace_of
from tests.test_kspace import write_cfl

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
TINY = 12  # pixels of a side
SMALL = (96, 128)  # a whole number of blocks of 32×32
GAIN, OFFSET = 850, 120
PAGE = "from_ista_to_rcoast.md"  # runs as a whole: test_lecture.py
CAMERA = "camera.md"  # makes its own file: test_the_page_on_a_camera


# --- What stands in a document ---


def lines(text):
    """The words of every line in the shell blocks, without comments; `&&` ends a line."""
    for block in re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL):
        for line in block.replace(" && ", "\n").splitlines():
            if words := shlex.split(line, comments=True):
                yield words


def inline(text):
    """The words of every command in running text or a table."""
    for command in re.findall(r"`((?:csrecon|python|torchrun) [^`]+)`", text):
        yield shlex.split(command)


def arguments(words):
    """What follows `csrecon`; None for another program."""
    if words[:1] == ["torchrun"]:
        assert "-m csrecon" in " ".join(words)
        words = words[words.index("csrecon") :]
    if ">" in words:
        words = words[: words.index(">")]
    return words[1:] if Path(words[0]).name == "csrecon" else None


# --- The check: every command and option exists ---


@cache
def root():
    return typer.main.get_command(app)


def command_of(words):
    """The command that words name, and the words after its name."""
    command, rest = root(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"csrecon {shlex.join(words)}: no {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    return command, rest


def parsed(words):
    """Options and arguments of a whole command by name, as the command would get them."""
    command, rest = command_of(words)
    assert not hasattr(command, "commands"), f"csrecon {shlex.join(words)}: no command"
    try:
        params = command.make_context("csrecon", rest).params
    except Exception as error:
        if not hasattr(error, "format_message"):  # of click, or of Typer's own copy of it
            raise
        raise AssertionError(f"csrecon {shlex.join(words)}: {error.format_message()}") from error
    if words[0] == "train":
        check_recipe(words)
    return params


def check_options(words):
    """Every option in the words is one of the command's; some may be missing."""
    command, rest = command_of(words)
    known = {name for p in command.params for name in [*p.opts, *p.secondary_opts]} | {"--help"}
    given = [word for word in rest if re.match(r"--?[a-z]", word)]
    assert known.issuperset(given), f"csrecon {shlex.join(words)}: {sorted({*given} - known)}"
    if words[0] == "train" and "--set" in words:
        check_recipe(words)


def check_recipe(words):
    """Every field that --set names exists."""
    pairs = list(itertools.pairwise(words))
    variant = next((value for name, value in pairs if name == "--recipe"), None)
    settings = dict(value.split("=", 1) for name, value in pairs if name == "--set")
    recipe.recipe(words[1], variant).changed(settings)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_every_command_and_option_exists(path):
    text = path.read_text(encoding="utf-8")
    for words in lines(text):
        if (given := arguments(words)) is not None:
            parsed(given)
    for words in inline(text):
        if (given := arguments(words)) is not None:
            check_options(given)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sampel img.png", "sampel"),
        ("sample img.png --rato 0.1", "--rato"),
        ("models lst", "lst"),
        ("sample", "IMAGE"),
        ("plot a.json -o", "-o"),
        ("reconstruct y.npy --seed x", "--seed"),
        ("train rcoast --set data.patsch=48", "patsch"),
    ],
)
def test_the_check_finds_what_does_not_exist(line, found):
    with pytest.raises((AssertionError, UsageError), match=found):
        parsed(shlex.split(line))


def test_the_check_of_running_text_finds_what_does_not_exist():
    check_options(shlex.split("sample --kind"))
    with pytest.raises(AssertionError, match="--kid"):
        check_options(shlex.split("sample --kid"))


def test_every_script_takes_the_options_named(monkeypatch, capsys):
    scripts = set()
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for words in [*lines(text), *inline(text)]:
            if words[0] != "python" or not words[1].endswith(".py"):
                continue
            script = ROOT / words[1]
            assert script.is_file(), shlex.join(words)
            scripts.add(words[1])
            given = {word for word in words[2:] if word.startswith("--")}
            if given:
                known = set(re.findall(r"--[a-z-]+", help_of(script, monkeypatch, capsys)))
                assert known >= given, f"{shlex.join(words)}: {given - known}"
    assert "benchmarks/speed.py" in scripts


def help_of(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(str(script.parent))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_shell_blocks_hold_nothing_that_is_not_checked(path):
    setup = (
        "python3 -m venv .venv",
        ".venv/bin/pip install -c constraints.txt",
        ".venv/bin/pytest",
    )
    for words in lines(path.read_text(encoding="utf-8")):
        if arguments(words) is None and words[0] != "python":
            assert path.name == "README.md", words
            assert shlex.join(words).startswith(setup), words  # .ci/run runs these


# --- The folder where commands are typed ---


def picture(height, width):
    return scene(height, width)[..., 0] / np.float32(255)


def by_columns(phi):
    """Φ for the pixels of 32×32 blocks column by column, as MATLAB has them."""
    return phi.reshape(-1, 32, 32).swapaxes(1, 2).reshape(phi.shape)


def values(phi, shape):
    """Φx of every block of 32×32, (blocks, m)."""
    camera = BlockOperator(Phi.given(phi), shape)
    return camera(torch.from_numpy(picture(*shape))[None, None]).flatten(0, 2).numpy()


def scanned():
    """K-space of one small slice in every file format."""
    k = kspace_of(1)[0]
    with h5py.File("kspace.h5", "w") as file:
        file["kspace"] = k
    np.save("kspace.npy", k)
    turned = k.transpose(2, 3, 1, 0)
    savemat("kspace.mat", {"kspace": turned})
    write_cfl(Path("kspace.cfl"), turned[:, :, None])


@pytest.fixture
def folder(monkeypatch):
    """Everything that the documents' commands ask for, under the names that they use."""
    for name in ("bsd68", "set11"):
        Path("sets", name).mkdir(parents=True)
        for index in range(DATASETS[name].count):
            tiny = scene(TINY + index, TINY)[index:]
            Image.fromarray(tiny).save(f"sets/{name}/{index:02}.png")
    monkeypatch.setenv("CSRECON_DATA", str(Path("sets").resolve()))
    Path("photos").mkdir()
    for index in range(2):
        Image.fromarray(scene(70, 80 + index)).save(f"photos/{index}.png")  # hold a patch of 66
    Image.fromarray(scene(*SMALL)).save("img.png")
    Image.fromarray(scene(*SMALL)).save("grace_hopper.jpg")
    Image.fromarray(scene(*SMALL)[..., 0]).save("brain.png")
    scanned()
    phi = Phi.make(40, 1024, 0).matrix
    savemat("lab.mat", {"y": values(phi, (480, 288)).T, "Phi": by_columns(phi)})
    phi = Phi.make(256, 1024, 0).matrix
    np.save("phi.npy", phi)
    y = values(phi, SMALL)
    savemat("camera.mat", {"y": (GAIN * y + OFFSET).T, "Phi": by_columns(phi)})
    np.savetxt("y.csv", GAIN * y + OFFSET, delimiter=",")
    np.save("white.npy", GAIN * phi.sum(axis=1) + OFFSET)
    np.save("black.npy", np.full(len(phi), float(OFFSET)))
    Path("pairs").mkdir()
    gains = 1 + 0.1 * np.sin(np.arange(len(phi)))
    for index in range(3):
        pattern = np.random.default_rng(index).integers(0, 256, SMALL, np.uint8)
        Image.fromarray(pattern).save(f"pairs/{index}.png")
        camera = BlockOperator(Phi.given(gains[:, None] * phi), SMALL)
        seen = camera(torch.from_numpy(pattern / np.float32(255))[None, None]).flatten(0, 2).numpy()
        np.save(f"pairs/{index}.npy", GAIN * seen + OFFSET)
    places = [(row, column) for row in range(3) for column in range(4)]
    kept = [index for index in range(12) if index not in (2, 7)]
    np.savetxt("part.csv", y[kept], delimiter=",")
    np.savetxt("positions.csv", [places[index] for index in kept], fmt="%d", delimiter=",")


def typed(words):
    """Run a command as written; its output."""
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, f"csrecon {shlex.join(words)}\n{result.output}"
    return result.output


def psnr(path, shape):
    found = images.read(Path(path), "gray").planes
    return metrics.score(found, torch.from_numpy(picture(*shape))[None, None]).psnr


@pytest.mark.slow
def test_readme_runs_as_written(folder):
    ran = [words[1:] for words in lines(README) if words[0] == "csrecon"]
    for words in ran:
        typed(words)
    assert ["bench", "--dataset", "bsd68"] in ran
    made = {path.name for path in Path().iterdir()}
    assert {"y.npy", "y.json", "y.png", "colour.png", "lab.png", "lab.npz", "noisy.png"} <= made
    assert len(list(Path("images").iterdir())) == 2
    assert psnr("lab.png", (480, 288)) > 15  # the pixel order is the right one


def costly(words):
    """Whether a command takes minutes or more, or asks the network."""
    if words[0] == "train":
        return not any(word.startswith("steps=") for word in words)
    if words[0] == "export":  # run as written, but smaller, in test_export.py
        return "--inputs-only" not in words
    return words[0] in ("adapt", "bench") or "download" in words


def stand_in(outputs):
    """Put a small report where a costly bench would have written one."""
    report = Path("stand_in.json")
    if not report.exists():
        command = "bench --dataset photos/ --ratio 0.1,0.5 --ipls 1..2 --noise-sigma 0,0.1"
        typed([*shlex.split(command), "-o", str(report)])
    for output in outputs:
        target = output if output.suffix else output / "bench.json"
        if target.suffix == ".json":
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(report, target)


@pytest.mark.parametrize(
    "name", sorted({path.name for path in ROOT.glob("docs/*.md")} - {PAGE, CAMERA})
)
def test_cheap_commands_of_the_documents_run_as_written(name, folder):
    commands = list(lines((ROOT / "docs" / name).read_text(encoding="utf-8")))
    plotted = any(words[1] == "plot" for words in commands)
    for words in commands:
        if words[0] == "csrecon" and not costly(words[1:]):
            typed(words[1:])
        elif words[:2] == ["csrecon", "bench"] and plotted:
            stand_in(parsed(words[1:])["output"] or [])
    if name == "measurements.md":
        for image in ("known.png", "calibrated.png"):
            assert psnr(image, SMALL) > 20
        with Image.open("part.png") as part:
            assert part.getbands()[-1] == "A"


# --- Python ---


def examples(text):
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


def test_python_of_the_documents():
    """README's first, and all of docs/python.md; the others are test_deepinverse's and below."""
    whole = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    phi = Phi.make(256, 1024, 0).matrix
    names = {"image": picture(*SMALL), "folder": Path(), "phi": by_columns(phi)}
    names["y"] = GAIN * values(phi, SMALL) + OFFSET
    for example in examples(whole):
        exec(example, names)
        assert names["x"].shape == SMALL
    assert not names["masked"].any()

    first, *_ = examples(README)
    phi = Phi.make(109, 1089, 0).matrix
    y = csrecon.sample(picture(480, 288), ratio=0.1).y.numpy()
    exec(first, {"image": picture(60, 70), "y": y, "phi": phi})


def test_python_of_the_page_on_extending(monkeypatch):
    """Its operator, solver and networks keep the contracts; README's block is the page's."""
    for registry, name in ((OPERATORS, "coarse"), (SOLVERS, "box"), (BLOCKS, "mine")):
        monkeypatch.setitem(registry, name, None)  # and removed afterwards
    whole = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    names = {"image": picture(48, 64), "folder": Path()}
    for example in examples(whole):
        exec(example, names)
        assert names["x"].shape == (48, 64)
    m, operator = names["m"], names["CoarseOperator"]
    for domain, block in (((1, 8, 12), (2, 3)), ((2, 9, 6), (3, 1))):
        check_operator(operator(domain, block))
    with pytest.raises(UsageError, match="whole number of 2×2"):
        csrecon.sample(picture(7, 8), kind="coarse")
    for model in (names["net"], names["blueprint"].build(), csrecon.load("box:iterations=20")):
        check_reconstructor(model.eval() if isinstance(model, nn.Module) else model, m)
    inside = csrecon.reconstruct(m, "box")
    assert inside.min() > -1e-6
    assert inside.max() < 1 + 1e-6

    second = examples(README)[1]
    assert "class MyBlock(ProxBlock): ...\n" in second  # the dots stand for what the page has
    exec(second.replace("class MyBlock(ProxBlock): ...\n", ""), names)
    assert len(names["net"].blocks) == 5


def test_the_page_on_a_camera(folder):
    """Every step of it; calibration makes a bad image a good one, as it says."""
    text = (ROOT / "docs" / CAMERA).read_text(encoding="utf-8")
    (example,) = examples(text)
    exec(example, {})
    said = "".join(typed(words[1:]) for words in lines(text))
    assert "rows, Φ changed by 4.8 %" in said
    assert "No order predicts the held-out values" in said
    original, first, calibrated, again = (
        images.read(Path(f"{name}.png"), "gray").planes
        for name in ("original", "first", "calibrated", "again")
    )
    assert float(metrics.psnr(first, original)) == pytest.approx(9.7, abs=0.3)
    assert float(metrics.psnr(calibrated, original)) == pytest.approx(31.4, abs=0.3)
    assert float(metrics.psnr(again, original)) > 31


def test_python_of_the_page_on_trust():
    """A Φ with a gain in every row costs quality, and calibration gives it back."""
    (example,) = examples((ROOT / "docs" / "trust.md").read_text(encoding="utf-8"))
    names = {"image": picture(132, 132)}
    exec(example, names)
    fit, true = names["fit"], names["true"]
    assert fit.better
    assert np.abs(fit.phi - true).max() < 0.1 * np.abs(names["nominal"] - true).max()
    assert names["after"].psnr > names["before"].psnr + 1


def test_python_of_the_page_on_solvers():
    text = (ROOT / "docs" / "solvers.md").read_text(encoding="utf-8")
    example, learning = examples(text)
    Path("photos").mkdir()
    for index in range(12):
        Image.fromarray(scene(40 + index, 50)).save(f"photos/{index:02}.png")
    exec(learning, {})
    m = csrecon.sample(picture(48, 64), 0.3, block=16)
    truth = torch.from_numpy(picture(48, 64))[None, None]
    atoms = np.load("atoms.npy")
    assert atoms.shape == (256, 257)
    assert np.linalg.norm(atoms, axis=0).max() < 1 + 1e-5
    assert metrics.psnr(csrecon.load("omp:dictionary=atoms.npy")(m), truth) > 30
    names = {"csrecon": csrecon, "m": csrecon.sample(picture(40, 48), 0.3, block=16)}
    exec(example, names)
    assert names["x"].shape == (40, 48)
    assert names["steps"][-1].stopped == "iterations"


def test_python_of_the_page_on_mri():
    (example,) = examples((ROOT / "docs" / "mri.md").read_text(encoding="utf-8"))
    names = {"csrecon": csrecon, "image": picture(40, 48)}
    exec(example, names)
    assert names["x"].shape == (40, 48)
    assert names["m"].y.shape[:2] == (1, 8)


# --- Places ---


@pytest.mark.parametrize("name", ["use", "test"])
def test_set_up_commands_stand_where_ci_looks_for_them(name):
    assert re.search(rf"<!-- setup: {name} -->\n```sh\npython3 -m venv .*\n```", README)


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_to_files(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
