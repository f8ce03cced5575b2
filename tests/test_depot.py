"""Weights that come from elsewhere: fetched, verified, converted, and never trusted."""

import hashlib
import json
import os
import re
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import csrecon
from csrecon.cli.app import app
from csrecon.errors import InputError, ModelError, UsageError
from csrecon.evaluation import presets
from csrecon.io import downloads, files, images
from csrecon.reconstructors.blueprint import Blueprint
from csrecon.zoo import cards, datasets, hub, model_page, store, weights_file
from tests.conftest import scene, shared

FILES = {
    "rcoast-paper": {"checkpoint": "rcoast-5x4-full.pkl"},
    "rcoast-paper-3pct": {"checkpoint": "rcoast-5x4-limited.pkl"},
    "coast-5x4-paper": {"checkpoint": "coast-5x4-no-rfmu-full.pkl"},
}
ISTA = {
    "checkpoint": "istanet-plus-r{}.pkl",
    "phi": "phi_0_{}_1089.mat",
    "start": "Initialization_Matrix_{}.mat",
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(downloads, "DELAYS", (0.01,))


def path_of(url):
    parts = urlsplit(url)
    return f"/{parts.netloc}{parts.path}"


def plant(server, weights, names):
    for part, file in names.items():
        remote = getattr(weights, part)
        server.answers[path_of(remote.url)] = shared("weights", "authors", file).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_the_authors_checkpoints_come_on_demand(server, name):
    card = cards.card(name)
    plant(server, card.weights, FILES[name])
    net = csrecon.load(name)
    assert sum(p.numel() for p in net.parameters()) == card.parameters
    assert net.schedule.counts == card.recursion.schedule
    asked = len(server.asked)
    csrecon.load(name)
    assert len(server.asked) == asked
    assert store.problem(name, card.weights) is None


def test_a_model_with_weights_a_ratio(server):
    card = cards.card("istanet-plus-original")
    for ratio, weights in card.weights.items():
        plant(server, weights, {k: v.format(round(100 * ratio)) for k, v in ISTA.items()})
    phi = store.own_phi("istanet-plus-original", 0.25)
    assert phi.matrix.shape == (272, 1089)
    gray = images.from_array(scene(), "gray").planes[0, 0].numpy()
    x = csrecon.reconstruct(csrecon.sample(gray, phi=phi), "istanet-plus-original")
    assert np.abs(x - gray).mean() < 0.03
    with pytest.raises(ModelError, match=r"ratios 0.1, 0.25, and none for 0.5"):
        csrecon.load("istanet-plus-original", 0.5)
    with pytest.raises(ModelError, match="give the ratio"):
        csrecon.load("istanet-plus-original")


def test_sampling_for_a_model_with_its_own_phi(server, photo):
    weights = cards.card("istanet-plus-original").weights[0.1]
    plant(server, weights, {k: v.format(10) for k, v in ISTA.items()})

    def sample(*arguments):
        return CliRunner().invoke(app, ["sample", "img.png", "--phi-of", *arguments])

    result = sample("istanet-plus-original", "--ratio", "0.1")
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(
        app, ["reconstruct", "y.npz", "--model", "istanet-plus-original", "--ref", "img.png"]
    )
    assert result.exit_code == 0, result.output
    assert "9 iterations" in result.stdout
    for arguments in (["rcoast", "--ratio", "0.1"], ["istanet-plus-original"]):
        assert sample(*arguments).exit_code == 2


def test_a_damaged_conversion_is_made_again(server):
    card = cards.card("rcoast-paper")
    plant(server, card.weights, FILES["rcoast-paper"])
    path = store.weights_path("rcoast-paper")
    whole = path.read_bytes()
    path.write_bytes(whole[:-4] + b"abcd")
    assert store.weights_path("rcoast-paper").read_bytes() == whole


def entry(weights, **changes):
    card = cards.card("rista").model_dump(mode="json") | {"weights": weights, "published": []}
    return card | changes


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Write a models.yaml of the user's with one entry `mine`."""

    def write(content):
        path = tmp_path / "own.yaml"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        monkeypatch.setenv("CSRECON_MODELS", str(path))

    return write


def own(weights, **changes):
    return {"version": 2, "models": {"mine": entry(weights, **changes)}}


def test_the_users_models_are_read_again_when_they_change(mine, tmp_path, monkeypatch):
    assert "mine" not in cards.cards()
    mine(own(None, summary="first"))
    assert cards.card("mine").summary == "first"
    mine(own(None, summary="second"))
    os.utime(tmp_path / "own.yaml", ns=(1, 1))  # whatever the clock of the file system
    assert cards.card("mine").summary == "second"
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({"version": 2, "models": {"theirs": entry(None)}}))
    monkeypatch.setenv("CSRECON_MODELS", str(other))
    assert "theirs" in cards.cards() and "mine" not in cards.cards()
    monkeypatch.setenv("CSRECON_MODELS", str(tmp_path / "missing.yaml"))
    with pytest.raises(InputError, match="no such file"):
        cards.cards()
    monkeypatch.delenv("CSRECON_MODELS")
    assert "theirs" not in cards.cards() and "rcoast" in cards.cards()


