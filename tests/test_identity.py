"""The identity: y = x and the noise on it, so that reconstruction is denoising."""

import numpy as np
import pytest
import torch

import csrecon
from csrecon.errors import UsageError
from csrecon.sensing import native
from csrecon.sensing.operators import IdentityOperator
from tests.checks import check_operator
from tests.conftest import scene

IMAGE = scene(64, 64)[..., 0].astype(np.float32) / 255


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1), (33, 33), (34, 65)])
def test_contract(shape, channels):
    operator = IdentityOperator((channels, *shape))
    check_operator(operator)
    assert (operator.ratio, operator.tight, operator.complex_data) == (1.0, True, False)


def test_measuring_copies():
    m = csrecon.sample(IMAGE, kind="identity")
    np.testing.assert_array_equal(m.y[0, 0], IMAGE)
    assert m.noise == 0
    x = torch.rand(1, 1, 64, 64)
    assert m.operator(x).data_ptr() != x.data_ptr()
    assert torch.equal(csrecon.sample(IMAGE, 1, kind="identity").y, m.y)


def test_noise_is_added_and_remembered():
    m = csrecon.sample(IMAGE, kind="identity", noise_sigma=0.1)
    off = m.y[0, 0].numpy() - IMAGE
    assert m.noise == pytest.approx(0.1)
    assert off.std() == pytest.approx(0.1, rel=0.05)
    assert abs(off.mean()) < 0.01


def psnr(x):
    return -10 * np.log10(np.mean((x - IMAGE) ** 2))


@pytest.mark.parametrize("model", ["fista"])
def test_solvers_denoise(model):
    m = csrecon.sample(IMAGE, kind="identity", noise_sigma=0.1)
    x = csrecon.reconstruct(m, model, device="cpu")
    assert psnr(x) >= psnr(m.y[0, 0].numpy()) + 3


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
@pytest.mark.parametrize("color", ["gray", "rgb", "complex"])
def test_round_trip(tmp_path, name, color):
    image = {"gray": IMAGE, "rgb": scene(20, 30), "complex": (IMAGE * 1j).astype(np.complex64)}
    m = csrecon.sample(image[color], kind="identity", noise_sigma=0.1)
    native.save(m, tmp_path / name)
    back = native.load(tmp_path / name)
    assert isinstance(back.operator, IdentityOperator)
    assert torch.equal(back.y, m.y)
    assert (back.format.color, back.noise) == (color, m.noise)
    assert back.operator.domain == m.operator.domain
    x = csrecon.reconstruct(back, "fista:iterations=2", device="cpu")
    assert x.shape == image[color].shape
    assert x.dtype == (np.complex64 if color == "complex" else np.float32)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"ratio": 0.5}, "no ratio"),
        ({"m": 5}, "no m"),
        ({"phi": np.eye(4)}, "no phi"),
        ({"mask": "random2d"}, "no mask"),
        ({"block": 8}, "no block"),
        ({"m": 5, "block": 8}, "no m and no block"),
    ],
)
def test_options_that_it_does_not_take(said, message):
    with pytest.raises(UsageError, match=message):
        csrecon.sample(IMAGE, kind="identity", **said)


def test_a_network_runs_on_it():
    m = csrecon.sample(IMAGE, kind="identity", noise_sigma=0.05)
    assert csrecon.reconstruct(m, "rcoast", 1, device="cpu").shape == IMAGE.shape
    assert csrecon.reconstruct(m, "rista", device="cpu").shape == IMAGE.shape
