"""The training task `mri`, its volumes, and the networks that it trains."""

import itertools
import json
from dataclasses import replace
from statistics import fmean

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from csrecon.errors import InputError, UsageError
from csrecon.reconstructors.base import State
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.nets.frcoast import FrcoastBlock
from csrecon.sensing.operators import FourierOperator
from csrecon.sensing.operators.masks import MASKS
from csrecon.training import slices
from csrecon.training.data import Patches
from csrecon.training.recipe import DataOptions, recipe
from csrecon.training.run import Options, Run
from csrecon.training.tasks.mri import MaskCamera, MriOptions
from csrecon.training.unroll import widen
from csrecon.zoo import cards
from tests.checks import check_operator, check_reconstructor

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
    "task": "{name: mri, masks: [random2d], ratios: [0.2, 0.4], complex: SHARE, coils: [1, 4]}",
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


def test_volumes_have_their_share_of_the_patches(volume, tmp_path):
    Image.fromarray(np.full((30, 30), 255, np.uint8)).save(tmp_path / "white.png")
    options = DataOptions(patch=24, scales=(1,), volumes=0.25)
    patches = Patches([volume, tmp_path / "white.png"], options, CPU, 0)
    x = patches.batch(400, torch.Generator().manual_seed(0))
    assert 0.18 < float((x.amin(dim=(1, 2, 3)) < 1).float().mean()) < 0.32
    alone = Patches([volume], options, CPU, 0).batch(4, torch.Generator())
    assert (alone.amin(dim=(1, 2, 3)) < 1).all()


def test_every_step_has_a_mask_of_its_own():
    task, draw = MriOptions(noise=0.1).begin(0), torch.Generator().manual_seed(0)
    cameras = [task.draw(step, draw) for step in range(400)]
    ratios = [camera.ratio for camera in cameras]
    assert 0.05 <= min(ratios) < 0.055
    assert 0.45 < max(ratios) <= 0.5
    assert fmean(np.log(ratios)) == pytest.approx(np.log(0.05 * 0.5) / 2, abs=0.1)
    assert {camera.kind for camera in cameras} == set(MriOptions().masks)
    assert len({camera.seed for camera in cameras}) == 400
    assert 0.65 < np.mean([camera.sigma == 0 for camera in cameras]) < 0.85
    x = torch.rand(2, 1, 24, 32, generator=draw)
    assert not any(camera.is_complex or camera.coils > 1 for camera in cameras)
    noisy = next(camera for camera in cameras if camera.sigma > 0.02)
    m = noisy(x, draw)
    assert isinstance(m.operator, FourierOperator)
    assert m.noise == noisy.sigma
    assert float((m.y - m.operator(x)).std()) == pytest.approx(noisy.sigma, rel=0.1)
    assert torch.equal(noisy(x, draw).operator.index, m.operator.index)


def test_images_with_a_phase_and_coils_are_as_frequent_as_asked():
    task = MriOptions(complex=0.4, coils=(1, 1, 4, 8)).begin(0)
    draw = torch.Generator().manual_seed(0)
    cameras = [task.draw(step, draw) for step in range(400)]
    assert 0.33 < np.mean([camera.is_complex for camera in cameras]) < 0.47
    assert 0.43 < np.mean([camera.coils == 1 for camera in cameras]) < 0.57
    assert {camera.coils for camera in cameras} == {1, 4, 8}


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("is_complex", [False, True], ids=["real", "complex"])
def test_the_operators_of_training_keep_the_contract(kind, coils, is_complex):
    camera = MaskCamera(kind, 0.3, 5, is_complex=is_complex, coils=coils)
    patches = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    x = camera.images(patches)
    assert x.shape == (2, 1 + is_complex, 16, 24)
    torch.testing.assert_close(torch.linalg.vector_norm(x, dim=1, keepdim=True), patches)
    m = camera(x, torch.Generator())
    check_operator(m.operator)
    assert torch.equal(m.y, m.operator(x))
    assert m.normalized() is m
    turned = replace(camera, seed=4)(x.mT.contiguous(), torch.Generator())
    fourier = [one.operator if coils == 1 else one.operator.sampling for one in (m, turned)]
    assert np.array_equal(fourier[0].mask, fourier[1].mask.T)  # columns instead of rows


