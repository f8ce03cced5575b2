"""`reconstruct --check` and `--uncertainty`, and the order that `inspect` finds."""

import json

import numpy as np
import pytest
import torch
from matplotlib import cbook
from PIL import Image

import csrecon
from csrecon.errors import InputError
from csrecon.evaluation import arrangements
from csrecon.reconstructors.starts import MarkovStart
from csrecon.sensing.lab import Arrangement
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, Phi
from tests.test_cli import run
from tests.test_heldout import scene

FAST = ("--model", "rista", "--ipl", "1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.round(255 * scene(66, 99)).astype(np.uint8)).save("img.png")
    return tmp_path


def test_check_and_uncertainty(here):
    run("sample", "img.png", "--ratio", "0.3", "-o", "y.npy")
    maps = ("--check", "--uncertainty", "sigma.tif", "--samples", "3")
    result = run("reconstruct", "y.npy", *FAST, "--ref", "img.png", *maps, "--json")
    (facts,) = json.loads(result.stdout)
    assert abs(facts["estimated_psnr"] - facts["psnr"]) < max(1, 3 * facts["estimated_psnr_error"])
    assert facts["folds"] == 3
    assert facts["held_out_rows"] == 33
    assert np.array(facts["block_rmse"]).shape == (2, 3)
    written = json.loads(Image.open("y.png").text["csrecon"])
    assert written["estimated_psnr"] == facts["estimated_psnr"]
    with Image.open("sigma.tif") as picture:
        sigma = np.asarray(picture) / 65535
    assert sigma.shape == (66, 99)
    square = 10 ** (-facts["estimated_psnr"] / 10)
    assert np.square(sigma).mean() == pytest.approx(square, rel=0.1)
    with Image.open("sigma.png") as picture:
        assert picture.width > 900
    said = run("reconstruct", "y.npy", *FAST, "--check", "--folds", "2", "-o", "other.png").stdout
    assert "estimated PSNR" in said
    assert "±" in said


def test_compare_has_a_panel_of_the_uncertainty(here):
    asked = ("compare", "img.png", "--ratio", "0.3", "--model", "rista@1", "--seed", "1")
    run(*asked, "-o", "plain.png")
    facts = json.loads(run(*asked, "--uncertainty", "2", "-o", "sure.png", "--json").stdout)
    (found,) = facts["results"]
    assert abs(found["estimated_psnr"] - found["psnr"]) < 3 * found["estimated_psnr_error"] + 1
    with Image.open("plain.png") as plain, Image.open("sure.png") as sure:
        assert sure.height > plain.height + 200
    assert "at least 2" in run(*asked, "--uncertainty", "1", "-o", "one.png", code=2).stderr
    film = run(*asked, "--film", "--uncertainty", "2", "-o", "film.png", code=2)
    assert "--film" in film.stderr


def test_refusals_come_before_work(here):
    run("sample", "img.png", "--ratio", "0.3", "-o", "y.npy")
    (here / "sigma.png").write_bytes(b"mine")
    refused = run("reconstruct", "y.npy", "--uncertainty", "sigma.tif", code=2)
    assert "sigma.png" in refused.stderr
    assert (here / "sigma.png").read_bytes() == b"mine"
    assert not (here / "y.png").exists()
    assert ".tif" in run("reconstruct", "y.npy", "--uncertainty", "s.jpg", code=2).stderr
    assert "one" in run("reconstruct", "y.npy", "y.npy", "--uncertainty", "y.tif", code=2).stderr
    run("sample", "img.png", "--ratio", "0.3", "--kind", "fourier", "-o", "k.npy")
    other = run("reconstruct", "k.npy", "--model", "fista:iterations=2", "--check", code=2)
    assert "block sampling" in other.stderr


def test_a_colour_measurement_with_its_map(here):
    run("sample", "img.png", "--ratio", "0.3", "--color", "ycbcr", "-o", "y.npy")
    run("reconstruct", "y.npy", *FAST, "--uncertainty", "s.npy", "--samples", "2")
    sigma = np.load("s.npy")
    assert sigma.shape == (66, 99)
    assert sigma.min() > 0


def test_inspect_finds_the_order(here):
    """The values and Φ of MATLAB, times -255: the command that is printed reconstructs them."""
    photo = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    image = np.asarray(Image.open(photo).convert("L"), np.float32)[60:159, 200:332] / 255
    phi = Phi.make(327, 1089, 5)
    m = csrecon.sample(image, phi=phi.matrix)
    np.save("phi.npy", phi.matrix.reshape(-1, 33, 33).swapaxes(1, 2).reshape(327, 1089))
    values = m.y[0].numpy().swapaxes(0, 1).reshape(12, 327)
    np.save("lab.npy", -255 * values)
    asked = ("inspect", "lab.npy", "--phi", "phi.npy", "--shape", "99x132")
    facts = json.loads(run(*asked, "--json").stdout)
    best = facts["orders"][0]
    assert (best["pixel_order"], best["block_order"], best["gain"]) == ("F", "F", -255.0)
    assert len(facts["orders"]) == 4
    assert facts["orders"][1]["behind_db"] > 0.3
    said = run(*asked).stdout
    command = next(line for line in said.splitlines() if line.startswith("next: csrecon"))
    assert "--pixel-order F --block-order F --gain -255" in command
    run(*command.removeprefix("next: csrecon ").split(), *FAST, "-o", "out.npy")
    made = np.load("out.npy")
    assert np.square(made - image).mean() < 0.005
    # A gain that is known is kept, and one that no camera usually has is left to be estimated.
    np.save("lab.npy", 1234 * values)
    known = json.loads(run(*asked, "--gain", 1234, "--json").stdout)["orders"]
    assert {one["gain"] for one in known} == {1234.0}
    assert " 1234 " in run(*asked, "--gain", 1234).stdout
    guessed = json.loads(run(*asked, "--json").stdout)["orders"][0]
    assert (guessed["pixel_order"], guessed["block_order"], guessed["gain"]) == ("F", "F", "auto")


def test_gain_and_zero_values():
    image = scene(64, 64)
    m = csrecon.sample(image, 0.3, block=16)
    for gain in arrangements.GAINS:
        scaled = Measurement(m.operator, m.y * gain)
        assert arrangements.gain(scaled) == gain
    assert isinstance(m.operator, BlockOperator)
    phi = Phi(m.operator.rows.matrix().numpy())
    with pytest.raises(InputError, match="all zero"):
        arrangements.rank(
            np.zeros((16, m.operator.m)), phi, (64, 64), Arrangement(), linear, (16, 16)
        )
    with pytest.raises(InputError, match="expected"):
        arrangements.rank(np.ones((7, 3)), phi, (64, 64), Arrangement(), linear, (16, 16))


def linear(m: Measurement) -> torch.Tensor:
    image, _ = MarkovStart().eval()(m)
    return image


def test_a_square_grid_has_two_equal_orders():
    """An image and its transpose: the simpler order comes first, both are possible."""
    image = scene(96, 96)
    m = csrecon.sample(image, 0.4, block=16)
    assert isinstance(m.operator, BlockOperator)
    phi = Phi(m.operator.rows.matrix().numpy())
    values = m.y[0].reshape(36, -1).numpy()
    # The linear estimate looks at single blocks: it cannot tell any order of the blocks.
    ranked = arrangements.rank(values, phi, (96, 96), Arrangement(), linear, (16, 16))
    assert (ranked[0].arrangement.pixel_order, ranked[0].arrangement.block_order) == ("C", "C")
    assert all(one.possible for one in ranked)


def test_check_in_python():
    image = scene(66, 66)
    m = csrecon.sample(image, 0.4)
    found = csrecon.api.check(m, "rista", ipl=1, folds=2)
    true = -10 * np.log10(np.square(csrecon.reconstruct(m, "rista", ipl=1) - image).mean())
    assert found.psnr == pytest.approx(true, abs=3 * found.error + 0.5)
    assert found.folds == 2
