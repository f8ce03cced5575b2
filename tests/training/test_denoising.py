"""The training task `denoise`, and the network that it trains."""

import itertools
from statistics import fmean

import pytest
import torch
from PIL import Image

from csrecon.errors import UsageError
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing.operators import IdentityOperator
from csrecon.training.recipe import recipe
from csrecon.training.run import Options, Run
from csrecon.training.tasks.denoise import DenoiseOptions
from csrecon.zoo import cards
from tests.conftest import scene

CPU = torch.device("cpu")
TINY = recipe("rdenoise").changed(
    {
        "changes": "{block: {features: 8}}",
        "batch": "4",
        "patch": "16",
        "stages": "[{until: 1, cap: 2}]",
        "steps": "80",
        "warmup": "4",
        "ema": "0.9",
        "precision": "fp32",
        "scales": "[1]",
    }
)


@pytest.fixture
def photos(tmp_path):
    for index in range(2):
        Image.fromarray(scene(60 + index, 50)).save(tmp_path / f"{index}.png")
    return sorted(tmp_path.glob("*.png"))


def test_noise_is_uniform_and_not_clipped():
    task, draw = DenoiseOptions(noise=0.2).begin(0), torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 32, 40, generator=draw).round()
    cameras = [task.draw(step, draw) for step in range(500)]
    sigmas = [camera.sigma for camera in cameras]
    assert 0 <= min(sigmas) < 0.01
    assert 0.19 < max(sigmas) <= 0.2
    assert fmean(sigmas) == pytest.approx(0.1, abs=0.01)
    m = cameras[0](x, draw)
    assert isinstance(m.operator, IdentityOperator)
    assert (m.noise, m.operator.ratio, cameras[0].ratio) == (sigmas[0], 1, 1)
    assert float((m.y - x).std()) == pytest.approx(sigmas[0], rel=0.1)
    assert m.y.min() < 0
    assert m.y.max() > 1


def test_the_recipe_and_its_network():
    plan = recipe("rdenoise")
    assert plan.task == DenoiseOptions()
    assert plan.task.noise == pytest.approx(50 / 255)
    assert plan.optimiser.algorithm == "muon"
    card = cards.card("rdenoise")
    count = sum(p.numel() for p in card.build().parameters())
    assert count == card.parameters
    assert count <= 300_000
    assert card.task == "denoising"
    assert card.modulation.options["noise_scale"] * plan.task.noise <= 1  # all σ are told apart
    with pytest.raises(UsageError, match="noise"):
        plan.changed({"task.noise": "0"})


def test_a_short_run_learns_and_continues_exactly(tmp_path, photos):
    def options(**changes):
        return Options(out=tmp_path / "run", data=photos, device=CPU, **changes)

    run = Run(TINY, options())
    before = run.trainer.task.validate(run.averaged(), photos, execution.Setup(CPU))
    for _ in itertools.islice(run.steps(), 60):
        pass
    run.save()
    after = run.trainer.task.validate(run.averaged(), photos, execution.Setup(CPU))
    for level, scores in after.items():
        assert scores["2"] > before[level]["2"] + 1, level  # at first the noisy image is returned
    rest = [step.loss for step in Run(TINY, options(resume=True)).steps()]
    assert len(rest) == 20
    whole = Run(TINY, Options(out=tmp_path / "whole", data=photos, device=CPU))
    assert [step.loss for step in whole.steps()][60:] == rest


def test_validation_is_of_the_published_levels(photos):
    task = DenoiseOptions().begin(0)
    network = TINY.blueprint().build()
    assert isinstance(network, Unfolding)
    table = task.validate(network.eval(), photos[:1], execution.Setup(CPU))
    assert list(table) == ["σ 15/255", "σ 25/255", "σ 50/255"]
    for scores in table.values():
        assert set(scores) == {"1", "2", "4", "6", "8"}
    again = task.validate(network, photos[:1], execution.Setup(CPU))
    assert again == table
