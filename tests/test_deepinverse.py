"""The bridges to DeepInverse, against the installed package."""

import importlib.util
import re

import numpy as np
import pytest
import torch

import csrecon
from csrecon import api
from csrecon.errors import InputError, UsageError
from csrecon.metrics import psnr
from csrecon.runtime import execution
from csrecon.sensing.operators import BlockOperator, make
from tests.checks import check_operator, check_reconstructor
from tests.conftest import ROOT, make_torchvision_importable, scene

if importlib.util.find_spec("deepinv") is None:
    pytest.skip("deepinv is not installed", allow_module_level=True)
make_torchvision_importable()

import deepinv  # noqa: E402

from csrecon import deepinverse  # noqa: E402

ROW, COLUMN = np.mgrid[:64, :64]
DISC = (ROW - 30) ** 2 + (COLUMN - 37) ** 2 < 400
X = torch.from_numpy(0.3 + 0.4 * DISC + ROW / 300 + COLUMN / 500)[None, None].float()


def singlepixel(fast: bool):
    return deepinv.physics.SinglePixelCamera(m=1500, img_size=(1, 64, 64), fast=fast)


def inpainting():
    draw = torch.Generator().manual_seed(0)
    return deepinv.physics.Inpainting(
        img_size=(1, 64, 64), mask=(torch.rand(1, 64, 64, generator=draw) < 0.4).float()
    )


def dense():
    draw = torch.Generator().manual_seed(0)
    return deepinv.physics.CompressedSensing(m=1000, img_size=(1, 64, 64), rng=draw)


PHYSICS = [lambda: singlepixel(True), lambda: singlepixel(False), inpainting, dense]


@pytest.mark.parametrize("kind", ["gaussian", "hadamard", "pixels"])
def test_an_operator_becomes_a_physics(kind):
    operator = BlockOperator(make(kind, 200, (32, 32), 0), (64, 96))
    physics = deepinverse.Physics(operator)
    x = torch.rand(2, 3, 64, 96)
    y = physics(x)
    assert y.shape == (2, 3, 2, 3, 200)
    torch.testing.assert_close(y[1, 2], operator(x[1:2, 2:])[0])
    assert physics.adjointness_test(x).abs() < 1e-3
    torch.testing.assert_close(physics.A_dagger(y), physics.A_adjoint(y), rtol=1e-3, atol=1e-3)


def test_a_network_becomes_a_model():
    m = csrecon.sample(scene(), ratio=0.2)
    model = deepinverse.Model("rcoast", ipl=2, device="cpu")
    image = model(m.y[None], deepinverse.Physics(m.operator))
    assert image.shape == (1, 3, 50, 70)
    expected = execution.final(api.reconstruct_steps(m, "rcoast", 2, execution.choose("cpu"))).image
    torch.testing.assert_close(image[0, :, None], expected)


@pytest.mark.parametrize("make_physics", PHYSICS[:-1])  # the last has no float64
def test_a_physics_becomes_an_operator(make_physics):
    operator = deepinverse.PhysicsOperator(make_physics(), (64, 64), torch.device("cpu"))
    check_operator(operator)


@pytest.mark.parametrize("make_physics", PHYSICS)
def test_networks_reconstruct_what_any_physics_measured(make_physics):
    physics = make_physics()
    y = physics(X)
    m = deepinverse.measurement(y, physics)
    linear = physics.A_dagger(y).clamp(0, 1)
    image = deepinverse.Model("rcoast", ipl=6, device="cpu")(y, physics).clamp(0, 1)
    assert float(psnr(image, X)) > float(psnr(linear, X)) + 1

    white = m.normalized()
    assert white.normalized() is white
    assert (
        abs(white.operator.ratio - np.linalg.matrix_rank(_matrix(physics), tol=1e-3) / 64**2) < 0.02
    )
    with torch.autocast("cpu", torch.bfloat16):  # operators compute in the precision of x
        again = white.operator(white.y)
    torch.testing.assert_close(again, white.y, rtol=1e-3, atol=1e-3)
    check_reconstructor(csrecon.load("rcoast"), white)


def _matrix(physics) -> np.ndarray:
    every_pixel = torch.eye(64**2).reshape(-1, 1, 64, 64)
    return physics.A(every_pixel).flatten(1).numpy()


def test_noise_is_known_on_both_sides():
    operator = BlockOperator(make("gaussian", 300, (32, 32), 0), (64, 64))
    physics = deepinverse.Physics(operator, noise=0.05)
    y = physics(X)
    assert float((y - physics.A(X)).std()) == pytest.approx(0.05, rel=0.1)
    assert deepinverse.measurement(y, physics).noise == pytest.approx(0.05)


def test_the_growth_of_noise_is_that_of_the_pseudo_inverse():
    """For A = 2 I, A⁺ = I/2."""
    physics = deepinv.physics.LinearPhysics(A=lambda x: 2 * x, A_adjoint=lambda y: 2 * y)
    physics.noise_model = deepinv.physics.GaussianNoise(0.1)
    white = deepinverse.measurement(physics.A(X), physics).normalized()
    assert white.noise == pytest.approx(0.05, rel=0.02)
    torch.testing.assert_close(white.y, X, rtol=1e-3, atol=1e-3)
    assert white.operator.ratio == pytest.approx(1, abs=1e-3)


def test_a_model_becomes_a_reconstructor():
    m = csrecon.sample(scene(), ratio=0.5)
    model = deepinv.models.ArtifactRemoval(deepinv.models.MedianFilter(), mode="adjoint")
    solver = deepinverse.Solver(model)
    check_reconstructor(solver, m)
    image = csrecon.reconstruct(m, model=solver)
    assert image.shape == (50, 70, 3)
    direct = model(m.y[:, None], deepinverse.Physics(m.operator))
    torch.testing.assert_close(solver(m), direct)
    with pytest.raises(UsageError, match="IPL"):
        csrecon.reconstruct(m, model=solver, ipl=2)


def test_the_example_of_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"```python\n(from csrecon import deepinverse\n.*?)```", text, re.DOTALL)
    assert example is not None
    physics = inpainting()
    names = {
        "csrecon": csrecon,
        "physics": physics,
        "y": physics(X),
        "m": csrecon.sample(X[0, 0], ratio=0.5),
        "model": deepinv.models.ArtifactRemoval(deepinv.models.MedianFilter(), mode="adjoint"),
    }
    exec(example[1], names)
    assert names["image"].shape == X.shape
    assert isinstance(names["physics"], deepinv.physics.LinearPhysics)
    assert names["x"].shape == X.shape[-2:]


def test_what_cannot_be_bridged_says_so():
    colour = deepinv.physics.SinglePixelCamera(m=10, img_size=(3, 16, 16), fast=False)
    with pytest.raises(InputError, match="one channel"):
        deepinverse.measurement(torch.zeros(1, 3, 10), colour)
    with pytest.raises(UsageError, match="linear"):
        deepinverse.measurement(torch.zeros(1, 1, 8, 8), deepinv.physics.Physics())
    operator = BlockOperator(make("gaussian", 10, (33, 33), 0), (33, 33))
    with pytest.raises(InputError, match="does not fit"):
        deepinverse.measurement(torch.zeros(1, 1, 1, 1, 11), deepinverse.Physics(operator))
