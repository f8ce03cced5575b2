"""Faults of models.yaml, weights files and recipes that ask for too much, or say what is not so."""

import json
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csrecon import zoo
from csrecon.errors import CsreconError, ModelError, UsageError
from csrecon.io import files
from csrecon.training.recipe import Recipe, places, recipe
from csrecon.zoo import cards, hub, published, weights_file

NINE = ",".join(["x"] * 9)
DOUBLED = "".join(f", &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))
LAUGHS = f"[&a0 [{NINE}]{DOUBLED}]"
TOO_MUCH = ["&a [*a]", "&a {x: *a}", LAUGHS, "9" * 5000, "0x" + "F" * 3000, ":".join("1" * 2000)]
MISFITS = ["2001-99-99", "!!binary x", "!!bool x", '!!int ""', "!!timestamp x", "{.nan: 1}"]


def own(name="mine", **changes):
    card = cards.card("rista").model_dump(mode="json") | {"weights": None}
    return json.dumps({"version": 2, "models": {name: card | changes}})


def read(text, monkeypatch):
    Path("own.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("CSRECON_MODELS", "own.yaml")
    return cards.cards()


@pytest.mark.parametrize("name", ["../../x", "..", "/etc/x", "a/b", "a\\b", "", "x" * 300, "a\n"])
def test_f92(monkeypatch, name):
    """A model or hub repository with a name that leads out of the cache
    exit 4, or 2 on the command line; nothing is written"""
    with pytest.raises(ModelError, match="models"):
        read(own(name), monkeypatch)


@pytest.mark.parametrize("name", ["hf:../..", "hf:a/..", "hf:./a", "hf:a/b@../../x", "hf:a/b@/x"])
def test_f99_of_the_hub(server, name):
    with pytest.raises(UsageError, match="expected hf:owner/name"):
        hub.model(name)
    assert not server.asked


def test_a_solver_keeps_its_name(monkeypatch):
    with pytest.raises(ModelError, match="tv: names"):
        read(own("tv"), monkeypatch)


def pretending(path, features, layers, tensors):
    fields = cards.card("rcoast-first").blueprint().model_dump(mode="json")
    fields["block"]["features"] = features
    fields["recursion"]["schedule"] = [1] * layers
    save_file(tensors, path, {"csrecon": json.dumps(fields)})


LIMITED = """
import resource, sys
from csrecon import zoo
from csrecon.errors import ModelError
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2)
try:
    zoo.load(sys.argv[1])
except ModelError as error:
    print(error)
"""


def test_f93():
    """Weights whose metadata describe a network that they do not hold
    exit 4 before any layer is made"""
    path = Path("few.safetensors")
    pretending(path, 1024, 256, {"blocks.0.rho": torch.tensor(0.5)})
    code = [sys.executable, "-c", LIMITED, str(path)]
    ended = subprocess.run(code, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "expected at most" in ended.stdout
    pretending(path, 512, 12, {"blocks.0.rho": torch.tensor(0.5)})
    with pytest.raises(ModelError, match="has the shape of nothing"):
        zoo.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"blocks.0.rho": torch.tensor(1, dtype=torch.int32)},
        {"blocks.0.rho": torch.tensor(1, dtype=torch.complex64)},
        {"blocks.0.rho": torch.zeros(1, 1)},
        {"blocks.9.rho": torch.tensor(1.0)},
        {"blocks.0.rho": None},
        {"blocks.0.rho": torch.tensor(torch.nan)},
    ],
)
def test_weights_of_another_kind(change):
    whole = weights_file.tensors(zoo.load("rcoast-first")) | change
    pretending(Path("a.safetensors"), 32, 5, {k: v for k, v in whole.items() if v is not None})
    with pytest.raises(ModelError, match=r"rho|NaN"):
        weights_file.load(Path("a.safetensors"))


@pytest.mark.parametrize("key", ["fcs.999999999.lambda_step", f"fcs.{'9' * 5000}.lambda_step"])
def test_checkpoints_of_too_many_layers(key):
    torch.save({"model": {key: torch.zeros(1)}}, "deep.pkl")
    with pytest.raises(ModelError, match="unexpected weights"):
        published.convert(Path("deep.pkl"), 1)


