"""Adapting to measurements alone: it helps where it can, says when it does not, and never peeks."""

import itertools
import json
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

import csrecon
from csrecon.cli.app import app
from csrecon.errors import CheckError, InputError, ModelError, UsageError
from csrecon.io import images
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.reconstructors.unfolding import Unfolding
from csrecon.runtime import execution
from csrecon.sensing import native, parts
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator
from csrecon.training import gain, measured
from csrecon.training.adapt import Adaptation, AdaptOptions, adapt
from csrecon.training.adapted import AdaptRun, Output
from csrecon.training.prediction import Prediction, PredictionOptions
from csrecon.zoo import weights_file

SETUP = execution.Setup(torch.device("cpu"))
SHORT = AdaptOptions(steps=6, max_seconds=None, rounds=3, crop=32)
BLUEPRINT = Blueprint.model_validate(
    {
        "block": {"name": "coast", "features": 8},
        "recursion": {"schedule": [2, 2], "projection": True},
        "modulation": {"name": "ratio"},
        "trained": {"ipl": 2, "max_ipl": 4, "ratios": [0.01, 1.0]},
    }
)


def stripes(seed: int, height: int = 48, width: int = 48) -> np.ndarray:
    """Stripes of some direction and width, (H, W) in [0, 1]."""
    draw = np.random.default_rng(seed)
    down, across = np.mgrid[:height, :width]
    angle = draw.uniform(0, math.pi)
    wave = np.sin((down * math.sin(angle) + across * math.cos(angle)) / draw.uniform(1.5, 3))
    return (0.5 + 0.4 * np.tanh(4 * wave)).astype(np.float32)


def values(count: int = 3, noise: float = 0.0, **options: object) -> list[Measurement]:
    images = [stripes(seed) for seed in range(count)]
    given = {"ratio": 0.4, "block": 16, "seed": 3, **options}
    return [csrecon.sample(image, noise_sigma=noise, **given) for image in images]  # type: ignore[arg-type]


