"""Training over kinds of Φ, blocks and noise."""

import pydantic
import pytest
import torch

from csrecon.reconstructors.starts import MarkovStart
from csrecon.training.recipe import recipe
from csrecon.training.tasks.blocks import BlockCamera, BlocksOptions

KINDS = ("gaussian", "binary", "bernoulli", "hadamard", "hadamard-cake", "dct", "pixels")
SIDES = (8, 16, 33)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_orthonormal_measurements_of_every_block_that_fits(kind):
    options = BlocksOptions(kinds=KINDS, blocks=SIDES)
    task, draw = options.begin(0), torch.Generator().manual_seed(0)
    sides = options.sides(kind)
    assert sides == ((8, 16) if kind.startswith("hadamard") else SIDES)
    x = torch.rand(2, 1, 40, 50, generator=draw)
    for side in sides:
        first, second = (BlockCamera(task, 0.25, kind, side)(x, draw) for _ in range(2))
        operator = first.operator
        assert operator.ratio == pytest.approx(0.25, rel=0.02)
        assert operator.tight
        whole = 40 - 40 % side, 50 - 50 % side  # blocks without padding: A Aᵀ = 1 there
        y = torch.randn(first.y.shape, generator=draw)
        y[:, whole[0] // side :] = 0
        y[:, :, whole[1] // side :] = 0
        torch.testing.assert_close(operator(operator.adjoint(y)), y, atol=1e-5, rtol=1e-4)
        inner = (operator(x) * y).sum()
        torch.testing.assert_close(inner, (x * operator.adjoint(y)).sum(), rtol=1e-4, atol=1e-3)
        if kind != "hadamard-cake":
            assert not torch.allclose(first.y, second.y)  # another Φ in every step
        assert MarkovStart()(first)[0].shape == x.shape


def test_a_step_draws_kinds_and_blocks_as_often_as_they_are_listed():
    options = BlocksOptions(kinds=("gaussian", "gaussian", "gaussian", "dct"), blocks=(33, 8))
    task, draw = options.begin(0), torch.Generator().manual_seed(0)
    cameras = [task.draw(0, draw) for _ in range(400)]
    assert 250 < sum(camera.kind == "gaussian" for camera in cameras) < 350
    assert 150 < sum(camera.side == 8 for camera in cameras) < 250


def test_the_default_takes_nothing_else_from_the_generator():
    """A run of an earlier release continues with the same numbers."""
    task = BlocksOptions(ratios=(0.1, 0.5)).begin(0)
    draw, same = (torch.Generator().manual_seed(5) for _ in range(2))
    camera = task.draw(0, draw)
    assert camera.ratio == (0.1, 0.5)[int(torch.randint(2, (), generator=same))]
    assert (camera.kind, camera.side) == ("gaussian", 33)
    assert torch.equal(draw.get_state(), same.get_state())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ("gausian",)}, "did you mean 'gaussian'"),
        ({"kinds": ("hadamard",)}, "power of two"),
        ({"kinds": ("binary",), "blocks": (64,)}, "at most 33"),
        ({"kinds": ("dct",), "fixed_phis": 2}, "fixed_phis"),
        ({"blocks": (1,)}, "greater than or equal to 2"),
    ],
)
def test_cameras_that_do_not_exist_are_refused(fields, message):
    with pytest.raises(pydantic.ValidationError, match=message):
        BlocksOptions(**fields)


def test_the_share_without_noise():
    draw = torch.Generator().manual_seed(0)
    for share in (0.0, 0.6, 1.0):
        task = BlocksOptions(noise=0.1, noiseless=share).begin(0)
        drawn = [task.draw_noise(draw) for _ in range(300)]
        assert sum(sigma == 0 for sigma in drawn) / 300 == pytest.approx(share, abs=0.1)
        assert max(drawn) <= 0.1


def test_the_recipe_for_every_camera_fits_its_network():
    options = recipe("frcoast", "any")
    assert options.task.noise == 0.1
    assert set(options.task.kinds) == set(KINDS)
    network = options.blueprint().build()
    assert sum(p.numel() for p in network.parameters()) == 292_789
