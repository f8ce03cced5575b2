"""Options of a command stay with it: the environment is read when it is needed, never written."""

import multiprocessing
import os
import signal
from contextvars import copy_context

import h5py
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.io import savemat

import csrecon
from csrecon.errors import InputError, ModelError
from csrecon.evaluation import bench, workers
from csrecon.io import downloads, images
from csrecon.runtime import execution
from csrecon.sensing import native
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import Phi
from csrecon.zoo import cards, datasets
from tests.conftest import ROOT, scene
from tests.test_cli import run


def test_offline_is_of_one_command(photo, monkeypatch):
    monkeypatch.delenv("CSRECON_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    before = dict(os.environ)
    during = []
    original = native.save

    def spy(*arguments):
        during.append((downloads.offline(), dict(os.environ) == before))
        return original(*arguments)

    monkeypatch.setattr(native, "save", spy)
    run("sample", photo, "--ratio", 0.1, "--offline")
    run("sample", photo, "--ratio", 0.1, "--overwrite")
    assert during == [(True, True), (False, True)]
    assert not downloads.offline()


def test_other_processes_of_bench_are_offline_too(monkeypatch):
    monkeypatch.delenv("CSRECON_OFFLINE")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)

    def begun():
        workers.begin(torch.get_num_threads(), True, multiprocessing.get_context("spawn").Event())
        return downloads.offline()

    before = signal.getsignal(signal.SIGINT)
    try:
        assert copy_context().run(begun)
    finally:  # other tests send SIGINT, and what is ignored here their commands would inherit
        signal.signal(signal.SIGINT, before)
    assert not downloads.offline()


def test_models_of_ones_own_are_read_when_the_file_changes(tmp_path, monkeypatch):
    own = yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))
    card = {**own["models"]["rcoast"], "weights": None}
    path = tmp_path / "mine.yaml"

    def write(name, stamp):
        path.write_text(yaml.safe_dump({"version": 2, "models": {name: card}}))
        os.utime(path, ns=(stamp, stamp))

    write("mine", 1)
    assert "mine" not in cards.cards()
    monkeypatch.setenv("CSRECON_MODELS", str(path))
    assert "mine" in cards.cards()
    write("yours", 2)
    assert "yours" in cards.cards()
    assert "mine" not in cards.cards()
    write("rcoast", 3)
    with pytest.raises(ModelError, match="own models"):
        cards.cards()
    monkeypatch.setenv("CSRECON_MODELS", str(tmp_path / "none.yaml"))
    with pytest.raises((ModelError, InputError), match=r"none\.yaml"):
        cards.cards()
    monkeypatch.delenv("CSRECON_MODELS")
    assert "yours" not in cards.cards()


def test_noise_is_drawn_anew_for_every_image(tmp_path):
    """In `sample`, in Python and in `bench`; the same image has the same noise again."""
    for index in range(2):
        Image.fromarray(scene(33, 33 + index)[:, :33] + index).save(f"{index}.png")
    run("sample", "0.png", "1.png", "--ratio", 0.5, "--noise-sigma", 0.1, "-o", "y")
    noises = []
    for index in range(2):
        m = native.load(tmp_path / "y" / f"{index}.npy")
        picture = images.read(tmp_path / f"{index}.png")
        noises.append((m.y - csrecon.sample(picture, 0.5).y).numpy().ravel())
        again = csrecon.sample(picture, 0.5, noise_sigma=0.1)
        assert torch.equal(again.y, m.y)
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.2
    setup = execution.Setup(torch.device("cpu"))
    plan = bench.Plan("few", datasets.list_images(tmp_path), setup, noise_sigmas=(0.1,))
    (job,) = bench._jobs(["tv"], [0.5], [None], plan)
    assert job.noise.sigma == 0.1
    first, second = (
        bench.evaluate(job, [images.read(tmp_path / f"{i}.png")], plan)[0][0].psnr for i in range(2)
    )
    assert first != second


def test_complex_values_are_never_cast_silently(tmp_path, caplog):
    m = csrecon.sample(scene(40, 50)[..., 0], 0.1)
    values = m.y.numpy() + 0.5j
    with pytest.raises(InputError, match="complex values"):
        csrecon.reconstruct(values, seed=0, shape=(40, 50))
    with pytest.raises(InputError, match="y is complex"):
        Measurement.of(m.operator, torch.from_numpy(values))
    with pytest.raises(InputError, match="real numbers"):
        Phi.given(np.ones((2, 4), complex))
    np.save("y.npy", values)
    result = run("reconstruct", "y.npy", "--seed", 0, "--shape", "40x50", code=3)
    assert "complex values" in result.stderr
    np.save("phi.npy", m.operator.phi.matrix)
    result = run("import", "y.npy", "--phi", "phi.npy", "--shape", "40x50", "--gain", 2, code=3)
    assert "complex values" in result.stderr
    savemat("old.mat", {"y": values, "Phi": m.operator.phi.matrix})
    with h5py.File("new.h5", "w") as file:
        pairs = np.empty(values.shape, [("real", "f4"), ("imag", "f4")])
        pairs["real"], pairs["imag"] = values.real, values.imag
        file["y"], file["Phi"] = pairs, m.operator.phi.matrix
    for name in ("old.mat", "new.h5"):
        options = ["--var", "y", "--phi", f"{name}:Phi", "--shape", "40x50"]
        assert "complex values" in run("reconstruct", name, *options, code=3).stderr
        assert "complex" in run("inspect", name).stdout


def test_positions_say_the_size(tmp_path):
    image = scene(64, 96)[..., 0] / 255
    phi = Phi.make(100, 1024, 0)
    y = csrecon.sample(image.astype(np.float32), phi=phi).y[0].reshape(6, 100).numpy()
    places = [(row, column) for row in range(2) for column in range(3)]
    np.savetxt("places.csv", places, fmt="%d", delimiter=",")
    np.save("phi.npy", phi.matrix)
    np.save("values.npy", y)
    options = ["--phi", "phi.npy", "--positions", "places.csv"]
    result = run("reconstruct", "values.npy", *options, "-o", "a.npy", "--ipl", 1)
    assert "2×3 blocks" in result.stderr
    assert "64×96 pixels" in result.stderr
    run("reconstruct", "values.npy", *options, "--shape", "64x96", "-o", "b.npy", "--ipl", 1)
    np.testing.assert_array_equal(np.load("a.npy"), np.load("b.npy"))
    arrangement = csrecon.sensing.lab.Arrangement(positions=np.array(places))
    x = csrecon.reconstruct(y, ipl=1, phi=phi, arrangement=arrangement)
    np.testing.assert_array_equal(x, np.load("a.npy"))
    result = run("reconstruct", "values.npy", "--phi", "phi.npy", "-o", "c.npy", code=2)
    assert "--shape" in result.stderr