@pytest.fixture
def network() -> Unfolding:
    """A tiny network whose weights are small, as before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = BLUEPRINT.build().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if ".tail." in name:
                parameter.mul_(0.05)
    return made


def weights(network: Unfolding) -> list[torch.Tensor]:
    return [value.clone() for value in network.state_dict().values()]


def same(one: Unfolding, other: Unfolding) -> bool:
    return all(map(torch.equal, weights(one), weights(other)))


def psnr(network: Unfolding, seeds: range) -> float:
    found = []
    for seed in seeds:
        x = stripes(seed)
        made = csrecon.reconstruct(csrecon.sample(x, 0.4, block=16, seed=3), network, device="cpu")
        found.append(-10 * math.log10(float(np.square(np.clip(made, 0, 1) - x).mean())))
    return float(np.mean(found))


def run(network: Unfolding, given: list[Measurement], options: AdaptOptions) -> Adaptation:
    made = Adaptation(network, given, options, SETUP)
    for _ in made.run():
        pass
    return made


# --- What it is for ---


def test_the_image_gains_what_is_estimated(network: Unfolding) -> None:
    options = AdaptOptions(steps=40, max_seconds=None, crop=48, learning_rate=3e-3, rounds=4)
    before = weights(network)
    found = adapt(network, values(4), options, SETUP)
    assert all(map(torch.equal, before, weights(network)))  # it is not changed
    assert found.gain.sure
    assert found.gain.after < found.gain.before
    assert found.steps == 40
    seen = psnr(found.network, range(4)) - psnr(network, range(4))
    unseen = psnr(found.network, range(10, 14)) - psnr(network, range(10, 14))
    assert seen > 0.3
    assert unseen > 0.3
    assert found.gain.db == pytest.approx(seen, abs=max(0.5, 4 * found.gain.error))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": "last"},
        {"loss": "plain"},
        {"equivariance": 0.5},
        {"crop": 1},
        {"crop": 500},
    ],
)
def test_options(network: Unfolding, changes: dict[str, object]) -> None:
    made = run(network, values(2), SHORT.model_copy(update=changes))
    assert not same(network, made.network)
    if changes.get("layers") == "last":
        for name, value in network.state_dict().items():
            moved = not torch.equal(value, made.network.state_dict()[name])
            assert moved == (".tail." in name or name.startswith("modulation.")), name


def test_colour_oblong_images_and_missing_blocks(network: Unfolding) -> None:
    x = np.stack([stripes(seed, 40, 56) for seed in range(3)], axis=-1)
    colour = csrecon.sample(x, 0.4, block=16, color="rgb")
    operator = colour.operator
    assert isinstance(operator, BlockOperator)
    there = torch.ones(operator.grid)
    there[0] = 0
    there[1, 1] = 0
    part = BlockOperator(operator.phi, operator.image_shape, operator.block, None, there)
    masked = replace(colour, operator=part, y=part.masked(colour.y))
    for given in (colour, masked):
        options = SHORT.model_copy(update={"equivariance": 0.3, "crop": 16})
        assert not same(network, run(network, [given], options).network)


def test_all_kinds_of_rows_and_given_matrices(network: Unfolding) -> None:
    given = [*values(1, kind="hadamard-cake"), *values(1, kind="binary", noise=0.01)]
    made = run(network, given, SHORT)
    assert made.step == 6


# --- What is not used ---


def test_held_out_values_never_train(network: Unfolding) -> None:
    """Other values in these rows: the same weights, and another gain."""
    given = values(2)
    clean = run(network, given, SHORT)
    changed = []
    for seed, m in enumerate(given):
        held = measured.Divided.of(m, seed, "m").held
        assert isinstance(held.operator, BlockOperator)
        rows = held.operator.rows.matrix() @ m.operator.rows.matrix().T  # type: ignore[union-attr,operator]
        places = rows.argmax(dim=1)
        assert len(places) == round(0.1 * m.y.shape[-1])
        y = m.y.clone()
        y[..., places] += 0.3
        changed.append(replace(m, y=y))
    other = run(network, changed, SHORT)
    assert same(clean.network, other.network)
    assert clean.result().gain.before != other.result().gain.before


def test_rows_are_divided_once() -> None:
    m = values(1, kind="hadamard-cake")[0]
    one = measured.Divided.of(m, 0, "m")
    matrices = [
        part.operator.rows.matrix()  # type: ignore[union-attr,operator]
        for part in (one.training, one.held)
    ]
    assert len(matrices[0]) + len(matrices[1]) == m.y.shape[-1]
    assert float((matrices[0] @ matrices[1].T).abs().max()) < 1e-5
    ones = torch.full((256,), 1 / 16)
    mean = int((matrices[0] @ ones).abs().argmax())
    assert float((matrices[0] @ ones)[mean].abs()) > 0.9
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        rows, targets = one.split(draw)
        assert mean in rows
        assert sorted(rows + targets) == list(range(len(matrices[0])))
        assert 0.55 < len(rows) / len(matrices[0]) < 0.97


def test_a_crop_is_the_measurement_of_a_piece() -> None:
    x = torch.from_numpy(stripes(0, 50, 60))[None, None]
    whole = csrecon.sample(x[0, 0].numpy(), 0.3, block=16)
    part = parts.crop(whole, (1, 2), (3, 2))
    assert part.operator.image_shape == (34, 28)
    piece = x[..., 16:50, 32:60]
    torch.testing.assert_close(part.operator(piece), part.y)
    assert float(measured.squares(part, piece).max()) < 1e-8


# --- The estimate ---


def test_noise_is_subtracted(network: Unfolding) -> None:
    """With σ told, the loss of the true image is that of no error."""
    m = values(1, noise=0.1)[0]
    assert m.noise == pytest.approx(0.1)
    x = torch.from_numpy(stripes(0))[None, None]
    options = PredictionOptions(loss="plain", crop=48)
    told = Prediction([measured.Divided.of(m, 0, "m")], options, SETUP)
    squares = measured.squares(m, x)
    assert float(told.form(squares, 0.0)) == pytest.approx(0.01, rel=0.2)
    assert abs(float(told.form(squares, m.noise))) < 0.001
    log = Prediction([], PredictionOptions(), SETUP)
    assert float(log.form(squares, m.noise)) < -3
    case = measured.cases([measured.Divided.of(m, 0, "m")], 48, 4, 0)[0]
    assert all(abs(float(part.mean())) < 0.003 for part in case.errors(x))


def test_the_gain_and_its_error() -> None:
    draw = torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(200):
        images = []
        for size in (0.1, 0.01):
            e = torch.randn(9, 12, generator=draw) * size
            other = 0.6 * e + 0.5 * size * torch.randn(9, 12, generator=draw)
            images.append(gain.Errors(e.square(), other.square(), 0.0))
        drawn.append(gain.estimate(images))
    true = -10 * math.log10(0.6**2 + 0.5**2)
    assert np.mean([g.db for g in drawn]) == pytest.approx(true, abs=0.1)
    spread = np.std([g.db for g in drawn])
    assert spread < np.mean([g.error for g in drawn]) < 2 * spread
    nothing = gain.Errors(torch.zeros(4, 3), torch.zeros(4, 3), 0.0)
    assert not gain.estimate([nothing]).sure
    single = gain.Errors(torch.rand(1, 1), torch.rand(1, 1) / 9, 0.0)
    assert not gain.estimate([single]).sure


# --- Repeating and continuing ---


def test_equal_seeds_give_equal_weights(network: Unfolding) -> None:
    one, two = (adapt(network, values(2), SHORT, SETUP) for _ in range(2))
    assert same(one.network, two.network)
    assert one.gain == two.gain
    other = run(network, values(2), SHORT.model_copy(update={"seed": 1}))
    assert not same(run(network, values(2), SHORT).network, other.network)


def begun(network: Unfolding, output: Output, options: AdaptOptions = SHORT) -> AdaptRun:
    given = {f"y{i}": m for i, m in enumerate(values(2))}
    return AdaptRun("tiny", network, given, options, output, SETUP)


def test_a_run_continues_as_if_it_had_not_stopped(network: Unfolding, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    whole = begun(network, Output(tmp_path / "whole.safetensors", force=True))
    for _ in whole.steps():
        pass
    first = begun(network, Output(path, force=True))
    stopped = iter([False, False, False, True, True])
    for _ in first.steps(stop=lambda: next(stopped)):
        pass
    assert 0 < first.adaptation.step < 6
    with pytest.raises(UsageError, match="--resume"):
        begun(network, Output(path))
    with pytest.raises(ModelError, match="other options"):
        begun(network, Output(path, resume=True), SHORT.model_copy(update={"steps": 9}))
    more = begun(network, Output(path, resume=True, force=True))
    for _ in more.steps():
        pass
    assert more.adaptation.step == 6
    assert same(whole.adaptation.network, more.adaptation.network)
    found, expected = more.finish(), whole.finish()
    assert same(found.network, expected.network)
    assert found.gain == expected.gain
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.safetensors", "whole.safetensors"]


def test_nothing_to_resume(network: Unfolding, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        begun(network, Output(tmp_path / "mine.safetensors", resume=True))


# --- No gain, and what is written ---


def test_without_a_gain_nothing_is_written(network: Unfolding, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    idle = SHORT.model_copy(update={"learning_rate": 1e-12})
    made = begun(network, Output(path), idle)
    for _ in made.steps():
        pass
    with pytest.raises(CheckError, match="Nothing was written"):
        made.finish()
    assert list(tmp_path.iterdir()) == []
    forced = begun(network, Output(path, force=True), idle)
    for _ in forced.steps():
        pass
    assert not forced.finish().gain.sure
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UsageError, match="--overwrite"):
        begun(network, Output(path))


def test_what_weights_were_made_from(network: Unfolding, tmp_path: Path) -> None:
    path, plain = tmp_path / "mine.safetensors", tmp_path / "plain.safetensors"
    made = begun(network, Output(path, force=True))
    for _ in itertools.islice(made.steps(), 2):
        pass
    made.finish()
    text = weights_file.read_made_from(path)
    assert text is not None
    assert text.startswith("tiny (weights ")
    assert "2 measurement(s) of ratio 0.3984" in text
    assert str(tmp_path) not in text
    with safe_open(path, framework="pt") as stream:
        assert Blueprint.model_validate_json(stream.metadata()["csrecon"]) == BLUEPRINT
    assert isinstance(weights_file.load(path), Unfolding)
    weights_file.save(network, BLUEPRINT, plain)
    assert weights_file.read_made_from(plain) is None
    said = CliRunner().invoke(app, ["models", "info", str(path)]).stdout
    assert " ".join(text.split()) in " ".join(said.split())
    facts = json.loads(CliRunner().invoke(app, ["models", "info", str(plain), "--json"]).stdout)
    assert facts["made_from"] is None
    assert facts["block"] == BLUEPRINT.block.model_dump(mode="json")


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_constant_images(network: Unfolding, level: float) -> None:
    """A dark or a gray scene has an error like any other, and nothing becomes infinite."""
    flat = csrecon.sample(np.full((48, 48), level, np.float32), 0.4, block=16)
    found = adapt(network, [flat], SHORT, SETUP)
    assert math.isfinite(found.gain.db)
    assert found.gain.sure == (found.gain.db > max(0.01, 2 * found.gain.error))


# --- Bad input ---


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda: [], UsageError, "no measurement"),
        (lambda: values(1, ratio=None, m=4), UsageError, "too few"),
        (lambda: values(1, kind="fourier", block=None), UsageError, "block sampling only"),
        (lambda: [*values(1), *values(1, block=24)], UsageError, "16×16.*24×24"),
        (lambda: [replace(m, y=500 * m.y) for m in values(1)], InputError, "too large"),
    ],
)
def test_what_cannot_be_adapted_to(network, given, error, message) -> None:
    with pytest.raises(error, match=message):
        Adaptation(network, given(), SHORT, SETUP)


def test_other_refusals(network: Unfolding, tmp_path: Path) -> None:
    endless = AdaptOptions(steps=None, max_seconds=None)
    with pytest.raises(UsageError, match="neither"):
        Adaptation(network, values(1), endless, SETUP)
    with pytest.raises(UsageError, match="ends in"):
        Output(tmp_path / "mine.pt").check()
    with torch.no_grad():
        next(network.parameters()).fill_(math.nan)
    with pytest.raises((CheckError, InputError)):
        adapt(network, values(1), SHORT, SETUP)


def test_one_measurement_and_different_matrices_are_said(network, caplog) -> None:
    caplog.set_level("INFO")
    Adaptation(network, values(1), SHORT, SETUP)
    assert "one measurement" in caplog.text
    Adaptation(network, [*values(1), *values(1, seed=9)], SHORT, SETUP)
    assert "different Φ" in caplog.text


# --- The command ---


@pytest.fixture
def folder(tmp_path: Path, network: Unfolding) -> Path:
    """Two measurements of 66×66 pixels, and the weights of a tiny network."""
    for index in range(2):
        path = tmp_path / f"{index}.png"
        Image.fromarray((255 * stripes(index, 66, 66)).astype(np.uint8)).save(path)
        native.save(csrecon.sample(images.read(path), 0.3), tmp_path / "values" / f"{index}.npy")
    weights_file.save(network, BLUEPRINT, tmp_path / "tiny.safetensors")
    return tmp_path / "values"


COMMAND = ["adapt", "values", "--model", "tiny.safetensors", "-o", "mine.safetensors"]


def test_the_command(folder: Path, tmp_path: Path) -> None:
    given = [*COMMAND, "--steps", "5", "--force", "--device", "cpu"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    line = result.stdout.splitlines()[-1]
    assert line == "csrecon reconstruct values/0.npy --model mine.safetensors"
    again = CliRunner().invoke(app, given)
    assert again.exit_code == 2
    assert "exists already" in again.stderr
    done = CliRunner().invoke(app, [*given, "--overwrite", "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert (facts["measurements"], facts["steps"]) == (2, 5)
    assert facts["gain_error"] >= 0
    made = CliRunner().invoke(app, line.split()[1:])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "values" / "0.png").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([*COMMAND, "--loss", "l1"], 2, "loss"),
        ([*COMMAND, "--layers", "first"], 2, "layers"),
        ([*COMMAND, "--max-time", "soon"], 2, "90s"),
        ([*COMMAND, "--model", "tv"], 2, "classical solver"),
        ([*COMMAND, "--model", "istanet-plus-original"], 2, "per-ratio"),
        ([*COMMAND, "-o", "mine.pt"], 2, "ends in"),
        ([*COMMAND, "-o", "tiny.safetensors", "--overwrite"], 2, "is an input"),
        ([*COMMAND, "--resume"], 3, "no such file"),
        (["adapt", "empty", "-o", "mine.safetensors"], 3, "no measurement"),
        (["adapt", "values/0.npy", "nan.npy", "-o", "mine.safetensors"], 3, "NaN"),
    ],
)
def test_bad_commands(folder: Path, tmp_path: Path, arguments, code, message) -> None:
    (tmp_path / "empty").mkdir()
    y = np.load(folder / "0.npy")
    y[0, 0, 0] = np.nan
    np.save("nan.npy", y)
    Path("nan.json").write_text((folder / "0.json").read_text())
    result = CliRunner().invoke(app, [*arguments, "--steps", "1"])
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert not any(path.name.startswith("mine") for path in tmp_path.iterdir())


def test_no_gain_exits_with_7(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(gain, "_LEAST", 100.0)
    given = ["adapt", "values/0.npy", *COMMAND[2:], "--steps", "2", "--device", "cpu"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 7, result.output
    assert "Nothing was written" in result.stderr
    assert "one measurement" in result.stderr
    assert not any(path.name.startswith("mine") for path in tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_ends_a_whole_step_and_the_run_continues(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "csrecon", *COMMAND, "--steps", "24", "--threads", "1"]
    process = subprocess.Popen([*command, "--force"], stderr=subprocess.PIPE, text=True)
    state = tmp_path / "mine.safetensors.adapting"
    while not (state / "checkpoint.pt").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 143, said
    assert "the run is saved" in said
    assert not (tmp_path / "mine.safetensors").exists()
    more = CliRunner().invoke(app, [*command[3:], "--force", "--resume"])
    assert more.exit_code == 0, more.output
    assert (tmp_path / "mine.safetensors").exists()
    assert not state.exists()
