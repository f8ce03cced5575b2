"""Training: recipes, patches, Φ, a loop that continues exactly, and faults that lose nothing."""

import itertools
import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import csrecon
from csrecon.errors import CheckError, InputError, ModelError, ResourceError, UsageError
from csrecon.io import images
from csrecon.runtime import execution
from csrecon.sensing import native
from csrecon.training import checkpoint
from csrecon.training.data import BLOCK, Patches
from csrecon.training.loop import Objective, Trainer
from csrecon.training.recipe import OptimiserOptions, Recipe, recipe, recipes
from csrecon.training.run import Options, Run
from csrecon.training.tasks.blocks import BlocksOptions
from csrecon.zoo import cards
from tests.conftest import ROOT, scene, together

CPU = torch.device("cpu")
LEGACY = ROOT / "tests" / "legacy"
TINY = recipe("rista").changed(
    {
        "batch": "2",
        "patch": "36",
        "steps": "6",
        "warmup": "2",
        "phi_bases": "2",
        "phi_refresh": "2",
        "precision": "fp32",
        "scales": "[1]",
    }
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "photos"
    path.mkdir()
    for index in range(2):
        Image.fromarray(scene(60 + index, 50)).save(path / f"{index}.png")
    return path


@pytest.fixture
def photos(folder):
    return sorted(folder.iterdir())


def options(tmp_path, photos, **changes):
    return Options(out=tmp_path / "run", data=photos, device=CPU, **changes)


def trained(trainer, steps):
    return list(itertools.islice(trainer.run(), steps))


def trainer(photos, plan=TINY, **changes):
    torch.manual_seed(0)
    return Trainer(
        plan.blueprint().build(),
        plan,
        Patches(photos, plan.data, CPU, 0, plan.patches),
        CPU,
        **changes,
    )


def test_every_model_has_its_recipes():
    for model, card in cards.cards().items():
        if card.licence == "Apache-2.0":  # the others are the authors' own
            assert recipes()[model].model == model
    for model in ("rcoast", "rista", "coast", "istanet-plus"):
        assert {f"{model}-paper", f"{model}-3pct"} <= set(recipes())
    for plan in recipes().values():
        assert plan.stages[-1].until == 1
        assert plan.stage(0.999).cap <= cards.card(plan.model).trained.max_ipl


def test_the_papers_recipe():
    plan = recipe("rcoast", "paper")
    assert (plan.data.patch, plan.data.batch) == (33, 64)
    assert (plan.optimiser.learning_rate, plan.task.fixed_phis) == (1e-4, 50)
    assert plan.steps == 88_912 // 64 * 400
    assert plan.stage(0).cap == plan.stage(1).cap == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lerning_rate": "1"}, "did you mean 'learning_rate'"),
        ({"steps": "0"}, "steps"),
        ({"loss": "l1"}, "loss"),
        ({"stages": "[]"}, "stages"),
        ({"steps": "[: "}, "not a plain value"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        TINY.changed(settings)


def test_a_recipe_of_the_first_release_is_read():
    """Its fields lay side by side, and networks had arguments."""
    flat = json.loads((LEGACY / "run" / "recipe.json").read_text())
    assert {"patch", "data_fraction", "arguments"} <= flat.keys()
    plan = Recipe.model_validate(flat)
    assert plan.data.patch == flat["patch"] == 33
    assert plan.data.sets == ("photos",)
    assert plan.task.noise == flat["noise"] == 0.05
    assert plan.objective.rising == 1
    assert plan.optimiser.precision == "fp32"
    assert plan.changes == {"block": {"features": 4}}
    old = recipe("rcoast").changed({"arguments": "{halved_after: null, turning: false}"})
    assert old.blueprint().recursion.rotate is False
    assert old.blueprint().recursion.relax_after is None
    with pytest.raises(UsageError, match="did you mean 'turning'"):
        recipe("rcoast").changed({"arguments": "{turnin: false}"})


def test_a_run_of_the_first_release_is_continued_exactly(tmp_path):
    """Two steps of the first release, and two of this one, give what its four steps gave."""
    shutil.copytree(LEGACY / "run", tmp_path / "run")
    Image.fromarray(scene(60, 70)).save(tmp_path / "0.png")
    plan = Recipe.model_validate_json((LEGACY / "run" / "recipe.json").read_text())
    other = plan.changed({"learning_rate": "0.5"})
    run = {"out": tmp_path / "run", "data": [tmp_path / "0.png"], "device": CPU, "resume": True}
    with pytest.raises(ModelError, match="another recipe"):
        Run(other, Options(**run))
    assert [p.step for p in Run(plan, Options(**run)).steps()] == [3, 4]
    m = native.load(LEGACY / "gaussian.npy")
    image = csrecon.reconstruct(
        m, tmp_path / "run" / "weights.safetensors", 2, "cpu", precision="fp32", tile="off"
    )
    expected = np.load(LEGACY / "images.npz")["run-step4"]
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_unknown_recipe():
    with pytest.raises(UsageError, match="did you mean 'rcoast"):
        recipe("rcost")


STAGED = TINY.changed(
    {"stages": "[{until: 0.5, cap: 2}, {until: 1, cap: 2, patch: 40, batch: 3}]", "steps": "6"}
)


def test_a_stage_has_its_own_patches(photos):
    seen, one = [], trainer(photos, STAGED)
    batch = one.patches.batch
    one.patches.batch = lambda *given: seen.append(batch(*given)) or seen[-1]
    trained(one, 6)
    shapes = [tuple(x.shape) for x in seen]
    first = (STAGED.data.batch, 1, STAGED.data.patch, STAGED.data.patch)
    assert shapes == [first] * 3 + [(3, 1, 40, 40)] * 3


def test_a_run_continues_exactly_into_another_stage(photos):
    whole, begun, continued = (trainer(photos, STAGED) for _ in range(3))
    trained(whole, 5)
    trained(begun, 2)
    continued.restore(begun.state(begun.own_states()))
    trained(continued, 3)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, continued.network.state_dict()[name])


def test_stages_that_cannot_be_are_refused(photos):
    with pytest.raises(UsageError, match="one patch size"):
        STAGED.changed({"fraction": "0.5"})
    with pytest.raises(UsageError, match="pixels a step"):
        TINY.changed({"stages": "[{until: 1, cap: 2, patch: 4096, batch: 60000}]"})
    with pytest.raises(InputError, match="as large as a patch of 4000"):
        trainer(photos, TINY.changed({"stages": "[{until: 1, cap: 2, patch: 4000}]"}))


def test_patches_are_turned_crops_of_the_images(photos):
    patches = Patches(photos, TINY.changed({"patch": "48"}).data, CPU, 0)
    draw = torch.Generator().manual_seed(0)
    batch = (patches.batch(64, draw)[:, 0] * 255).round().byte().numpy()
    sources = [(images.read(path).planes[0, 0] * 255).round().byte().numpy() for path in photos]
    kinds = set()
    for crop in batch:
        turns = [np.rot90(f, k) for f in (crop, crop.T) for k in range(4)]
        found = {
            kind
            for kind, turned in enumerate(turns)
            for source in sources
            for window in np.lib.stride_tricks.sliding_window_view(source, (48, 48)).reshape(
                -1, 48, 48
            )
            if np.array_equal(window, turned)
        }
        assert found
        kinds |= found
    assert kinds == set(range(8))


def test_a_fraction_of_the_data_is_a_fixed_pool(photos):
    plan = TINY.changed({"data_fraction": "0.0001"})
    patches = Patches(photos, plan.data, CPU, 0)
    assert len(patches._pool) == round(0.0001 * 88_912 * BLOCK**2 / plan.data.patch**2)
    seen = {tuple(patches.batch(1, torch.Generator().manual_seed(s)).sort()[0].flatten().tolist())
            for s in range(60)}  # fmt: skip
    assert len(seen) <= 8 * len(patches._pool)


def test_images_smaller_than_a_patch(photos):
    with pytest.raises(InputError, match="as large as a patch of 99"):
        Patches(photos, TINY.changed({"patch": "99"}).data, CPU, 0)


def test_every_step_measures_with_a_fresh_orthonormal_phi():
    task = BlocksOptions(ratios=(0.1,), phi_bases=2, phi_refresh=3).begin(0)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 40, 40)
    first, second = (task.draw(step, draw)(x, draw).operator for step in range(2))
    for operator in (first, second):
        assert operator.tight
        assert operator.m == 109
    assert (first.rows.matrix() @ second.rows.matrix().T).abs().max() < 0.5
    assert task.state == [0, 1]
    task.draw(2, draw)
    assert task.state == [1, 2]


