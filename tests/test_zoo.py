"""The zoo: valid cards, verified weights, and files that describe themselves."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import csrecon
from csrecon.errors import InputError, ModelError, UsageError
from csrecon.zoo import cards, published, store, weights_file
from tests.conftest import scene, shared


def test_bundled_weights_are_the_card_s():
    known = cards.cards().items()
    bundled = {name: card for name, card in known if isinstance(card.weights, cards.Bundled)}
    assert "rcoast" in bundled
    for name, card in bundled.items():
        path = store.weights_path(name)
        assert path.stat().st_size == card.weights.bytes
        assert weights_file.read_blueprint(path) == card.blueprint()


def test_a_solver_has_no_card():
    with pytest.raises(ModelError, match="classical solver"):
        cards.card("tv")


def test_misspelt_names_are_answered_with_the_nearest():
    for given, meant in {"rcost": "rcoast", "RCOAST": "rcoast", "istanet": "istanet-plus"}.items():
        with pytest.raises(ModelError, match=f"did you mean '{meant}'"):
            csrecon.load(given)


def test_altered_weights_are_refused(tmp_path, monkeypatch):
    whole = store.weights_path("rcoast").read_bytes()

    (tmp_path / "rcoast.safetensors").write_bytes(whole[:-1] + b"\x00")
    cards.cards()
    monkeypatch.setattr(store, "BUNDLED", tmp_path)
    with pytest.raises(ModelError, match="altered"):
        csrecon.load("rcoast")


def test_a_file_carries_its_own_architecture(tmp_path):
    card = cards.card("rista")
    net = card.build()
    path = tmp_path / "mine.safetensors"
    weights_file.save(net, card.blueprint(), path)
    back = csrecon.load(str(path))
    assert back.schedule == net.schedule
    assert back.trained == net.trained
    assert back.recursion == net.recursion
    assert weights_file.read_blueprint(path) == card.blueprint()
    assert json.loads(back.blueprint) == card.blueprint().model_dump(mode="json")
    assert not back.training
    for key, value in net.state_dict().items():
        assert torch.equal(back.state_dict()[key], value)
    with pytest.raises(UsageError, match="exists"):
        weights_file.save(net, card.blueprint(), path)


def load_with(blueprint, path):
    save_file(load_file(store.weights_path("rcoast")), path, {"csrecon": json.dumps(blueprint)})
    return csrecon.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block": {"name": "transformer"}}, "unknown architecture"),
        ({"block": {"name": "coats"}}, "did you mean 'coast'"),
        ({"block": {"name": "coast", "depth": 3}}, "no option 'depth': known: features"),
        ({"block": {"name": "coast", "features": "many"}}, "do not describe a network"),
        ({"block": {"name": "coast", "features": 16}}, "do not fit"),
        ({"block": {"name": "coast", "features": -3}}, "do not describe a network"),
        ({"block": {"name": "coast", "features": 10**7}}, "do not describe a network"),
        ({"block": {"name": "coast", "what": 3}}, "no option 'what'"),
        ({"modulation": {"name": "rfmu", "max_steps": -1}}, "max_steps=-1"),
        ({"modulation": {"name": "rmfu"}}, "did you mean 'rfmu'"),
        ({"modulation": {"name": "rfmu", "noise_scal": 1}}, "did you mean 'noise_scale'"),
        ({"modulation": {"name": "rfmu", "features": 3}}, "option 'features'"),
        ({"modulation": {"name": "rfmu", "sites": 2}}, "option 'sites'"),
        ({"start": {"name": "markow"}}, "did you mean 'markov'"),
        ({"start": {"name": "matrix"}}, "field required"),
        ({"start": {"name": "matrix", "m": 1, "n": 10**9, "phi_sha256": "a"}}, "n=1000000000"),
        ({"recursion": {"schedule": [1, 1]}}, "do not fit"),
        ({"recursion": {"schedule": [0, 1]}}, "do not describe a network"),
        ({"recursion": {"schedule": [1] * 257}}, "do not describe a network"),
        ({"recursion": {"schedule": [1], "turning": True}}, "turning"),
        ({"recursion": {"schedule": [1], "order": "stack"}}, "'layers' or 'looped'"),
        ({"surprise": 1}, "do not describe a network"),
        ({"version": 3}, "do not describe a network"),
        ({"trained": {"ipl": 50, "max_ipl": 12, "ratios": [0.1, 0.5]}}, "allowed IPL"),
        ({"trained": {"ipl": 2, "max_ipl": 3, "ratios": [0.1, 0.5]}}, "allowed IPL"),
        ({"trained": {"ipl": 4, "max_ipl": 12, "ratios": [0.5, 0.1]}}, "lowest <= highest"),
    ],
)
def test_metadata_that_do_not_fit(tmp_path, change, message):
    blueprint = json.loads(cards.card("rcoast").blueprint().model_dump_json())
    assert csrecon.load(store.weights_path("rcoast")).schedule.counts == (4,) * 5
    with pytest.raises(ModelError, match=message):
        load_with(blueprint | change, tmp_path / "a.safetensors")


VERSION_1 = {
    "architecture": "coast",
    "arguments": {"features": 32, "modulation": "rfmu", "max_steps": 30},
    "schedule": [4] * 5,
    "trained": {"ipl": 6, "ratios": [0.1, 0.5]},
    "allowed": {"ipl": 12},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "transformer"}, "unknown architecture"),
        ({"arguments": {"depth": 3}}, "no option 'depth'"),
        ({"arguments": {"features": "many"}}, "do not describe a network"),
        ({"arguments": {"features": 16}}, "do not fit"),
        ({"arguments": [32]}, "do not describe a network"),
        ({"schedule": [1, 1]}, "do not fit"),
        ({"surprise": 1}, "do not describe a network"),
        ({"arguments": {"features": -3}}, "do not describe a network"),
        ({"arguments": {"features": 10**7}}, "do not describe a network"),
        ({"arguments": {"modulation": "rfmu", "max_steps": -1}}, "max_steps=-1"),
        ({"schedule": [0, 1]}, "do not describe a network"),
        ({"trained": {"ipl": 50, "ratios": [0.1, 0.5]}}, "allowed IPL"),
        ({"trained": {"ipl": 4, "ratios": [0.5, 0.1]}}, "lowest <= highest"),
        ({"trained": None}, "do not describe a network"),
        ({"allowed": None}, "do not describe a network"),
        ({"schedule": None}, "do not describe a network"),
    ],
)
def test_metadata_of_version_1_that_do_not_fit(tmp_path, change, message):
    assert load_with(VERSION_1, tmp_path / "right.safetensors").schedule.counts == (4,) * 5
    with pytest.raises(ModelError, match=message):
        load_with(VERSION_1 | change, tmp_path / "a.safetensors")


def test_weights_that_are_not_finite(tmp_path):
    net = csrecon.load("rcoast")
    net.blocks[0].rho.data.fill_(float("nan"))
    weights_file.save(net, cards.card("rcoast").blueprint(), tmp_path / "a.safetensors")
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
        ("version: 3\nmodels: {}", "version"),
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
    (tmp_path / "models.yaml").write_text(json.dumps({"version": 2, "models": {"a": card}}))
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
    weights_file.save(net, blueprint, tmp_path / "a.safetensors")
    back = csrecon.load(tmp_path / "a.safetensors")
    assert sum(p.numel() for p in back.parameters()) == count
    m = csrecon.sample(scene(), 0.1, color="gray")
    with torch.inference_mode():
        assert torch.equal(back(m), net(m))
