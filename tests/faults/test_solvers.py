"""Faults of classical solvers, denoisers, and what is asked of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csrecon.reconstructors.solvers.tv import TotalVariation
from csrecon.zoo import cards, weights_file
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run
from tests.test_dncnn import matlab
from tests.test_solver_commands import diverging


@pytest.fixture(autouse=True)
def photo():
    """img.png of 32×48 pixels, and y.npy, its measurement at 30 % in blocks of 16×16."""
    Image.fromarray(scene(32, 48)).convert("L").save("img.png")
    run("sample", "img.png", "--ratio", 0.3, "--block", 16, "-o", "y.npy")


def wrong(code, model, *words, message):
    refused(code, "reconstruct", "y.npy", "--model", model, *words, message=message)


def test_f144():
    """An unknown solver, an option that it does not have, or one without a value
    exit 2, or 4 for the name; the nearest that exists"""
    wrong(4, "fitsa", message="did you mean 'fista'")
    wrong(2, "fista:iteration=9", message="no option 'iteration': did you mean 'iterations'")
    wrong(2, "fista:transform=wavelets", message="transform='wavelets'")
    wrong(2, "tv:iterations", message="'iterations' is no option; expected NAME:option=value")
    wrong(2, "tv:iterations=9,iterations=8", message="'iterations' is given twice")
    refused(2, "bench", "--dataset", ".", "--model", "tv:wieght=1", message="did you mean 'weight'")


@pytest.mark.parametrize(
    "option",
    ["tv:iterations=0", "tv:iterations=9.5", "omp:sparsity=0", "lasso:weight=-1", "tv:weight=0",
     "tval3:last=-0.1", "ista:weight=nan", "fista:first=inf", "fista:tolerance=2", "damp:seed=-1",
     "pnp:last=-1", "tv:weight=much"],
)  # fmt: skip
def test_f145(option):
    """Iterations of 0, or a strength, tolerance, noise level or seed out of its range
    exit 2; the value and its range"""
    wrong(2, option, message=option.partition(":")[2].replace("=", "='"))


def test_f146():
    """A dictionary that is missing, not finite, or does not fit the blocks
    exit 3, or 2 where it does not fit; the shape that is needed"""
    wrong(3, "omp:dictionary=none.npy", message="none.npy")
    np.save("nan.npy", np.full((256, 300), np.nan))
    wrong(3, "omp:dictionary=nan.npy", message="expected a finite real matrix")
    np.save("small.npy", np.eye(64))
    wrong(2, "omp:dictionary=small.npy", message="blocks of 16×16 pixels need (256, atoms)")


def test_f147(monkeypatch):
    """A solver that diverges
    exit 7 and no image; --keep-going writes the best iterate"""
    monkeypatch.setattr(TotalVariation, "iterates", diverging)
    wrong(7, "tv", message="diverged in iteration 3: the objective grew from 1 to 99")
    run("reconstruct", "y.npy", "--model", "tv", "--keep-going", "-o", "best.npy")
    np.testing.assert_array_equal(np.load("best.npy"), np.full((32, 48), 0.5, np.float32))


def test_f148():
    """A measurement whose operator a solver cannot take
    exit 2; a solver that takes it"""
    wrong(2, "denoise", message="use pnp")
    run("sample", "img.png", "--kind", "fourier", "--ratio", 0.5, "-o", "k.npy")
    for model, other in {"omp": "--model fista", "damp": "Use pnp"}.items():
        refused(2, "reconstruct", "k.npy", "--model", model, message=other)


def test_f149(monkeypatch):
    """A denoiser without weights, a network for something else, or a file that holds none
    exit 4; what was expected"""
    wrong(4, "pnp:with=rcoast", message="trained for compressive-sensing: expected a denoiser")
    Path("a.safetensors").write_bytes(b"none")
    wrong(4, "damp:with=a.safetensors", message="not a readable safetensors file")
    wrong(3, "pnp:with=b.safetensors", message="no such file")
    card = cards.card("rdenoise").model_dump(mode="json") | {"weights": None}
    Path("own.yaml").write_text(json.dumps({"version": 2, "models": {"mine": card}}))
    monkeypatch.setenv("CSRECON_MODELS", "own.yaml")
    wrong(4, "pnp:with=mine", message="'mine' has no released weights yet")


def test_f150():
    """An unknown denoiser, an option that it does not have, or a solver in its place
    exit 2; the nearest that exists"""
    wrong(2, "pnp:with=wavelt", message="did you mean 'wavelet'")
    wrong(2, "pnp:with=nlm:patc=5", message="did you mean 'patch'")
    wrong(2, "damp:with=nlm:patch=0", message="patch='0'")
    wrong(2, "pnp:with=tv:weight=-1", message="weight='-1'")
    wrong(2, "pnp:with=fista", message="unknown denoiser 'fista'")


def test_f151():
    """A warm start of another size, or for a model that has its own
    exit 2; what was expected, and which models take one"""
    Image.fromarray(scene(9, 9)).convert("L").save("small.png")
    wrong(2, "tv", "--init", "small.png", message="expected an image of the size")
    wrong(2, "omp", "--init", "img.png", message="leave out the warm start")
    wrong(2, "rista", "--init", "img.png", message="classical solvers")
    wrong(2, "damp", "--init-model", "tv:iterations=2", message="damp has no warm start")


def test_f152():
    """`weight=auto` with too few values to hold any out
    exit 2; give a weight, or the noise"""
    run("sample", "img.png", "--m", 1, "--block", 32, "-o", "one.npy")
    refused(2, "reconstruct", "one.npy", "--model", "tv:weight=auto", message="Give a weight")


def test_f153():
    """No number, none that the network allows, or one of a solver after MODEL@
    exit 2; the range"""
    path = Path("mine.safetensors")
    card = cards.card("rdenoise")
    weights_file.save(card.build(), card.blueprint(), path)
    for at, message in {"@x": "expected mine.safetensors@IPL", "@99": "1..8", "@0": "0"}.items():
        wrong(2, f"{path}{at}", message=message)
        wrong(2, f"pnp:with={path}{at}", message=message)
    wrong(2, "tv@3", message="a classical solver has no layers")


def test_f154(server, tmp_path):
    """Published weights whose download is another MATLAB file, or none
    exit 4; nothing is converted"""
    remote = cards.card("dncnn-25").weights.checkpoint
    place = remote.url.removeprefix("https:/")
    for content in (b"MATLAB 7.3", matlab(tmp_path / "a.mat", []).read_bytes()):
        server.answers[place] = content
        wrong(4, "pnp:with=dncnn-25", message="dncnn-25")
