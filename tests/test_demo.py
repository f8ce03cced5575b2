"""What the page of `csrecon demo` computes, without Gradio: experiments and lab files."""

import json
import logging
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

import csrecon
from csrecon import metrics
from csrecon.cli.app import app
from csrecon.demo import experiment, laboratory, offers, pictures
from csrecon.demo.experiment import Request
from csrecon.demo.laboratory import LabRequest
from csrecon.errors import InputError, UsageError
from csrecon.evaluation import compare, plot
from csrecon.evaluation.compare import Entry
from csrecon.io import images
from csrecon.runtime import execution
from csrecon.sensing.operators import BlockOperator, Phi
from csrecon.zoo import cards
from csrecon.zoo.cards import Bundled
from tests.conftest import scene

SETUP = execution.choose("cpu", "fp32")
FAST = Entry("frcoast", 2)


def finished(sampled):
    return [one.outcome for one in experiment.reconstruct(sampled, SETUP) if one.final]


def typed(line):
    words = shlex.split(line)
    assert words[0] == "csrecon"
    done = CliRunner().invoke(app, [*words[1:], *(["--json"] if words[1] != "sample" else [])])
    assert done.exit_code == 0, done.output
    return done


# --- An image ---


def test_an_experiment_is_what_the_library_computes(photo):
    request = Request((FAST,), photo, ratio=0.2, noise=0.05, kind="binary", seed=3)
    sampled = experiment.measure(request)
    image = scene()[..., 0:3]
    m = csrecon.sample(image, 0.2, kind="binary", seed=3, noise_sigma=0.05, color="gray")
    assert torch.equal(sampled.measurement.y, m.y)
    seen = list(experiment.reconstruct(sampled, SETUP))
    x = csrecon.reconstruct(m, "frcoast", 2, "cpu", precision="fp32")
    assert [one.step.index for one in seen] == [1, 2]
    assert [one.final for one in seen] == [False, True]
    np.testing.assert_array_equal(seen[-1].outcome.image, x)
    original = sampled.subject.picture.planes
    assert seen[-1].outcome.score == metrics.score(torch.from_numpy(x)[None, None], original)
    assert 0 < seen[0].outcome.seconds < seen[-1].outcome.seconds
    assert sampled.back.score.psnr < seen[-1].outcome.score.psnr


@pytest.mark.parametrize("kind", ["gaussian", "hadamard", "fourier"])
def test_the_commands_make_the_same(kind, photo, tmp_path, monkeypatch):
    """Typed in a folder with nothing but the measured image they give y, image and PSNR again."""
    entries = (FAST, Entry("fista"))
    request = Request(entries, photo, 40, kind, 0.25, noise=0.02, seed=5)
    sampled = experiment.measure(request)
    assert sampled.subject.pixels.shape == (29, 40)
    outcomes = finished(sampled)
    kept, again = tmp_path / "kept", tmp_path / "again"
    kept.mkdir(), again.mkdir()
    result = experiment.keep(sampled, outcomes, kept)
    assert [p.name for p in result.files] == ["image.png", "y.npz", "result-1.png", "result-2.png"]
    (again / "image.png").write_bytes((kept / "image.png").read_bytes())
    monkeypatch.chdir(again)
    sample, *reconstructs = result.commands
    typed(sample)
    ours, theirs = (np.load(folder / "y.npz")["y"] for folder in (kept, again))
    np.testing.assert_array_equal(theirs, ours)
    for line, outcome, path in zip(reconstructs, outcomes, result.files[2:], strict=True):
        (said,) = json.loads(typed(f"{line} --precision fp32").stdout)
        assert said["psnr"] == pytest.approx(outcome.score.psnr, abs=1e-3)
        pixels = [np.asarray(Image.open(folder / path.name), int) for folder in (kept, again)]
        assert np.abs(pixels[0] - pixels[1]).max() <= 1


def test_defaults_are_left_out_of_the_commands(photo, tmp_path):
    sampled = experiment.measure(Request((Entry("frcoast", 1),), photo))
    result = experiment.keep(sampled, finished(sampled), tmp_path)
    assert result.commands == (
        "csrecon sample image.png --ratio 0.1 -o y.npz",
        "csrecon reconstruct y.npz --model frcoast --ipl 1 --ref image.png -o result.png",
    )


def test_an_image_is_reduced_and_it_is_said(tmp_path):
    path = tmp_path / "large.png"
    Image.fromarray(scene(120, 300)).save(path)
    found = experiment.subject(path, 100)
    assert found.pixels.shape == (40, 100)
    assert "reduced from 120×300 to 40×100" in found.note
    levels = found.pixels * 255
    np.testing.assert_allclose(levels, levels.round(), atol=1e-4)  # a PNG keeps it as it is
    assert "reduced" not in experiment.subject(path, 300).note
    bundled = experiment.subject(None, 512)
    assert max(bundled.pixels.shape) == 512
    assert "Grace Hopper" in bundled.note