@pytest.mark.parametrize(
    ("options", "message"),
    [({"masks": ("radiall",)}, "known|did you mean"), ({"ratios": (0.5, 0.1)}, "the smallest")],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        MriOptions(**options)


PARAMETERS = {
    "mri-frcoast": 244_297,
    "mri-rista": 114_694,
    "mri-disco": 159_074,
    "mri-fno": 233_186,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_recipes_and_their_networks(name):
    plan, card = recipe(name), cards.card(name)
    assert plan.task.name == "mri"
    assert card.parameters == PARAMETERS[name]
    assert sum(p.numel() for p in card.build().parameters()) == card.parameters
    assert max(stage.cap for stage in plan.stages) == card.trained.ipl
    with pytest.raises(UsageError, match="recipe"):
        plan.changed({"phi_bases": "3"})


def test_the_variants_are_compared_under_one_recipe():
    plans = [recipe("mri-disco"), recipe("mri-fno"), recipe("mri-frcoast", "256")]
    alone = [plan.model_copy(update={"model": "", "changes": {}}) for plan in plans]
    assert alone[0] == alone[1] == alone[2]
    drawn = [plan.blueprint() for plan in plans]
    assert {one.block.name for one in drawn} == {"disco", "fno", "frcoast"}
    same = [one.model_dump(exclude={"block"}) for one in drawn]
    assert same[0] == same[1] == same[2]
    assert sum(p.numel() for p in drawn[2].build().parameters()) == 237_381


@pytest.mark.parametrize("name", ["mri-frcoast", "mri-rista"])
def test_a_run_continues_exactly_and_is_validated(name, volume, tmp_path):
    share = "0.5" if name == "mri-frcoast" else "0"
    plan = recipe(name).changed({**TINY, "task": TINY["task"].replace("SHARE", share)})
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
    both = ["0.25 (equispaced, complex, 8 coils)"] if name == "mri-frcoast" else []
    assert list(table) == ["0.1 (radial)", "0.3 (radial)", "0.5 (radial)", *both]
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


def test_complex_and_real_images_have_one_set_of_weights():
    """At first real images are those of the network of one channel; always they stay real."""
    own = cards.card("frcoast").blueprint().model_dump()
    own["block"]["context"] = 0
    torch.manual_seed(1)
    source = Blueprint.model_validate(own).build().eval().at(3)
    blueprint = cards.card("mri-frcoast").blueprint().model_dump()
    blueprint["start"] = source_start = {"name": "markov"}
    target = Blueprint.model_validate(blueprint).build().eval().at(3)
    assert source_start == json.loads(source.blueprint)["start"]
    widen(source, target)
    x = torch.rand(1, 1, 34, 37, generator=torch.Generator().manual_seed(0))
    m = MaskCamera("radial", 0.3, 4)(x, torch.Generator())
    with torch.inference_mode():
        torch.testing.assert_close(target(m), source(m))
        torch.manual_seed(0)
        for value in target.parameters():
            value.add_(0.01 * torch.randn(value.shape))
        assert target(m).shape == x.shape
    for coils in (1, 4):
        for is_complex in (False, True):
            camera = MaskCamera("random1d", 0.3, 5, is_complex=is_complex, coils=coils)
            check_reconstructor(target, camera(camera.images(x), torch.Generator()))


def test_a_real_image_is_a_complex_one_without_imaginary_part():
    torch.manual_seed(0)
    block = FrcoastBlock(5, channels=2).eval()
    state = State(torch.rand(2, 1, 6, 8), torch.rand(2, 5, 3, 4))
    gradient, gain = torch.rand(2, 1, 6, 8), torch.rand(2, 5)
    none = torch.zeros(2, 1, 6, 8)
    with torch.no_grad():
        real, _ = block.prox(state, gradient, gain)
        padded = State(torch.cat([state.image, none], dim=1), state.features)
        both, _ = block.prox(padded, torch.cat([gradient, none], dim=1), gain)
    torch.testing.assert_close(real.image, both.image[:, :1])
    torch.testing.assert_close(real.features, both.features)
