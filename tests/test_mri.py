"""MRI: the authors' weights through our networks, the set with its masks, and the table."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import loadmat, savemat
from torch.nn.functional import conv2d, relu
from typer.testing import CliRunner

import csrecon
from csrecon import metrics
from csrecon.cli.app import app
from csrecon.errors import ModelError, UsageError
from csrecon.evaluation import presets
from csrecon.evaluation.rows import Row
from csrecon.io import downloads, images
from csrecon.io.downloads import Remote
from csrecon.sensing import sample as sampling
from csrecon.sensing.operators import SamplingOptions
from csrecon.zoo import cards, datasets, published
from tests.conftest import scene, shared

NAME = "istanet-plus-mri"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(downloads, "DELAYS", (0.01,))


def served(remote):
    return remote.url.removeprefix("https:/")


def by_the_equations(state, image, mask):
    """ISTA-Net+ for MRI as published: complex FFTs, one layer after the other."""

    def seen(x):
        return torch.fft.ifft2(torch.fft.fft2(x) * mask).real

    def conv(x, name):
        return conv2d(x, state[f"fcs.{layer}.{name}"], padding=1)

    known = x = seen(image)
    for layer in range(9):
        r = x - state[f"fcs.{layer}.lambda_step"] * (seen(x) - known)
        code = conv(relu(conv(conv(r, "conv_D"), "conv1_forward")), "conv2_forward")
        code = torch.sign(code) * relu(code.abs() - state[f"fcs.{layer}.soft_thr"])
        x = r + conv(conv(relu(conv(code, "conv1_backward")), "conv2_backward"), "conv_G")
    return x


@pytest.mark.parametrize("percent", [10, 50])
def test_the_authors_weights_give_what_the_equations_give(server, percent):
    file = shared(
        "weights", "authors", "mri", f"MRI_CS_ISTA_Net_plus_layer_9_group_1_ratio_{percent}.pkl"
    )
    values = loadmat(shared("data", "brain_test", f"mask_{percent}.mat"))["mask_matrix"]
    weights = cards.card(NAME).weights[percent / 100]
    server.answers[served(weights.checkpoint)] = file.read_bytes()
    mask = torch.from_numpy(values.astype(np.float32))
    for index in (1, 2):
        picture = images.read(shared("data", "brain_test", f"brain_test_{index:02}.png"))
        m = sampling.sample(picture, SamplingOptions(kind="fourier", mask=values))
        net = csrecon.load(NAME, m.operator.ratio)
        with torch.inference_mode():
            ours = net(m)
            theirs = by_the_equations(published.read_checkpoint(file), picture.planes, mask)
        assert sum(p.numel() for p in net.parameters()) == cards.card(NAME).parameters
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
        scores = [metrics.score(image, picture.planes).psnr for image in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
        assert scores[0] > metrics.score(m.operator.adjoint(m.y), picture.planes).psnr + 7
    assert len(server.asked) == 1


def test_a_checkpoint_for_a_mask_has_neither_phi_nor_q(tmp_path):
    state = {
        f"fcs.{layer}.{name}": value
        for layer in range(2)
        for name, value in {
            "lambda_step": torch.tensor([0.5]),
            "soft_thr": torch.tensor([0.01]),
            "conv_D": torch.ones(32, 1, 3, 3),
            "conv_G": torch.ones(1, 32, 3, 3),
            **{
                f"conv{which}_{way}": torch.ones(32, 32, 3, 3)
                for which in (1, 2)
                for way in ("forward", "backward")
            },
        }.items()
    }
    torch.save(state, tmp_path / "mri.pkl")
    net, blueprint = published.convert(tmp_path / "mri.pkl", 1, task="mri")
    assert (blueprint.task, blueprint.start.name, len(net.blocks)) == ("mri", "adjoint", 2)
    assert not blueprint.recursion.blockwise
    with pytest.raises(UsageError, match="only with the Φ"):
        published.convert(tmp_path / "mri.pkl", 1)


def test_a_measurement_of_another_ratio_is_refused():
    with pytest.raises(
        ModelError, match=r"ratios 0\.1, 0\.2, 0\.3, 0\.4, 0\.5, and none for 0\.25"
    ):
        csrecon.load(NAME, 0.25)


def in_a_set(monkeypatch, sides=(16, 16)):
    """A set of 50 small slices, which has a mask of half of the frequencies; its folder."""
    mask = np.zeros(sides, np.uint8)
    mask[::2] = 1
    savemat("mask_50.mat", {"mask_matrix": mask})
    body = Path("mask_50.mat").read_bytes()
    remote = Remote(
        url="https://files.example/masks/mask_50.mat",
        digest="sha256:" + hashlib.sha256(body).hexdigest(),
        bytes=len(body),
    )
    known = replace(datasets.DATASETS["brain_test"], masks={0.5: remote})
    monkeypatch.setitem(datasets.DATASETS, "brain_test", known)
    return body, remote, mask


def test_a_mask_comes_once_and_is_verified(server, tmp_path, monkeypatch):
    body, remote, _ = in_a_set(monkeypatch)
    server.answers[served(remote)] = body
    path = datasets.mask("brain_test", 0.5)
    assert path.read_bytes() == body
    assert datasets.mask("brain_test", 0.5) == path
    assert len(server.asked) == 1
    given = tmp_path / "sets" / "brain_test" / "mask_50.mat"
    given.parent.mkdir(parents=True)
    given.write_bytes(body)
    assert datasets.mask("brain_test", 0.5, tmp_path / "sets") == given
    given.write_bytes(body[:-1])
    with pytest.raises(ModelError, match=r"mask_50\.mat: .* bytes instead of"):
        datasets.mask("brain_test", 0.5, tmp_path / "sets")
    with pytest.raises(ModelError, match=r"no mask of the ratio 0\.3; ratios with one: 0\.5"):
        datasets.mask("brain_test", 0.3)


def test_the_test_set_is_the_published_one():
    folder = shared("data", "brain_test")
    assert datasets.verify("brain_test", folder) == []
    assert len(datasets.list_images(folder)) == 50


def test_volumes_to_train_on_are_put_there_by_hand(tmp_path):
    with pytest.raises(ModelError, match=r"mricron-data.*--data-dir"):
        datasets.images("brain_train")
    folder = tmp_path / "sets" / "brain_train"
    folder.mkdir(parents=True)
    for name in ("ch2.nii.gz", "ch2better.nii.gz"):
        (folder / name).write_bytes(b"")
    found = datasets.images("brain_train", tmp_path / "sets")
    assert [path.name for path in found] == ["ch2.nii.gz", "ch2better.nii.gz"]


def test_the_authors_line_has_their_weights_alone():
    table = presets.preset("mri")

    def runner(name, ratios, ipls):
        for ratio in ratios:
            ipl = str(ipls[0] or 1)
            yield Row(name, "brain_test", "a.png", ratio, 9, ipl, 0, 30.0, 0.5, 1.0, None)

    results = list(presets.run(table, runner))
    assert [(r.line.ours, r.kind) for r in results if r.kind == "authors"] == [(NAME, "authors")]
    assert len(results) == len(table.lines)
    made = presets.quality(table, results)
    assert made.header[2:] == ["10 %", "20 %", "30 %", "40 %", "50 %", "mean"]
    text = {line[0]: line[1:] for line in made.lines}
    assert text["RISTA-Net+ 3×6"][:2] == ["csrecon", "30.00 / 0.5000"]


def test_the_command_measures_with_the_mask_of_the_set(tmp_path, monkeypatch):
    body, _, mask = in_a_set(monkeypatch)
    folder = tmp_path / "sets" / "brain_test"
    folder.mkdir(parents=True)
    (folder / "mask_50.mat").write_bytes(body)
    for index in range(50):
        Image.fromarray(scene(16, 16)[..., 0]).save(folder / f"{index:02}.png")
    line = {"label": "zero-filled", "ours": "adjoint"}
    tiny = presets.Preset(
        title="tiny", dataset="brain_test", ratios=(0.5,), masks=True, lines=(line,)
    )
    monkeypatch.setattr(presets, "presets", lambda: {"tiny": tiny})
    command = ["bench", "--preset", "tiny", "--data-dir", "sets", "--limit", "1", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    (cell,) = json.loads(result.stdout)["results"][0]["cells"]
    assert (cell["kind"], cell["ratio"]) == ("fourier", 0.5)
    image = scene(16, 16)[..., 0] / 255
    filled = np.fft.ifft2(np.fft.fft2(image) * mask).real
    error = np.mean((np.clip(filled, 0, 1) - image) ** 2)
    assert cell["score"]["psnr"] == pytest.approx(-10 * np.log10(error), abs=1e-3)