def test_noise_is_measured_and_known():
    task = BlocksOptions(ratios=(0.1,), phi_bases=2, noise=0.1).begin(0)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(4, 1, 66, 66)
    sigmas = []
    for step in range(12):
        m = task.draw(step, draw)(x, draw)
        sigmas.append(m.noise)
        if m.noise:
            found = float((m.y - m.operator(x)).std())
            assert found == pytest.approx(m.noise, rel=0.05, abs=1e-6)
    assert 0 in sigmas
    assert 0 < max(sigmas) <= 0.1


def test_the_paper_s_phis_are_fixed():
    task = BlocksOptions(ratios=(0.1,), phi_bases=1, fixed_phis=2).begin(0)
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(1, 1, 33, 33)
    used = {task.draw(step, draw)(x, draw).operator.phi.sha256 for step in range(12)}
    assert len(used) == 2


def test_the_loss_is_the_recipe_s(photos):
    net = cards.card("rista").build().train()
    m = csrecon.sample(scene(36, 36)[..., 0], 0.3)
    x = torch.from_numpy(scene(36, 36)[..., 0] / np.float32(255))[None, None]
    steps = list(net.at((1, 2, 1)).steps(m))
    errors = [(step.image - x).square().mean() for step in steps]
    plain = TINY.objective.model_copy(update={"loss": "mse", "penalty": 0.0})
    objective = Objective(net, plain)
    torch.testing.assert_close(objective(m, x, (1, 2, 1))[0], errors[-1])
    objective.options = plain.model_copy(update={"every": 0.5})
    expected = errors[-1] + 0.5 * sum(errors) / 4
    torch.testing.assert_close(objective(m, x, (1, 2, 1))[0], expected)
    objective.options = plain.model_copy(update={"penalty": 0.01})
    expected = errors[-1] + 0.01 * sum(step.penalty for step in steps)
    torch.testing.assert_close(objective(m, x, (1, 2, 1))[0], expected)
    objective.options = plain.model_copy(update={"worse": 2.0})
    rises = sum(torch.relu(b - a) for a, b in itertools.pairwise(errors)) / 3
    torch.testing.assert_close(objective(m, x, (1, 2, 1))[0], errors[-1] + 2 * rises)