def test_sixteen_bits_are_kept(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray((scene()[..., 0].astype(np.uint16) * 257) + 100).save(path)
    sampled = experiment.measure(Request((FAST,), path, 32))
    result = experiment.keep(sampled, finished(sampled), tmp_path)
    kept = images.read(result.files[0])
    assert kept.format.bit_depth == 16
    assert torch.equal(kept.planes, sampled.subject.picture.planes)


def test_wrong_images_are_refused_in_words(tmp_path):
    text = tmp_path / "text.png"
    text.write_text("no image")
    with pytest.raises(InputError, match=r"text\.png"):
        experiment.subject(text, 512)
    Image.fromarray(scene(6, 40)).save(tmp_path / "small.png")
    with pytest.raises(UsageError, match="at least 7"):
        experiment.subject(tmp_path / "small.png", 512)


def test_long_runs_show_some_iterates(photo):
    sampled = experiment.measure(Request((Entry("tv:iterations=60"),), photo))
    seen = list(experiment.reconstruct(sampled, SETUP))
    shown = [one.step.index for one in seen if one.outcome is not None]
    assert len(seen) == 60
    assert (shown[0], shown[-1]) == (1, 60)
    assert len(shown) <= experiment.FRAMES + 2


def test_a_film_of_compare_is_scored_alike(photo):
    sampled = experiment.measure(Request((FAST,), photo))
    film = compare.film(sampled.subject.picture, sampled.measurement, FAST, SETUP)
    assert [o.score for o in film] == [
        one.outcome.score for one in experiment.reconstruct(sampled, SETUP)
    ]


# --- What is offered ---


def test_only_models_that_need_no_download_are_offered():
    known = offers.models()
    assert next(iter(known)) == "frcoast"
    bundled = {
        name
        for name, card in cards.cards().items()
        if isinstance(card.weights, Bundled) and card.task != "denoising"
    }
    networks = {name for name, one in known.items() if one.ipl is not None}
    assert networks == bundled
    assert {"tv", "fista", "omp"} <= known.keys()
    assert "denoise" not in known
    assert all(one.about for one in known.values())


def test_an_offer_limits_the_ipl():
    known = offers.models()
    assert known["frcoast"].entry(99) == Entry("frcoast", 24)
    assert known["frcoast"].entry(None) == Entry("frcoast", 20)
    assert known["coast"].entry(5) == Entry("coast", 1)
    assert known["tv"].entry(5) == Entry("tv")


@pytest.mark.parametrize("kind", offers.KINDS_OF_PHI)
def test_every_kind_is_measured(kind, photo):
    sampled = experiment.measure(Request((Entry("frcoast", 4),), photo, kind=kind, ratio=0.2))
    (outcome,) = finished(sampled)
    assert outcome.score.psnr > sampled.back.score.psnr


# --- A file of a laboratory ---


@pytest.fixture
def lab(tmp_path):
    """A folder with lab.mat: 16×16 blocks, pixels column by column, 8 bits."""
    phi = Phi.make(96, 256, 0).matrix
    camera = BlockOperator(Phi.given(phi), (48, 64))
    x = scene(48, 64)[..., 0] / np.float32(255)
    y = camera(torch.from_numpy(x)[None, None]).flatten(0, 2).numpy()
    by_columns = phi.reshape(-1, 16, 16).swapaxes(1, 2).reshape(phi.shape)
    folder = tmp_path / "lab"
    folder.mkdir()
    savemat(folder / "lab.mat", {"y": (255 * y).T, "Phi": by_columns, "extra": np.ones((3, 5))})
    return folder


def test_findings_are_those_of_inspect(lab, monkeypatch):
    found = laboratory.inspect(lab)
    assert found.arrays.keys() == {"lab.mat:y", "lab.mat:Phi", "lab.mat:extra"}
    assert (found.values, found.phi, found.own) == ("lab.mat:y", "lab.mat:Phi", False)
    assert found.arrays["lab.mat:y"].shape == (96, 12)
    monkeypatch.chdir(lab)
    said = CliRunner().invoke(app, ["inspect", "lab.mat"]).stdout
    for line in found.lines:
        assert line.partition(" (")[0] in said


def test_the_order_is_found_and_the_command_makes_the_same(lab, monkeypatch):
    entry = Entry("frcoast", 4)
    request = LabRequest(lab, "lab.mat:y", entry, "lab.mat:Phi", (48, 64))
    best = laboratory.orders(request, SETUP)[0]
    assert (best.arrangement.pixel_order, best.arrangement.block_order, best.gain) == (
        "F", "C", "255",
    )  # fmt: skip
    request = LabRequest(
        lab, "lab.mat:y", entry, "lab.mat:Phi", (48, 64), pixel_order="F", gain=best.gain
    )
    ready = laboratory.read(request)
    last = list(laboratory.reconstruct(ready, SETUP))[-1].image
    x = torch.from_numpy(scene(48, 64)[..., 0] / np.float32(255))[None, None]
    assert metrics.score(torch.from_numpy(last)[None, None], x).psnr > 25
    out = lab / "out"
    out.mkdir()
    result = laboratory.keep(ready, last, out)
    monkeypatch.chdir(lab)
    typed(f"{result.commands[0]} --precision fp32")
    np.testing.assert_array_equal(Image.open("result.png"), Image.open(result.files[0]))


def test_phi_in_another_file_and_an_estimated_gain(tmp_path, monkeypatch):
    phi = Phi.make(96, 256, 0).matrix
    x = torch.from_numpy(scene(48, 64)[..., 0] / np.float32(255))[None, None]
    y = BlockOperator(Phi.given(phi), (48, 64))(x).flatten(0, 2).numpy()
    np.save(tmp_path / "phi.npy", phi)
    np.save(tmp_path / "y.npy", 850 * y + 120)
    found = laboratory.inspect(tmp_path)
    assert (found.values, found.phi) == ("y.npy", "phi.npy")
    request = LabRequest(tmp_path, "y.npy", FAST, "phi.npy", (48, 64), gain="auto")
    ready = laboratory.read(request)
    assert "were estimated" in ready.note
    last = list(laboratory.reconstruct(ready, SETUP))[-1].image
    out = tmp_path / "out"
    out.mkdir()
    result = laboratory.keep(ready, last, out)
    assert result.commands[0].startswith(
        "csrecon reconstruct y.npy --phi phi.npy --shape 48x64 --gain auto"
    )
    monkeypatch.chdir(tmp_path)
    typed(f"{result.commands[0]} --precision fp32")
    pixels = [np.asarray(Image.open(p), int) for p in ("result.png", result.files[0])]
    assert np.abs(pixels[0] - pixels[1]).max() <= 1


@pytest.mark.parametrize("name", ["y.npz", "y.npy"])
def test_a_measurement_of_csrecon_needs_nothing_else(name, photo, tmp_path):
    typed(f"csrecon sample {photo.name} --ratio 0.3 --color rgb -o {name}")
    uploads, folder = [tmp_path / name], tmp_path / "gathered"
    if name == "y.npy":
        uploads.append(tmp_path / "y.json")
    folder.mkdir()
    laboratory.gather(uploads, folder)
    found = laboratory.inspect(folder)
    assert (found.values, found.own) == (name, True)
    assert "complete and verified" in found.lines[0]
    ready = laboratory.read(LabRequest(folder, name, FAST))
    last = list(laboratory.reconstruct(ready, SETUP))[-1].image
    assert last.shape == (50, 70, 3)
    result = laboratory.keep(ready, last, tmp_path)
    assert result.commands == (f"csrecon reconstruct {name} --model frcoast --ipl 2 -o result.png",)


def test_wrong_files_are_refused_in_words(tmp_path, lab):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.npy").write_bytes(b"no array")
    with pytest.raises(InputError, match=r"a\.npy"):
        laboratory.inspect(tmp_path / "bad")
    with pytest.raises(UsageError, match="no file"):
        laboratory.gather([], tmp_path)
    with pytest.raises(UsageError, match=r"lab\.mat: two files"):
        laboratory.gather([lab / "lab.mat"] * 2, tmp_path)
    for phi, shape in ((None, (48, 64)), ("lab.mat:Phi", None)):
        with pytest.raises(UsageError, match="height and width"):
            laboratory.read(LabRequest(lab, "lab.mat:y", FAST, phi, shape))
    with pytest.raises(UsageError, match="gain 'x'"):
        laboratory.read(LabRequest(lab, "lab.mat:y", FAST, "lab.mat:Phi", (48, 64), gain="x"))
    with pytest.raises(InputError, match="expected"):
        laboratory.read(LabRequest(lab, "lab.mat:y", FAST, "lab.mat:Phi", (99, 64)))


# --- Pictures ---


def test_the_scale_belongs_to_the_error_map():
    error = np.linspace(0, 0.2, 400, dtype=np.float32).reshape(20, 20)
    top = plot.brightest(error)
    assert top == pytest.approx(0.199, abs=1e-3)
    drawn = plot.heat(error, top)
    assert drawn.shape == (20, 20, 3)
    levels = (drawn @ np.array([0.2126, 0.7152, 0.0722])).ravel()
    assert levels[0] < 2
    assert levels[-1] > 200
    assert np.diff(levels).min() > -1  # brighter and brighter, but for rounding
    scale = pictures.scale(top)
    assert f"<span>{255 * top:.3g}</span>" in scale
    assert "rgb({},{},{})".format(*drawn[-1, -1]) in scale  # the last colour is that of `top`


def test_names_are_no_markup():
    assert "&lt;b&gt;" in pictures.notes(["<b>.png"])
    assert "<script" not in pictures.table(["a"], [["<script>"]], "<script>")
    assert "<i>" not in pictures.frame(np.zeros((9, 9), np.float32), ["<i>"])
    assert "<i>" not in pictures.strip([], "<i>") + pictures.caption("<i>", "<i>")


def test_warnings_reach_who_asks(photo, caplog):
    """A ratio outside of the trained range is said by the library; the page collects it."""
    sampled = experiment.measure(Request((Entry("coast", 1),), photo, ratio=0.01))
    with caplog.at_level(logging.INFO):
        finished(sampled)
    assert "outside the trained range" in caplog.text
