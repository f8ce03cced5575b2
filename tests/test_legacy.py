"""Files that the release before wrote still load, and give the images that it gave.

tests/legacy holds measurements (sidecars of version 1 and 2), weights (metadata of version 1), one
training run, and what the release before reconstructed from them, in images.npz.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors

import csrecon
from csrecon.errors import UsageError
from csrecon.sensing import native
from csrecon.zoo import weights_file

LEGACY = Path(__file__).with_name("legacy")
MEASUREMENTS = ["gaussian.npy", "hadamard.npy", "given.npz", "noisy.npy"]
WEIGHTS = sorted(path.stem for path in LEGACY.glob("*.safetensors"))


@pytest.fixture(scope="module")
def images():
    with np.load(LEGACY / "images.npz") as stored:
        return dict(stored)


def reconstructed(name, model, ipl):
    m = native.load(LEGACY / name)
    return csrecon.reconstruct(m, model, ipl, "cpu", precision="fp32", tile="off")


def assert_same(image, expected):
    assert image.dtype == expected.dtype
    # Processors round differently, and the Cholesky factor of the Markov start amplifies it.
    np.testing.assert_allclose(image, expected, atol=1e-5, rtol=0)


def test_the_files_are_of_older_formats():
    for path in LEGACY.glob("*.json"):
        assert json.loads(path.read_text())["version"] in (1, 2)
    assert json.loads((LEGACY / "noisy.json").read_text())["version"] == 2
    for path in [*LEGACY.glob("*.safetensors"), LEGACY / "run" / "weights.safetensors"]:
        with safetensors.safe_open(path, framework="pt") as stream:
            assert "architecture" in json.loads(stream.metadata()["csrecon"])
    assert WEIGHTS == ["coast", "istanet-plus", "plain", "rcoast", "rista"]


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_measurements(images, name):
    assert_same(reconstructed(name, "rcoast", 1), images[Path(name).stem])


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights(images, name):
    measured = "small.npy" if name == "istanet-plus" else "gaussian.npy"
    image = reconstructed(measured, LEGACY / f"{name}.safetensors", None)
    assert_same(image, images[f"weights-{name}"])


def test_the_weights_of_a_run(images):
    image = reconstructed("gaussian.npy", LEGACY / "run" / "weights.safetensors", 2)
    assert_same(image, images["run-step2"])


def test_a_network_without_given_iterations_runs_its_own():
    counts = {name: csrecon.load(LEGACY / f"{name}.safetensors").schedule for name in WEIGHTS}
    assert {name: (s.counts, s.order) for name, s in counts.items()} == {
        "coast": ((1, 1, 1), "layers"),
        "istanet-plus": ((1, 1), "layers"),
        "plain": ((2, 2), "looped"),
        "rcoast": ((2, 3), "layers"),
        "rista": ((2, 2), "layers"),
    }


def test_noise_and_missing_blocks_are_kept():
    noises = {name: native.load(LEGACY / name).noise for name in MEASUREMENTS}
    assert noises == {
        "gaussian.npy": 0,
        "hadamard.npy": 0,
        "given.npz": pytest.approx(0.02),
        "noisy.npy": pytest.approx(0.01),
    }
    given = native.load(LEGACY / "given.npz")
    assert given.operator.block == (16, 16)
    assert not given.operator.observed().all()
    assert given.operator.spec().missing == ((0, 3), (1, 2), (2, 0))
    assert native.load(LEGACY / "hadamard.npy").format.color == "ycbcr"


@pytest.mark.parametrize("name", MEASUREMENTS)
def test_what_is_written_again_is_the_same_measurement(tmp_path, images, name):
    m = native.load(LEGACY / name)
    native.save(m, tmp_path / name)
    again = native.load(tmp_path / name)
    assert again.operator.spec() == m.operator.spec()
    assert (again.noise, again.format) == (m.noise, m.format)
    image = csrecon.reconstruct(again, "rcoast", 1, "cpu", precision="fp32", tile="off")
    assert_same(image, images[Path(name).stem])


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_written_again_are_the_same_network(tmp_path, images, name):
    path = LEGACY / f"{name}.safetensors"
    weights_file.save(
        weights_file.load(path), weights_file.read_blueprint(path), tmp_path / "a.safetensors"
    )
    with safetensors.safe_open(tmp_path / "a.safetensors", framework="pt") as stream:
        assert json.loads(stream.metadata()["csrecon"])["version"] == 2
    assert weights_file.read_blueprint(tmp_path / "a.safetensors") == weights_file.read_blueprint(
        path
    )
    measured = "small.npy" if name == "istanet-plus" else "gaussian.npy"
    assert_same(
        reconstructed(measured, tmp_path / "a.safetensors", None), images[f"weights-{name}"]
    )


def test_a_sidecar_of_another_phi_is_still_refused(tmp_path):
    """What version 1 protected against is protected against when it is read as version 3."""
    (tmp_path / "y.npy").write_bytes((LEGACY / "gaussian.npy").read_bytes())
    facts = json.loads((LEGACY / "gaussian.json").read_text())
    facts["operator"]["phi"]["seed"] = None
    (tmp_path / "y.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="--phi"):
        native.load(tmp_path / "y.npy")