def test_a_card_without_weights_says_so(mine):
    mine(own(None))
    with pytest.raises(
        ModelError, match=r"'mine' has no released weights yet; models that have: .*rco"
    ):
        csrecon.load("mine")
    line = presets.Line(label="Mine", ipl=3, ours="mine")
    table = presets.preset("table1").model_copy(update={"lines": (line,)})
    reasons = [result.reason for result in presets.run(table, None, "paper")]
    assert reasons == ["no weights were released", "not trained yet"]


def test_a_checkpoint_that_wants_to_run_code_is_refused(server, mine, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    torch.save({"model": Evil()}, tmp_path / "evil.pkl")
    body = (tmp_path / "evil.pkl").read_bytes()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    mine(own({"checkpoint": {"url": "https://evil.example/a.pkl", "digest": digest}}))
    server.answers["/evil.example/a.pkl"] = body
    with pytest.raises(ModelError, match=r"'mine': .*read safely"):
        csrecon.load("mine")
    assert not (tmp_path / "ran").exists()


def test_weights_by_https(server, mine, tmp_path):
    net = cards.card("rista").build()
    weights_file.save(net, cards.card("rista").blueprint(), tmp_path / "net.safetensors")
    body = (tmp_path / "net.safetensors").read_bytes()
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    mine(own({"url": "https://lab.example/a/..%2F..%2Fnet.safetensors", "digest": digest}))
    server.answers["/lab.example/a/..%2F..%2Fnet.safetensors"] = body
    assert torch.equal(csrecon.load("mine").blocks[0].rho, net.blocks[0].rho)
    (kept,) = list(store.folder().rglob("*.safetensors"))
    assert kept.parent == store.folder() / "mine"
    assert store.prune() == (1, 0)  # the lock
    assert kept.exists()
    mine(own(None))
    assert store.prune()[0] == 1
    assert not kept.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (own({"file": "../evil.safetensors", "sha256": "0" * 64, "bytes": 1}), "file"),
        (own({"url": "file:///etc/passwd", "digest": "sha256:" + "0" * 64}), "url"),
        (own({"url": "https://a.example/b"}), "digest"),
        ({"version": 2, "models": {"rcoast": entry(None)}}, "csrecon's own models"),
        ("version: 1\nmodels: {mine: {summary: a, summary: b}}", "twice"),
    ],
)
def test_a_models_yaml_of_the_user_s_that_cannot_be(mine, content, message):
    mine(content)
    with pytest.raises(ModelError, match=message):
        cards.cards()


COMMIT = "c" * 40


def plant_repository(server, folder, monkeypatch):
    """Answer as the hub does for the files of a folder."""
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    for path in folder.iterdir():
        body = path.read_bytes()

        def answer(handler, body=body):
            tag = f'"{hashlib.sha256(body).hexdigest()}"'
            handler.reply(body, ETag=tag, X_Repo_Commit=COMMIT)

        for revision in ("main", COMMIT):
            server.answers[f"/me/mine/resolve/{revision}/{path.name}"] = answer


@pytest.fixture
def repository(server, tmp_path, monkeypatch):
    folder = tmp_path / "repository"
    model_page.write("rcoast", folder, "me/mine")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    plant_repository(server, folder, monkeypatch)
    return folder


@pytest.mark.parametrize("name", ["hf:me/mine", f"hf:me/mine@{COMMIT}"])
def test_a_model_from_the_hub(repository, name, tmp_path):
    path = hub.file("me/mine", hub.WEIGHTS)
    assert path.read_bytes() == (repository / hub.WEIGHTS).read_bytes()
    net = csrecon.load(name)
    known = csrecon.load("rcoast").state_dict()
    assert all(torch.equal(known[key], value) for key, value in net.state_dict().items())


def test_hub_faults(repository, server, monkeypatch):
    with pytest.raises(ModelError, match="is unavailable"):
        csrecon.load("hf:me/other")
    with pytest.raises(UsageError, match="expected hf:owner/name"):
        csrecon.load("hf:mine")
    config = json.loads((repository / hub.CONFIG).read_text())
    assert config["version"] == csrecon.__version__
    assert Blueprint.model_validate(config["blueprint"]) == cards.card("rcoast").blueprint()
    (repository / hub.CONFIG).write_text(json.dumps(config | {"sha256": "0" * 64}))
    plant_repository(server, repository, monkeypatch)
    with pytest.raises(ModelError, match="instead of 0000"):
        csrecon.load("hf:me/mine")
    monkeypatch.setenv("CSRECON_OFFLINE", "1")
    with pytest.raises(ModelError, match="is unavailable"):
        csrecon.load("hf:me/third")
    with pytest.raises(ModelError, match="switched off"):
        hub.push(repository, "me/mine", private=True)


def test_the_page_of_a_model(tmp_path):
    model_page.write("rcoast", tmp_path / "a", "me/mine")
    page = (tmp_path / "a" / hub.CARD).read_text()
    assert page.startswith("---\nlibrary_name: csrecon\n")
    assert "--model hf:me/mine" in page
    assert re.search(r"\| 0\.1 \| 2\d\.\d\d \| 0\.\d{4} \|", page)
    with pytest.raises(UsageError, match="exists"):
        model_page.write("rcoast", tmp_path / "a", "me/mine")
    with pytest.raises(ModelError, match="neither"):
        model_page.write("tv", tmp_path / "b", "me/mine")


