"""Measurement files: complete, verified, and refused when anything does not belong together."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import csrecon
from csrecon.errors import CsreconError, InputError, UsageError
from csrecon.sensing import native
from csrecon.sensing.native import Given
from csrecon.sensing.operators import Phi
from tests.conftest import scene


@pytest.fixture
def m():
    return csrecon.sample(scene(), 0.1, color="rgb", seed=7)


def own_phi_measurement():
    phi = np.random.Generator(np.random.PCG64(3)).normal(size=(12, 64))
    return phi, csrecon.sample(scene()[..., 0], phi=phi)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["y.npy", "y.npz"])
def test_round_trip(tmp_path, m, name):
    native.save(m, tmp_path / name)
    back = native.load(tmp_path / name)
    assert torch.equal(back.y, m.y)
    assert back.operator.phi.sha256 == m.operator.phi.sha256
    assert back.operator.image_shape == (50, 70)
    assert back.operator.block == (33, 33)
    assert back.format == m.format
    assert back.operator.ratio == m.operator.ratio


def test_what_lies_in_the_files(tmp_path, m):
    native.save(m, tmp_path / "y.npy")
    y = np.load(tmp_path / "y.npy")
    assert y.dtype == np.dtype("<f4")
    assert y.shape == (3, 2, 3, 109)
    facts = json.loads((tmp_path / "y.json").read_text())
    assert facts["image"] == {"height": 50, "width": 70, "color": "rgb", "bit_depth": 8}
    assert facts["version"] == 3
    assert set(facts["arrays"]) == {"y"}
    assert facts["arrays"]["y"]["shape"] == [3, 2, 3, 109]
    assert facts["operator"]["kind"] == "block"
    assert facts["operator"]["m"] == 109
    assert facts["operator"]["n"] == 1089
    assert facts["operator"]["phi"]["seed"] == 7
    assert set(facts["written_by"]) == {"csrecon", "numpy", "torch", "python"}
    assert str(tmp_path) not in (tmp_path / "y.json").read_text()


def test_existing_measurements_are_kept(tmp_path, m):
    native.save(m, tmp_path / "y.npy")
    before = (tmp_path / "y.npy").read_bytes()
    with pytest.raises(UsageError, match="--overwrite"):
        native.save(csrecon.sample(scene(), 0.2), tmp_path / "y.npy")
    assert (tmp_path / "y.npy").read_bytes() == before
    native.save(csrecon.sample(scene(), 0.2), tmp_path / "y.npy", overwrite=True)
    assert native.load(tmp_path / "y.npy").operator.m == 218


def test_an_orphaned_sidecar_is_kept_too(tmp_path, m):
    (tmp_path / "y.json").write_text("notes of the lab")
    with pytest.raises(UsageError, match="exists"):
        native.save(m, tmp_path / "y.npy")
    assert not (tmp_path / "y.npy").exists()


def test_another_suffix(tmp_path, m):
    with pytest.raises(UsageError, match=r"\.npy or \.npz"):
        native.save(m, tmp_path / "y.mat")


def test_stale_sidecar(tmp_path, m):
    native.save(m, tmp_path / "y.npy")
    np.save(tmp_path / "y.npy", m.y.numpy() + np.float32(1e-3))
    with pytest.raises(InputError, match="another y"):
        native.load(tmp_path / "y.npy")


def test_own_phi_is_asked_for_and_checked(tmp_path):
    phi, m = own_phi_measurement()
    native.save(m, tmp_path / "y.npy")
    with pytest.raises(UsageError, match="--phi"):
        native.load(tmp_path / "y.npy")
    assert torch.equal(native.load(tmp_path / "y.npy", Given(phi=Phi.given(phi))).y, m.y)
    with pytest.raises(InputError, match="wrong Φ"):
        native.load(tmp_path / "y.npy", Given(phi=Phi.given(phi[::-1])))
    with pytest.raises(InputError, match="wrong Φ"):
        native.load(tmp_path / "y.npy", Given(phi=Phi.given(phi[:5])))


def test_own_phi_is_packed_in_npz(tmp_path):
    phi, m = own_phi_measurement()
    native.save(m, tmp_path / "y.npz")
    back = native.load(tmp_path / "y.npz")
    np.testing.assert_array_equal(back.operator.phi.matrix, phi.astype(np.float32))


def test_a_packed_phi_that_was_changed_is_refused(tmp_path, m):
    native.save(m, tmp_path / "y.npz")
    arrays = dict(np.load(tmp_path / "y.npz"))
    arrays["phi"] = arrays["phi"][::-1]
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(InputError, match="wrong Φ"):
        native.load(tmp_path / "y.npz")


def test_another_seed_in_the_sidecar_is_a_wrong_phi(tmp_path, m):
    native.save(m, tmp_path / "y.npy")
    edit(tmp_path / "y.json", lambda c: c["operator"]["phi"].update(seed=8))
    with pytest.raises(InputError, match="wrong Φ"):
        native.load(tmp_path / "y.npy")


def test_a_phi_made_elsewhere_that_differs_by_rounding_is_accepted(tmp_path, m, caplog):
    native.save(m, tmp_path / "y.npy")
    edit(tmp_path / "y.json", lambda c: c["operator"]["phi"].update(sha256="0" * 64))
    with caplog.at_level("INFO", "csrecon"):
        native.load(tmp_path / "y.npy")
    assert "up to rounding" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=4), "Update csrecon"),
        (lambda c: c.update(surprise=1), "surprise"),
        (lambda c: c.pop("arrays"), "arrays"),
        (lambda c: c["arrays"].pop("y"), "another y"),
        (lambda c: c["image"].update(height=0), "height"),
        (lambda c: c["image"].update(height=500), "does not fit"),
        (lambda c: c["image"].update(color="gray"), "planes"),
        (lambda c: c["operator"].update(n=10**9), r"Φ"),
        (lambda c: c["operator"]["phi"].update(kind="magic"), "unknown kind"),
    ],
)
def test_a_sidecar_that_cannot_be(tmp_path, m, change, message):
    native.save(m, tmp_path / "y.npy")
    edit(tmp_path / "y.json", change)
    with pytest.raises(InputError, match=message):
        native.load(tmp_path / "y.npy")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100000, '{"version": 1}'])
def test_a_sidecar_that_is_none(tmp_path, m, text):
    native.save(m, tmp_path / "y.npy")
    (tmp_path / "y.json").write_text(text)
    with pytest.raises(InputError, match=r"y\.npy"):
        native.load(tmp_path / "y.npy")


@pytest.mark.parametrize("name", ["y.json", "y.npz"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_does_worse_than_an_input_error(tmp_path_factory, name, data):
    """What is read of a damaged file has the digest of the values that were written, or is none."""
    folder = tmp_path_factory.mktemp("fuzz")
    written = csrecon.sample(scene(20, 30), ratio=0.05, color="gray")
    path = folder / ("y.npy" if name == "y.json" else name)
    native.save(written, path)
    damaged = folder / name
    content = bytearray(damaged.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    try:
        m = native.load(path)
    except CsreconError as error:
        assert error.exit_code in (2, 3)
        return
    assert torch.equal(m.y, written.y)


def test_bare_values_say_what_is_missing(tmp_path, m):
    np.save(tmp_path / "y.npy", m.y.numpy())
    with pytest.raises(UsageError, match=r"--shape.*--phi"):
        native.load(tmp_path / "y.npy")
    with pytest.raises(UsageError, match="--phi"):
        native.load(tmp_path / "y.npy", Given(shape=(50, 70)))
    back = native.load(tmp_path / "y.npy", Given(seed=7, shape=(50, 70)))
    assert torch.equal(back.operator.adjoint(back.y), m.operator.adjoint(m.y))


def test_a_foreign_json_beside_bare_values(tmp_path, m):
    np.save(tmp_path / "y.npy", m.y.numpy())
    (tmp_path / "y.json").write_text('{"exposure": 0.1}')
    with pytest.raises(InputError, match="sidecar"):
        native.load(tmp_path / "y.npy")
    assert torch.equal(native.load(tmp_path / "y.npy", Given(seed=7, shape=(50, 70))).y, m.y)


def test_metadata_are_not_overruled(tmp_path, m):
    native.save(m, tmp_path / "y.npy")
    with pytest.raises(UsageError, match="own metadata"):
        native.load(tmp_path / "y.npy", Given(shape=(50, 70)))


@pytest.mark.parametrize("layout", [(1, 2, 3, 109), (2, 3, 109), (6, 109)])
def test_bare_layouts(layout):
    m = csrecon.sample(scene()[..., 0], 0.1)
    back = native.from_values(m.y.numpy().reshape(layout), (50, 70), seed=0)
    assert torch.equal(back.y, m.y)


@pytest.mark.parametrize(
    ("values", "shape", "message"),
    [
        (np.zeros((1, 2, 3, 109)), (50, 110), "shape right"),
        (np.zeros((3, 2, 109)), (50, 70), "shape right"),
        (np.zeros((2, 2, 3, 109)), (50, 70), "2 planes"),
        (np.full((6, 109), np.inf), (50, 70), "infinite"),
        (np.zeros((6, 109), complex), (50, 70), "real"),
        (np.zeros((0, 109)), (50, 70), "expected real"),
        (np.zeros((6, 2000)), (50, 70), "2000 measurements"),
    ],
)
def test_bare_values_that_do_not_fit(values, shape, message):
    with pytest.raises(InputError, match=message):
        native.from_values(values, shape, seed=0)


def test_bare_values_with_a_phi_of_another_size():
    with pytest.raises(InputError, match="right Φ"):
        native.from_values(np.zeros((6, 100)), (50, 70), Phi.make(109, 1089, 0))


def test_phi_files(tmp_path):
    phi = Phi.make(5, 64, 0).matrix
    np.save(tmp_path / "phi.npy", phi)
    np.savez(tmp_path / "phi.npz", phi=phi)
    for name in ("phi.npy", "phi.npz"):
        np.testing.assert_array_equal(native.read_phi(tmp_path / name).matrix, phi)
    np.savez(tmp_path / "two.npz", psi=phi, chi=phi)
    with pytest.raises(UsageError, match="psi"):
        native.read_phi(tmp_path / "two.npz")
    native.read_phi(tmp_path / "two.npz", "chi")
