"""The training task `mri`, its volumes, and the networks that it trains."""

import itertools
from statistics import fmean

import nibabel
import numpy as np
import pytest
import torch

from csrecon.errors import InputError, UsageError
from csrecon.sensing.operators import FourierOperator
from csrecon.training import slices
from csrecon.training.data import Patches
from csrecon.training.recipe import DataOptions, recipe
from csrecon.training.run import Options, Run
from csrecon.training.tasks.mri import MriOptions
from csrecon.zoo import cards

CPU = torch.device("cpu")
SIDES = (40, 44, 100)
TINY = {
    "changes": "{block: {features: 8}}",
    "init": "null",
    "batch": "4",
    "patch": "24",
    "stages": "[{until: 1, cap: 2}]",
    "steps": "6",
    "warmup": "4",
    "ema": "0.9",
    "precision": "fp32",
    "scales": "[1]",
    "task": "{name: mri, masks: [random2d], ratios: [0.2, 0.4]}",
}


@pytest.fixture
def volume(tmp_path):
    """A volume whose value is the height of the voxel, from 80 to 179, stored upside down."""
    height = np.broadcast_to(np.arange(SIDES[2], dtype=np.int16) + 80, SIDES)
    ripple = 20 * (np.indices(SIDES)[:2].sum(axis=0) // 5 % 2)
    values = (height + ripple)[..., ::-1].astype(np.int16)
    path = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1, 1, -1, 1])), path)
    return path


def test_no_training_slice_shows_the_slab(volume):
    found = slices.training(volume)
    low, high = 62, 75
    assert len(found) == SIDES[0] + SIDES[1] + SIDES[2] - (high - low)
    shapes = {plane.shape for plane in found}
    assert shapes == {SIDES[:2], (SIDES[1], low), (SIDES[0], low)}
    assert all(plane.dtype == np.uint8 for plane in found)
    levels = [int(plane.min()) for plane in slices.held_out(volume, 4)]  # the height, as gray
    assert levels == sorted(levels)
    axial = {int(plane.min()) for plane in found if plane.shape == SIDES[:2]}
    whole = slices._volume(volume)[0, 0]
    assert {*levels} == {*map(int, whole[[64, 67, 69, 72]])}
    assert not axial & {*map(int, whole[low:high])}


def test_what_is_no_volume(tmp_path, volume):
    (tmp_path / "torn.nii.gz").write_bytes(volume.read_bytes()[:100])
    (tmp_path / "text.nii").write_text("nothing")
    series = nibabel.Nifti1Image(np.zeros((4, 4, 4, 2), np.float32), np.eye(4))
    nibabel.save(series, tmp_path / "series.nii")
    for name in ("torn.nii.gz", "text.nii", "series.nii", "none.nii"):
        with pytest.raises(InputError, match=name):
            slices.training(tmp_path / name)


def test_intensity_is_varied_within_its_range(volume):
    options = DataOptions(patch=24, scales=(1,))
    plain = Patches([volume], options, CPU, 0)
    varied = Patches([volume], options.model_copy(update={"intensity": 0.5}), CPU, 0)
    draws = [torch.Generator().manual_seed(3) for _ in range(2)]
    x, z = plain.batch(64, draws[0]), varied.batch(64, draws[1])
    assert x.shape == z.shape == (64, 1, 24, 24)
    assert not torch.equal(x, z)
    assert (z <= x ** (1 / 1.5) + 1e-6).all()
    assert (z >= x**1.5 / 1.5 - 1e-6).all()


def test_every_step_has_a_mask_of_its_own():
    task, draw = MriOptions(noise=0.1).begin(0), torch.Generator().manual_seed(0)
    cameras = [task.draw(step, draw) for step in range(400)]
    ratios = [camera.ratio for camera in cameras]
    assert 0.05 <= min(ratios) < 0.055
    assert 0.45 < max(ratios) <= 0.5
    assert fmean(np.log(ratios)) == pytest.approx(np.log(0.05 * 0.5) / 2, abs=0.05)
    assert {camera.kind for camera in cameras} == set(MriOptions().masks)
    assert len({camera.seed for camera in cameras}) == 400
    assert 0.65 < np.mean([camera.sigma == 0 for camera in cameras]) < 0.85
    x = torch.rand(2, 1, 24, 32, generator=draw)
    noisy = next(camera for camera in cameras if camera.sigma > 0.02)
    m = noisy(x, draw)
    assert isinstance(m.operator, FourierOperator)
    assert m.noise == noisy.sigma
    assert float((m.y - m.operator(x)).std()) == pytest.approx(noisy.sigma, rel=0.1)
    assert torch.equal(noisy(x, draw).operator.index, m.operator.index)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"masks": ("radiall",)}, "known|did you mean"), ({"ratios": (0.5, 0.1)}, "the smallest")],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        MriOptions(**options)


@pytest.mark.parametrize("name", ["mri-frcoast", "mri-rista"])
def test_the_recipes_and_their_networks(name):
    plan, card = recipe(name), cards.card(name)
    assert plan.task.name == "mri"
    assert card.parameters <= 300_000
    assert sum(p.numel() for p in card.build().parameters()) == card.parameters
    assert max(stage.cap for stage in plan.stages) == card.trained.ipl
    with pytest.raises(UsageError, match="recipe"):
        plan.changed({"phi_bases": "3"})


@pytest.mark.parametrize("name", ["mri-frcoast", "mri-rista"])
def test_a_run_continues_exactly_and_is_validated(name, volume, tmp_path):
    plan = recipe(name).changed(TINY)
    run = Run(plan, Options(tmp_path / "run", [volume], CPU))
    first = [step.loss for step in itertools.islice(run.steps(), 3)]
    run.save()
    rest = [
        step.loss
        for step in Run(plan, Options(tmp_path / "run", [volume], CPU, resume=True)).steps()
    ]
    whole = Run(plan, Options(tmp_path / "whole", [volume], CPU, [volume]))
    assert [step.loss for step in whole.steps()] == first + rest
    assert len(first + rest) == 6
    table = whole.validate()
    assert list(table) == ["0.1 (random2d)", "0.3 (random2d)", "0.5 (random2d)"]
    assert all(list(scores)[:2] == ["1", "2"] for scores in table.values())


def test_rotation_turns_the_image_and_not_the_operator():
    """An iteration in any orientation has the gradient of the upright image."""
    net = cards.card("mri-frcoast").build().eval()
    for name, value in net.named_parameters():
        if ".tail." in name:
            torch.nn.init.zeros_(value)
    image = torch.rand(1, 1, 24, 38, generator=torch.Generator().manual_seed(0))
    m = MriOptions().begin(0).draw(0, torch.Generator().manual_seed(1))(image, torch.Generator())
    with torch.inference_mode():
        x, gradient = net.start(m)
        for step in itertools.islice(net.steps(m), 9):
            x = x - net.blocks[0].rho * gradient
            torch.testing.assert_close(step.image, x, atol=1e-5, rtol=0)
            gradient = m.gradient(x)