def test_publishing(tmp_path, monkeypatch):
    monkeypatch.delenv("CSRECON_OFFLINE")
    calls = []

    class Api:
        def create_repo(self, repository, **options):
            calls.append((repository, options))

        def upload_folder(self, repo_id, folder_path, **_):
            calls.append((repo_id, sorted(p.name for p in folder_path.iterdir())))
            return type("Commit", (), {"commit_url": "https://hub.example/commit/1"})

    monkeypatch.setattr(hub, "HfApi", Api)
    result = CliRunner().invoke(app, ["models", "push", "rcoast", "me/mine", "--private"])
    assert result.exit_code == 0, result.output
    assert "https://hub.example/commit/1" in result.stdout
    assert calls == [
        ("me/mine", {"private": True, "exist_ok": True}),
        ("me/mine", ["README.md", "config.json", "model.safetensors"]),
    ]


def test_publishing_every_bundled_model(tmp_path, monkeypatch):
    monkeypatch.delenv("CSRECON_OFFLINE")
    pushed = {}

    class Api:
        def create_repo(self, repository, **_):
            pushed[repository] = None

        def upload_folder(self, repo_id, folder_path, **_):
            config = json.loads((folder_path / hub.CONFIG).read_text())
            assert files.sha256_file(folder_path / hub.WEIGHTS) == config["sha256"]
            assert f"--model hf:{repo_id}" in (folder_path / hub.CARD).read_text()
            pushed[repo_id] = config["sha256"]
            return type("Commit", (), {"commit_url": f"https://hub.example/{repo_id}"})

    monkeypatch.setattr(hub, "HfApi", Api)
    result = CliRunner().invoke(app, ["models", "push", "all", "lab"])
    assert result.exit_code == 0, result.output
    known = {name: cards.card(name).weights for name in store.bundled()}
    assert pushed == {f"lab/csrecon-{name}": w.sha256 for name, w in known.items()}
    assert len(known) == len(list(cards.BUNDLED.glob("*.safetensors")))
    assert "https://hub.example/lab/csrecon-frcoast" in result.stdout
    result = CliRunner().invoke(app, ["models", "push", "all", "lab/mine"])
    assert result.exit_code == 2
    assert "as lab" in result.output
    result = CliRunner().invoke(app, ["models", "push", "all", "lab", "--dry-run", "pages"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "pages").iterdir()} == set(known)


def test_commands(server):
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == code, result.output
        return result

    card = cards.card("rcoast-paper")
    plant(server, card.weights, FILES["rcoast-paper"])
    assert "on demand" in run("models", "info", "rcoast-paper").stdout
    run("models", "download", "rcoast-paper", "--offline", code=4)
    assert server.asked == []
    assert "GPL-3.0" in run("models", "download", "rcoast-paper").stdout
    assert "downloaded" in run("models", "info", "rcoast-paper").stdout
    states = json.loads(run("models", "verify", "--json").stdout)
    assert {"model": "rcoast-paper", "state": "right"} in states
    (checkpoint,) = (store.folder() / "rcoast-paper").glob("*.pkl")
    checkpoint.write_bytes(b"damaged")
    result = run("models", "verify", code=7)
    assert "rcoast-paper: not as published" in result.stderr
    assert "0 files" not in run("models", "prune").stdout
    assert "did you mean 'bsd68'" in run("data", "download", "bsd86", code=4).stderr
    sets = json.loads(run("data", "list", "--json").stdout)
    assert {row["set"]: row["images"] for row in sets}["urban100"] == 100
    assert "on demand" in run("data", "list").stdout


def test_verifying_a_set(tmp_path):
    folder = shared("data", "set11")
    result = CliRunner().invoke(app, ["data", "verify", "set11", str(folder)])
    assert result.exit_code == 0, result.output
    assert "all 11 images" in result.stdout
    (tmp_path / "set11").mkdir()
    (tmp_path / "set11" / "Monarch.tif").write_bytes((folder / "Parrots.tif").read_bytes())
    result = CliRunner().invoke(app, ["data", "verify", "set11", str(tmp_path / "set11")])
    assert result.exit_code == 7
    assert "Monarch.tif: other content" in result.stdout
    assert "boats.tif: missing" in result.stdout


def test_every_set_here_is_the_published_one():
    for name in ("bsd68", "t91", "bsd400"):
        assert datasets.verify(name, shared("data", name)) == []


def test_what_nobody_can_load_is_not_published(tmp_path):
    network = csrecon.load("rista")
    with torch.no_grad():
        network.blocks[0].rho.fill_(float("nan"))
    path = tmp_path / "mine.safetensors"
    weights_file.save(network, cards.card("rista").blueprint(), path)
    with pytest.raises(ModelError, match="NaN"):
        model_page.write(str(path), tmp_path / "page", "me/mine")
    assert not (tmp_path / "page").exists()