@pytest.mark.parametrize(
    "text",
    [
        *(f"version: 2\nmodels: {value}" for value in TOO_MUCH + MISFITS),
        *(f"{value}: 1" for value in ("&a [*a]", ".nan", "[1]", "{a: 1}")),
        *(own(parameters=value) for value in (1e400, 10**300, -1)),
        own(trained={"ipl": 1, "max_ipl": 10**30, "ratios": [float("nan"), 1]}),
        own(weights={"nan": None}),
        own(weights={"url": "https://[/x", "digest": "sha256:" + "0" * 64}),
        "#" * 2**21,
    ],
)
def test_f94(monkeypatch, text):
    """A models.yaml that refers to itself, doubles itself, or holds numbers without end
    exit 4 in seconds"""
    began = time.monotonic()
    with pytest.raises(ModelError) as caught:
        read(text, monkeypatch)
    assert len(str(caught.value)) < 4000
    assert time.monotonic() - began < 10


VALUES = [*TOO_MUCH, *MISFITS, "[]", "[.nan]", "1e400", ".inf", "-1", "[x]", "{name: [1]}", "[1]x"]
TEXTS = {"model", "init"}
FIELDS = sorted({*Recipe.model_fields, *places("blocks"), "arguments", "data_fraction"} - TEXTS)
RIGHT = [("arguments", "[]"), ("sets", "[x]"), ("data", "[x]")]


@pytest.mark.parametrize("field", FIELDS)
def test_f95(field):
    """A value of a recipe that no training can have, or that is no plain value
    exit 2; the field's name"""
    for value in VALUES:
        try:
            changed = recipe("rcoast").changed({field: value})
        except UsageError as error:
            assert field.removeprefix("data_") in str(error)
            assert len(str(error)) < 4000
        else:
            assert (field, value) in RIGHT
            json.dumps(changed.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ratios", "[]"),
        ("ratios", "[0, 0.5]"),
        ("ratios", "[1.5]"),
        ("patch", "0"),
        ("patch", "1000000"),
        ("scales", "[]"),
        ("scales", "[0]"),
        ("sets", "[]"),
        ("batch", "1000000000"),
        ("betas", "[0.9, 1]"),
        ("betas", "[-1, 0.9]"),
        ("stages", "[]"),
        ("stages", "[{until: 1, cap: 1}, {until: 0.5, cap: 2}]"),
        ("learning_rate", ".inf"),
        ("steps", "0"),
        ("seed", "99999999999999999999"),
    ],
)
def test_values_that_no_training_can_have(field, value):
    with pytest.raises(UsageError, match=field):
        recipe("rcoast").changed({field: value})


@pytest.mark.parametrize(
    "changes",
    [
        "{nope: {a: 1}}",
        "{task: {a: 1}}",
        "{block: {features: 99999}}",
        f"{{block: {{features: 1024}}, recursion: {{schedule: {[1] * 256}}}}}",
    ],
)
def test_changes_that_describe_no_network(changes):
    with pytest.raises(CsreconError) as caught:
        recipe("rcoast").changed({"changes": changes}).blueprint().build()
    assert caught.value.exit_code in (2, 4)


def test_a_checkpoint_cannot_expand_without_limit(monkeypatch):
    monkeypatch.setattr(files, "_ALWAYS_EXPANDED", 2**20)
    torch.save({"model": {"fcs.0.lambda_step": torch.zeros(1)}}, "small.pkl")
    zeros = bytes(2**23)
    with (
        zipfile.ZipFile("small.pkl") as small,
        zipfile.ZipFile("bomb.pkl", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in small.infolist():
            weights = member.filename.endswith("data/0")
            bomb.writestr(member.filename, zeros if weights else small.read(member))
    with pytest.raises(ModelError, match="would expand"):
        published.read_checkpoint(Path("bomb.pkl"))
