"""The zoo: valid cards, verified weights, and files that describe themselves."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import csrecon
from csrecon import cards, depot, published, zoo
from csrecon.errors import InputError, ModelError, UsageError
from tests.conftest import scene, shared


def test_bundled_weights_are_the_card_s():
    known = cards.cards().items()
    bundled = {name: card for name, card in known if isinstance(card.weights, cards.Bundled)}
    assert "rcoast" in bundled
    for name, card in bundled.items():
        path = depot.weights_path(name)
        assert path.stat().st_size == card.weights.bytes
        assert zoo.read_blueprint(path) == card.blueprint()


def test_a_solver_has_no_card():
    with pytest.raises(ModelError, match="classical solver"):
        cards.card("tv")


def test_misspelt_names_are_answered_with_the_nearest():
    for given, meant in {"rcost": "rcoast", "RCOAST": "rcoast", "istanet": "istanet-plus"}.items():
        with pytest.raises(ModelError, match=f"did you mean '{meant}'"):
            csrecon.load(given)


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    whole = depot.weights_path("rcoast").read_bytes()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "rcoast.safetensors").write_bytes(whole[:-1] + b"\x00")
    cards.cards()
    monkeypatch.setattr(depot, "PACKAGE", tmp_path)
    with pytest.raises(ModelError, match="altered"):
        csrecon.load("rcoast")


def test_a_file_carries_its_own_architecture(tmp_path):
    card = cards.card("rista")
    net = card.build()
    path = tmp_path / "mine.safetensors"
    zoo.save(net, card.blueprint(), path)
    back = csrecon.load(str(path))
    assert back.schedule == net.schedule
    assert back.limits == net.limits
    assert not back.training
    for key, value in net.state_dict().items():
        assert torch.equal(back.state_dict()[key], value)
    with pytest.raises(UsageError, match="exists"):
        zoo.save(net, card.blueprint(), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transformer"}, "unknown architecture"),
        ({"arguments": {"depth": 3}}, "does not take"),
        ({"arguments": {"features": "many"}}, "does not take"),
        ({"arguments": {"features": 16}}, "do not fit"),
        ({"schedule": [1, 1]}, "do not fit"),
        ({"surprise": 1}, "describe no network"),
        ({"arguments": {"features": -3}}, "does not take"),
        ({"arguments": {"features": 10**7}}, "does not take"),
        ({"arguments": {"max_steps": -1}}, "does not take"),
        ({"schedule": [0, 1]}, "describe no network"),
        ({"trained": {"ipl": 50, "ratios": [0.1, 0.5]}}, "allowed IPL"),
        ({"trained": {"ipl": 4, "ratios": [0.5, 0.1]}}, "lowest <= highest"),
    ],
)
def test_metadata_that_do_not_fit(tmp_path, change, message):
    blueprint = json.loads(cards.card("rcoast").blueprint().model_dump_json()) | change
    weights = load_file(depot.weights_path("rcoast"))
    save_file(weights, tmp_path / "a.safetensors", {"csrecon": json.dumps(blueprint)})
    with pytest.raises(ModelError, match=message):
        csrecon.load(tmp_path / "a.safetensors")


def test_weights_that_are_not_finite(tmp_path):
    net = csrecon.load("rcoast")
    net.blocks[0].rho.data.fill_(float("nan"))
    zoo.save(net, cards.card("rcoast").blueprint(), tmp_path / "a.safetensors")
    with pytest.raises(ModelError, match="NaN"):
        csrecon.load(tmp_path / "a.safetensors")


def test_files_that_are_no_models(tmp_path):
    save_file({"w": torch.zeros(2)}, tmp_path / "bare.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    for name, message in {"bare": "no architecture", "text": "not a readable"}.items():
        with pytest.raises(ModelError, match=message):
            csrecon.load(tmp_path / f"{name}.safetensors")
    with pytest.raises(InputError, match="no such file"):
        csrecon.load("missing.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 1\nmodels: {a: {}}", "Field required"),
        ("version: 2\nmodels: {}", "version"),
        ("version: 1\nmodels: {}\nmodels: {}", "twice"),
        ("version: 1\nmodels: !!python/object/apply:os.system [ls]", "not a valid"),
        ("a: [", "not a valid"),
    ],
)
def test_a_models_yaml_that_cannot_be(tmp_path, text, message):
    (tmp_path / "models.yaml").write_text(text)
    with pytest.raises(ModelError, match=message):
        cards.read_cards(tmp_path / "models.yaml")


def test_an_extra_key_on_a_card_is_an_error(tmp_path):
    card = cards.card("coast").model_dump(mode="json") | {"licens": "typo"}
    (tmp_path / "models.yaml").write_text(json.dumps({"version": 1, "models": {"a": card}}))
    with pytest.raises(ModelError, match="licens"):
        cards.read_cards(tmp_path / "models.yaml")


def test_published_figures_are_found():
    assert cards.card("rcoast").published_at("bsd68", "paper", "4", 0.1) == (26.14, 0.7329)
    assert cards.card("rcoast").published_at("bsd68", "paper", "5", 0.1) is None


def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"model": Evil()}, tmp_path / "evil.pkl")
    with pytest.raises(ModelError, match="safely"):
        published.convert(tmp_path / "evil.pkl", ipl=4)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_that_are_none(tmp_path):
    (tmp_path / "text.pkl").write_text("hello")
    torch.save({"model": {"fcs.0.surprise": torch.zeros(1)}}, tmp_path / "other.pkl")
    torch.save([1, 2], tmp_path / "list.pkl")
    torch.save({}, tmp_path / "empty.pkl")
    torch.save({"fcs.0.lambda_step": torch.zeros(2)}, tmp_path / "two.pkl")
    torch.save({"fcs.999.lambda_step": torch.zeros(1)}, tmp_path / "deep.pkl")
    expected = {
        "text": "safely",
        "other": "unexpected",
        "list": "no network",
        "empty": "no network",
        "two": "2 values",
        "deep": "no network",
    }
    for name, message in expected.items():
        with pytest.raises(ModelError, match=message):
            published.convert(tmp_path / f"{name}.pkl", ipl=4)


@pytest.mark.parametrize(
    ("name", "ipl", "count"),
    [
        ("rcoast-5x4-full", 4, 281_674),
        ("rcoast-5x4-limited", 4, 281_674),
        ("coast-5x4-no-rfmu-full", 4, 280_554),
    ],
)
def test_converted_checkpoints_load_by_path(tmp_path, name, ipl, count):
    net, blueprint = published.convert(shared("weights", "authors", f"{name}.pkl"), ipl)
    zoo.save(net, blueprint, tmp_path / "a.safetensors")
    back = csrecon.load(tmp_path / "a.safetensors")
    assert sum(p.numel() for p in back.parameters()) == count
    m = csrecon.sample(scene(), 0.1, color="gray")
    with torch.inference_mode():
        assert torch.equal(back(m), net(m))