def test_an_iteration_more_that_makes_it_worse_is_penalised(photos):
    net = cards.card("rista").build().train()
    m = csrecon.sample(scene(36, 36)[..., 0], 0.3)
    truth = torch.from_numpy(scene(36, 36)[..., 0] / np.float32(255))[None, None]
    plain = TINY.objective.model_copy(update={"loss": "mse", "penalty": 0.0})
    fewer, more = (net.at(ipl)(m).detach() for ipl in (2, 3))
    # What fewer iterations give is the target: one more can then only be worse; and the reverse.
    for x, falls in ((fewer, (more - fewer).square().mean()), (more, torch.zeros(()))):
        objective = Objective(net, plain)
        base = objective(m, x, (3, 3, 3))[0]
        objective.options = plain.model_copy(update={"rising": 3.0})
        torch.testing.assert_close(objective(m, x, (3, 3, 3))[0], base + 3 * falls)
    objective.options = plain.model_copy(update={"rising": 3.0})
    expected = (net.at(1)(m) - truth).square().mean()
    torch.testing.assert_close(objective(m, truth, (1, 1, 1))[0], expected)


def test_training_lowers_the_loss(photos):
    easy = {"steps": "40", "ratios": "[0.3]", "stages": "[{until: 1, cap: 1}]"}
    plan = TINY.changed(easy | {"arguments": "{start: null}"})  # from Φᵀy there is much to learn
    losses = [p.loss for p in trainer(photos, plan).run()]
    assert len(losses) == 40
    assert sum(losses[-10:]) < sum(losses[:10]) - 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_continued_run_is_the_uninterrupted_one(photos, precision):
    plan = TINY.changed({"precision": precision})
    whole = trainer(photos, plan)
    losses = [p.loss for p in whole.run()]
    first = trainer(photos, plan)
    before = [p.loss for p in trained(first, 3)]
    second = trainer(photos, plan)
    second.restore(first.state(first.own_states()))
    after = [p.loss for p in second.run()]
    assert before + after == losses
    for key, value in whole.averaged().items():
        assert torch.equal(second.averaged()[key], value)


