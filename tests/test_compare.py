"""Several models on one image, originals beside measurements, and tables of results."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csrecon
from csrecon import metrics
from csrecon.errors import InputError, UsageError
from csrecon.evaluation import compare, references
from csrecon.evaluation.compare import Entry
from csrecon.evaluation.table import Table
from csrecon.io import images
from csrecon.runtime import execution
from csrecon.sensing import native
from tests.conftest import scene
from tests.test_cli import run

SETUP = execution.choose("cpu", "fp32")


@pytest.fixture
def picture():
    return images.from_array(scene(50, 70)[..., 0])


def test_every_model_gives_what_reconstruct_gives(picture):
    m = csrecon.sample(picture, 0.2)
    entries = [Entry("rcoast", 1), Entry("rcoast", (1, 1, 1, 1, 2)), Entry("tv:iterations=3")]
    seen = []
    outcomes = compare.compare(
        picture, m, entries, SETUP, lambda entry, step: seen.append((entry, step.index))
    )
    labels = ["rcoast, IPL 1", "rcoast, IPL 1,1,1,1,2", "tv:iterations=3"]
    assert [o.label for o in outcomes] == labels
    for entry, outcome in zip(entries, outcomes, strict=True):
        x = csrecon.reconstruct(m, entry.model, entry.ipl, "cpu", precision="fp32")
        np.testing.assert_array_equal(outcome.image, x)
        assert outcome.score.psnr == references.score(x, scene(50, 70)[..., 0] / 255)["psnr"]
        assert outcome.facts()["seconds"] > 0
    counts = [sum(entry is known for entry, _ in seen) for known in entries]
    assert counts == [5, 6, 3]


def test_a_film_has_every_iterate(picture):
    m = csrecon.sample(picture, 0.2)
    outcomes = compare.film(picture, m, Entry("rcoast", 2), SETUP)
    assert [o.label for o in outcomes] == [f"iteration {i}" for i in range(1, 11)]
    x = csrecon.reconstruct(m, "rcoast", 2, "cpu", precision="fp32")
    np.testing.assert_array_equal(outcomes[-1].image, x)
    assert outcomes[0].score.psnr < outcomes[-1].score.psnr


def test_panels(picture):
    m = csrecon.sample(picture, 0.2)
    (outcome,) = compare.compare(picture, m, [Entry("tv")], SETUP)
    assert compare.original(picture).title == "original\n50×70"
    assert f"{outcome.score.psnr:.2f} dB" in outcome.panel().title
    assert compare.error(outcome, picture).error
    assert "218 of 1089" in compare.title(m)
    square = compare.zoom("10,20,30", outcome.image)
    assert (square.top, square.left, square.side) == (10, 20, 30)
    for wrong in ("10,20", "40,0,20", "0,60,20", "a,b,c", "0,0,0"):
        with pytest.raises(UsageError, match="inside 50×70"):
            compare.zoom(wrong, outcome.image)


def test_the_score_of_masked_images_counts_what_was_observed():
    original = scene(40, 40)[..., 0].astype(np.float32) / 255
    result = original + 0.1 * np.sin(np.arange(40))[None].astype(np.float32)
    observed = np.zeros((40, 40), bool)
    observed[:20] = True
    broken = result.copy()
    broken[~observed] = np.nan
    found = references.score(np.nan_to_num(broken, nan=5.0), original, observed)
    clipped = np.clip(result, 0, 1)
    error = np.mean((clipped[observed] - original[observed]) ** 2)
    assert found == {"psnr": pytest.approx(-10 * np.log10(error), abs=1e-4)}
    whole = references.score(result, original)
    score = metrics.score(*(images.from_array(np.clip(a, 0, 1)).planes for a in (result, original)))
    assert whole["psnr"] == pytest.approx(score.psnr, abs=1e-5)
    assert whole["ssim"] == pytest.approx(score.ssim, abs=1e-6)
    phase = np.exp(1j * np.arange(40))
    assert references.score(result * phase, np.abs(original))["psnr"] == pytest.approx(
        references.score(np.abs(result), original)["psnr"], abs=1e-3
    )


def test_originals_are_found_by_name(tmp_path):
    folder = tmp_path / "originals"
    folder.mkdir()
    Image.fromarray(scene(20, 30)).save(folder / "a.png")
    assert references.find(folder, "a", many=True) == folder / "a.png"
    assert references.find(folder / "a.png", "b", many=False) == folder / "a.png"
    with pytest.raises(InputError, match=r"no image named b\.\*"):
        references.find(folder, "b", many=True)
    with pytest.raises(InputError, match="folder of originals"):
        references.find(folder / "a.png", "a", many=True)
    assert references.read(folder / "a.png", "rgb", (20, 30)).shape == (20, 30, 3)
    with pytest.raises(InputError, match="is this the original"):
        references.read(folder / "a.png", "gray", (30, 20))


def test_a_table_says_the_same_in_every_format():
    table = Table(["model", "PSNR"], [["a_b", "30 %"], ["c", "4×4"]])
    assert table.markdown().splitlines() == [
        "| model | PSNR |",
        "| --- | ---: |",
        "| a_b | 30 % |",
        "| c | 4×4 |",
    ]
    assert table.csv().splitlines() == ["model,PSNR", "a_b,30 %", "c,4×4"]
    lines = table.latex("how").splitlines()
    assert lines[:2] == ["% how", r"\begin{tabular}{lr}"]
    assert r"a\_b & 30 \% \\" in lines
    assert r"c & 4$\times$4 \\" in lines


@pytest.mark.parametrize("words", [(), ("--coils", 4, "--phase")], ids=["real", "complex"])
def test_a_measurement_is_compared_as_reconstruct_has_it(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(48, 64)).convert("L").save("img.png")
    run("sample", "img.png", "--kind", "fourier", "--ratio", 0.4, *words, "-o", "k.npy")
    models = ("--model", "adjoint", "--model", "tv:iterations=3")
    told = json.loads(run("compare", "img.png", "-y", "k.npy", *models, "--json").stdout)
    with Image.open("img.png") as opened:
        original = np.asarray(opened) / np.float32(255)
    for result in told["results"]:
        x = csrecon.reconstruct(native.load(Path("k.npy")), result["model"])
        assert result["psnr"] == pytest.approx(references.score(x, original)["psnr"], abs=1e-3)
    assert told["ratio"] == pytest.approx(0.4, abs=0.05)
    assert (tmp_path / "compare.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("kind", "noise", "phase", "model", "ipls"),
    [
        ("gaussian", 0.0, False, "frcoast", [2, 6, 20]),
        ("fourier", 0.0, False, "mri-frcoast", [2, 6, 20]),
        ("identity", 0.1, False, "rdenoise", [2, 6]),
        ("identity", 0.1, True, "denoise", [None]),
    ],
)
def test_without_a_name_the_model_for_the_measurement_is_compared(kind, noise, phase, model, ipls):
    x = scene(40, 48)[..., 0] / np.float32(255)
    ratio = None if kind == "identity" else 0.3
    m = csrecon.sample(x * (0.6 + 0.8j) if phase else x, ratio, kind=kind, noise_sigma=noise)
    assert compare.usual(m) == [Entry(model, ipl) for ipl in ipls]


def test_a_measurement_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(scene(48, 64)).convert("L").save("img.png")
    Image.fromarray(scene(48, 60)).save("other.png")
    run("sample", "img.png", "--ratio", 0.4)
    run("sample", "other.png", "--ratio", 0.4, "--color", "rgb", "-o", "rgb.npy")
    for words, message in (
        (("other.png", "-y", "y.npy"), "48×64 pixels, and other.png has 48×60"),
        (("other.png", "-y", "rgb.npy"), "one gray image"),
        (("img.png", "-y", "y.npy", "--ratio", 0.4), "-y has its measurement"),
        (("img.png", "-y", "none.npy"), "none.npy"),
        (("img.png", "-y", "y.npy", "-o", "y.png", "--seed", 1), "-y has its measurement"),
    ):
        assert message in run("compare", *words, code=2 if "none" not in message else 3).stderr
    assert not (tmp_path / "compare.png").exists()
