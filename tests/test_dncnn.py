"""The published DnCNN: its architecture, its MATLAB file, and its use as a denoiser."""

import hashlib
import json
from itertools import pairwise
from urllib.parse import urlsplit

import h5py
import numpy as np
import pytest
import torch
from torch.nn.functional import conv2d

import csrecon
from csrecon import zoo
from csrecon.errors import InputError, ModelError
from csrecon.io import arrays
from csrecon.zoo import cards, matconvnet, store
from tests.conftest import scene

LAYERS, FEATURES, NOISE = 4, 6, 0.1
BLOCK = {"name": "dncnn", "features": FEATURES, "layers": LAYERS, "noise": NOISE}


def kernels(seed=0, layers=LAYERS):
    """Kernels (H, W, inputs, outputs) and biases, as MATLAB has them."""
    draw = np.random.Generator(np.random.PCG64(seed))
    widths = [1, *[FEATURES] * (layers - 1), 1]
    return [
        (
            draw.normal(0, 0.2, (3, 3, before, after)).astype(np.float32),
            draw.normal(0, 0.05, (after, 1)).astype(np.float32),
        )
        for before, after in pairwise(widths)
    ]


def matlab(path, weights):
    """Write a MATLAB 7.3 file in the layout of MatConvNet's simplenn."""
    with h5py.File(path, "w", userblock_size=512) as file:
        count = iter(range(1000))

        def stored(values, kind):
            made = file.create_dataset(f"#refs#/{next(count)}", data=values)
            made.attrs["MATLAB_class"] = np.bytes_(kind)
            return made.ref

        def cell(group, name, references):
            shape = (len(references), 1)
            made = group.create_dataset(name, shape, dtype=h5py.ref_dtype)
            made.attrs["MATLAB_class"] = np.bytes_("cell")
            for index, reference in enumerate(references):
                made[index, 0] = reference

        def layer(kind):
            made = file.create_group(f"#refs#/{next(count)}")
            made.attrs["MATLAB_class"] = np.bytes_("struct")
            text = np.array([[ord(letter)] for letter in kind], np.uint16)
            made.create_dataset("type", data=text).attrs["MATLAB_class"] = np.bytes_("char")
            return made

        layers = []
        for index, (kernel, bias) in enumerate(weights):
            if index:
                layers.append(layer("relu").ref)
            made = layer("conv")
            shown = kernel[..., 0] if kernel.shape[-1] == 1 else kernel  # MATLAB drops it
            cell(made, "weights", [stored(shown.T, "single"), stored(bias.T, "single")])
            layers.append(made.ref)
        cell(file.create_group("net"), "layers", layers)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b" " * 8 + b"\0\2IM")
    return path


def card_of(**changes):
    fields = cards.card("dncnn-25").model_dump(mode="json")
    return cards.ModelCard(**fields | {"block": BLOCK, "parameters": 0} | changes)


@pytest.mark.parametrize("sigma", [10, 15, 25, 50])
def test_the_published_networks(sigma):
    card = cards.card(f"dncnn-{sigma}")
    net = card.build()
    assert sum(p.numel() for p in net.parameters()) == card.parameters == 555_137
    assert net.blocks[0].noise == pytest.approx(sigma / 255)
    assert net.blocks[0].reach == 17
    assert f"sigma={sigma}.mat" in card.weights.checkpoint.url


def test_a_matlab_file_gives_the_network_that_it_holds(tmp_path):
    weights = kernels()
    path = matlab(tmp_path / "sigma=25.mat", weights)
    net = matconvnet.convert(path, card_of().blueprint())
    m = csrecon.sample(scene(20, 27)[..., 0] / 255, kind="identity", noise_sigma=NOISE)
    h = m.y
    for index, (kernel, bias) in enumerate(weights):
        turned = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
        h = conv2d(h, turned, torch.from_numpy(bias[:, 0]), padding=1)
        h = torch.relu(h) if index < LAYERS - 1 else h
    with torch.inference_mode():
        torch.testing.assert_close(net(m), m.y - h)


def test_cells_are_read_only_where_they_are_asked_for(tmp_path):
    path = matlab(tmp_path / "a.mat", kernels())
    with h5py.File(path, "r+") as file:
        file.create_dataset("y", data=np.ones((3, 2))).attrs["MATLAB_class"] = np.bytes_("double")
    assert [*arrays.read(path)] == ["y"]
    assert arrays.nested(path)["net/layers/2/weights/0"].shape == (3, 3, FEATURES, FEATURES)


def test_a_cell_that_holds_itself(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("a", (30, 1), dtype=h5py.ref_dtype)
        made[:, 0] = [made.ref] * 30
    with pytest.raises(InputError, match="more than 10000 names"):
        arrays.nested(path)


def test_files_that_do_not_fit(tmp_path):
    blueprint = card_of().blueprint()
    with pytest.raises(ModelError, match="do not fit dncnn"):
        matconvnet.convert(matlab(tmp_path / "a.mat", kernels(layers=5)), blueprint)
    (tmp_path / "b.mat").write_bytes(b"MATLAB 7.3 MAT-file" + bytes(600))
    with pytest.raises(InputError, match="not a readable HDF5 file"):
        matconvnet.convert(tmp_path / "b.mat", blueprint)


@pytest.fixture
def published(tmp_path, monkeypatch, server):
    """The card `mine` of a small DnCNN whose file lies on the server; its path there."""
    path = matlab(tmp_path / "sigma=25.mat", kernels())
    url = cards.card("dncnn-25").weights.checkpoint.url
    checkpoint = {
        "url": url,
        "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        "bytes": path.stat().st_size,
    }
    card = card_of(weights={"checkpoint": checkpoint}).model_dump(mode="json")
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({"version": 2, "models": {"mine": card}}))
    monkeypatch.setenv("CSRECON_MODELS", str(own))
    parts = urlsplit(url)
    place = f"/{parts.netloc}{parts.path}"
    server.answers[place] = path.read_bytes()
    return place


def test_weights_come_on_demand(server, published):
    m = csrecon.sample(scene(20, 27)[..., 0] / 255, kind="identity", noise_sigma=NOISE)
    x = csrecon.reconstruct(m, "denoise:with=mine", device="cpu", precision="fp32")
    alone = csrecon.reconstruct(m, "mine", device="cpu", precision="fp32")
    np.testing.assert_allclose(x, alone, atol=1e-6)
    assert len(server.asked) == 1
    assert store.problem("mine", cards.card("mine").weights) is None
    block = csrecon.sample(scene(33, 33)[..., 0] / 255, 0.3)
    assert csrecon.reconstruct(block, "pnp:with=mine,iterations=2").shape == (33, 33)


def test_another_file_is_refused(server, published):
    server.answers[published] = server.answers[published][:-1] + b"x"
    with pytest.raises(ModelError, match="mine"):
        csrecon.load("denoise:with=mine")


def test_other_noise_is_scaled_to_the_only_level(published, caplog):
    found = zoo.denoiser("mine")
    v = torch.rand(1, 1, 20, 27, generator=torch.Generator().manual_seed(0))
    for sigma in (0.02, 0.4):
        scaled = 0.5 + (v - 0.5) * NOISE / sigma
        expected = 0.5 + (found(scaled, NOISE) - 0.5) * sigma / NOISE
        torch.testing.assert_close(found(v, sigma), expected)
    assert "only" not in caplog.text
    m = csrecon.sample(scene(20, 27)[..., 0] / 255, kind="identity", noise_sigma=0.02)
    csrecon.reconstruct(m, "mine", device="cpu")
    assert "this network denoises σ 0.1 only" in caplog.text