def test_a_processor_without_bf16_trains_in_fp32(photos, monkeypatch):
    for fastest in ("fp32", "bf16"):
        monkeypatch.setattr(execution, "fastest_precision", lambda device, to=fastest: to)
        run = trainer(photos, TINY.changed({"precision": "auto"}))
        given = trainer(photos, TINY.changed({"precision": fastest}))
        assert [p.loss for p in trained(run, 2)] == [p.loss for p in trained(given, 2)]
    assert OptimiserOptions().precision == "auto"


def test_the_curves(photos):
    run = trainer(photos, TINY.changed({"steps": "10"}))
    rates = [p.learning_rate for p in run.run()]
    assert rates[0] == pytest.approx(TINY.optimiser.learning_rate / 2)
    assert rates[1] == max(rates)
    assert rates[-1] < 0.1 * rates[1]
    fitted = trainer(photos, TINY, fit_seconds=100.0)
    fitted.seconds = 50.0
    fitted.step = 1000
    middle = (TINY.optimiser.learning_rate + TINY.optimiser.final_learning_rate) / 2
    assert fitted.learning_rate() == pytest.approx(middle)


def test_equal_counts_come_as_often_as_asked(photos):
    plan = TINY.changed({"equal": "1", "stages": "[{until: 1, cap: 6}]"})
    run = trainer(photos, plan)
    drawn = {run._counts(6) for _ in range(100)}
    assert drawn == {(ipl,) * 3 for ipl in range(1, 7)}


def test_a_run_on_disk_and_its_continuation(tmp_path, photos):
    whole = Run(TINY, options(tmp_path / "whole", photos))
    losses = [p.loss for p in whole.steps()]
    run = Run(TINY, options(tmp_path, photos))
    halves = [[], []]
    for p in run.steps(stop=lambda: len(halves[0]) == 3):
        halves[0].append(p.loss)
    again = Run(TINY, options(tmp_path, photos, resume=True))
    halves[1] = [p.loss for p in again.steps()]
    assert halves[0] + halves[1] == losses
    net = csrecon.load(tmp_path / "run" / "weights.safetensors")
    for key, value in again.trainer.averaged().items():
        assert torch.equal(net.state_dict()[key], value)
    with pytest.raises(UsageError, match="exists"):
        Run(TINY, options(tmp_path, photos))


def test_nan_leaves_the_last_checkpoint(tmp_path, photos, monkeypatch):
    run = Run(TINY, options(tmp_path, photos))
    good = {}
    with pytest.raises(CheckError, match="step 3"):
        for p in run.steps():
            if p.step == 2:
                run.save()
                good = run.trainer.averaged()
                run.trainer.network.blocks[0].rho.data.fill_(math.nan)
    state = checkpoint.load(tmp_path / "run", TINY)
    assert state["step"] == 2
    assert all(torch.equal(state["average"][key], value) for key, value in good.items())


def test_time_is_kept(tmp_path, photos):
    long = TINY.changed({"steps": "100000"})
    run = Run(long, options(tmp_path, photos, max_seconds=1.5))
    steps = list(run.steps())
    assert steps[-2].seconds < 1.5 <= run.trainer.seconds
    assert steps[-1].step == checkpoint.load(tmp_path / "run", long)["step"]


def test_checkpoints_that_do_not_fit(tmp_path, photos):
    list(Run(TINY, options(tmp_path, photos)).steps())
    other = TINY.changed({"learning_rate": "0.5"})
    with pytest.raises(ModelError, match="another recipe"):
        Run(other, options(tmp_path, photos, resume=True))
    path = tmp_path / "run" / checkpoint.FILE
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match="not a checkpoint that can be read"):
        Run(TINY, options(tmp_path, photos, resume=True))
    path.unlink()
    with pytest.raises(InputError, match="no such file"):
        Run(TINY, options(tmp_path, photos, resume=True))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, photos, monkeypatch):
    run = Run(TINY, options(tmp_path, photos))
    list(run.steps())
    before = (tmp_path / "run" / checkpoint.FILE).read_bytes()

    def full(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="disk is full"):
        run.save()
    assert (tmp_path / "run" / checkpoint.FILE).read_bytes() == before
    assert not [p for p in (tmp_path / "run").iterdir() if p.name.startswith(".")]


def test_weights_to_begin_with(tmp_path, photos):
    plan = recipe("rcoast").changed({"steps": "1", "batch": "1", "patch": "36", "init": "rcoast"})
    run = Run(plan, options(tmp_path, photos))
    known = csrecon.load("rcoast").state_dict()
    assert all(torch.equal(known[k], v) for k, v in run.trainer.averaged().items())
    with pytest.raises(UsageError, match="do not fit"):
        Run(TINY.model_copy(update={"init": "rcoast"}), options(tmp_path / "b", photos))


SETTINGS = [
    argument
    for text in ("steps=4", "batch=1", "patch=36", "phi_bases=1", "scales=[1]")
    for argument in ("--set", text)
]


def command(*arguments):
    return [sys.executable, "-m", "csrecon", "train", "rista", "--data", "photos", *arguments]


def test_the_command(folder, tmp_path):
    done = subprocess.run(command(*SETTINGS, "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["step"] == 4
    assert facts["finished"]
    run = tmp_path / "runs" / "rista"
    assert {path.name for path in run.iterdir()} >= {
        "recipe.json", "log.jsonl", "checkpoint.pt", "weights.safetensors",
    }  # fmt: skip
    assert json.loads((run / "recipe.json").read_text())["data"]["sets"] == ["photos"]
    again = subprocess.run(command(*SETTINGS), capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "exists" in again.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_whole_step_and_the_run_continues(folder, tmp_path, number, code):
    settings = [*SETTINGS, "--set", "steps=100000"]
    process = subprocess.Popen(command(*settings), stderr=subprocess.PIPE, text=True)
    path = tmp_path / "runs" / "rista" / "checkpoint.pt"
    while not path.exists():
        assert process.poll() is None
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == code, said
    assert "the run is saved" in said
    more = subprocess.run(
        command(*settings, "--resume", "--max-time", "1s"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr


@pytest.mark.slow
def test_two_processes(folder, tmp_path):
    done = together(*command(*SETTINGS, "--device", "cpu")[3:])
    assert done.returncode == 0, done.stderr
    state = torch.load(tmp_path / "runs" / "rista" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    assert len(state["own"]) == 2
    assert not torch.equal(*state["own"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "steps"], 2, "key=value"),
        (["--set", "stepps=3"], 2, "did you mean 'steps'"),
        (["--recipe", "mine"], 2, "no recipe"),
        (["--max-time", "soon"], 2, "90s"),
        (["--fit"], 2, "--max-time"),
        (["--resume"], 3, "no such file"),
        (["--data", "nothing"], 3, "no image"),
        (["--data", "t19"], 4, "did you mean 't91'"),
        (["--init", "tv"], 2, "classical solver"),
    ],
)
def test_bad_input(folder, tmp_path, arguments, code, message):
    from typer.testing import CliRunner

    from csrecon.cli.app import app

    (tmp_path / "nothing").mkdir()
    given = ["train", "rista", "--data", "photos", *SETTINGS, *arguments]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not (tmp_path / "runs").exists()
