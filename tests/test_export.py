"""Exported networks give the same images without csrecon."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import csrecon
from csrecon.errors import CheckError, InputError, UsageError
from csrecon.reconstructors.graph import phi_inputs
from csrecon.sensing.measurement import Measurement
from csrecon.sensing.operators import BlockOperator, FourierOperator, Phi, make
from csrecon.zoo import export
from csrecon.zoo.export import ExportOptions
from tests.conftest import scene
from tests.test_cli import run

SHAPE = (37, 51)  # no whole number of blocks, nor of the stride of frcoast
BLOCK = (16, 16)


def picture(seed):
    return np.roll(scene(*SHAPE)[..., seed % 3] / np.float32(255), seed, axis=1)


def phi(seed=0, kind="binary"):
    return Phi(make(kind, 64, BLOCK, seed).rows().matrix().numpy())


def operator(seed=0, kind="binary"):
    return BlockOperator(phi(seed, kind), SHAPE, BLOCK)


def measured(count, seed=0):
    """Raw values of several images by a Φ whose rows are not orthonormal."""
    images = np.stack([picture(i) for i in range(count)])[:, None]
    return operator(seed)(torch.from_numpy(images))


def expected(name, y, ipl, seed=0):
    m = Measurement.of(operator(seed), y)
    network = csrecon.load(name).at(ipl)
    return export.execution.image(network, m, export._SETUP).numpy()


def onnx_images(path, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["image"], {key: np.asarray(value) for key, value in inputs.items()})[0]


@pytest.mark.parametrize("name", ["rcoast", "frcoast"])
def test_onnx_for_a_given_phi_takes_raw_values_of_any_batch(name):
    np.save("phi.npy", phi().matrix)
    options = ["--ipl", 1, "--shape", "37x51", "--phi", "phi.npy", "-o", f"{name}.onnx"]
    assert "(batch, 3, 4, 64)" in run("export", name, *options).stdout
    for count in (1, 3):
        y = measured(count)
        image = onnx_images(f"{name}.onnx", y=y)
        assert image.shape == (count, 1, *SHAPE)
        np.testing.assert_allclose(image, expected(name, y, 1), atol=1e-4)
    model = onnx.load(f"{name}.onnx")
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["phi_sha256"] == phi().sha256
    assert facts["csrecon"] == csrecon.__version__
    assert (facts["model"], facts["licence"]) == (name, "Apache-2.0")
    assert (facts["iterations_per_layer"], facts["image"]) == ("1", "37x51")
    assert [entry.version for entry in model.opset_import if not entry.domain] == [export.OPSET]
    run("export", name, *options, code=2)  # an existing file is kept


def test_any_phi_takes_another_phi():
    """The second Φ has other values, another transform and another start."""
    np.save("first.npy", phi(0).matrix)
    np.save("second.npy", phi(1).matrix)
    options = ["--ipl", 2, "--shape", "37x51", "--any-phi"]
    run("export", "frcoast", *options, "--phi", "first.npy", "-o", "any.onnx")
    run("export", "frcoast", *options[2:4], "--phi", "second.npy", "--inputs-only", "-o", "b.onnx")
    for seed, stem in enumerate(("any", "b")):
        names = ("phi", "transform", "start")
        beside = {name: np.load(f"{stem}.{name}.npy") for name in names}
        np.testing.assert_array_equal(beside["phi"], phi(seed).matrix)
        y = measured(2, seed)
        image = onnx_images("any.onnx", y=y, **beside)
        np.testing.assert_allclose(image, expected("frcoast", y, 2, seed), atol=1e-4)
        made = phi_inputs(csrecon.load("frcoast"), Measurement.of(operator(seed), y))
        for name, tensor in made.tensors().items():
            np.testing.assert_allclose(beside[name], tensor, atol=1e-5)


def test_a_package_of_torch_with_noise():
    network = csrecon.load("rcoast-noise").at(1)
    options = ExportOptions("torch", noise=0.05)
    path = Path("n.pt2")
    made = export.export("rcoast-noise", network, operator(kind="gaussian"), path, options)
    assert made.error < 1e-5
    extra = {"csrecon.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["csrecon.json"])["noise"] == "0.05"
    y = operator(kind="gaussian")(torch.from_numpy(picture(0))[None, None])
    m = Measurement(operator(kind="gaussian"), y, noise=0.05)
    with torch.inference_mode():
        np.testing.assert_allclose(program(y=y), network(m), atol=1e-5)
        deaf = network(Measurement(m.operator, y))
    assert float((program(y=y) - deaf).abs().max()) > 1e-3  # the noise has an influence


def test_half_is_near():
    network = csrecon.load("frcoast").at(2)
    made = export.export("frcoast", network, operator(), Path("h.onnx"), ExportOptions(half=True))
    assert 1e-5 < made.error < export.HALF_TOLERANCE
    assert made.metadata["convolutions"] == "fp16"
    weights = [w.data_type for w in onnx.load("h.onnx").graph.initializer if len(w.dims) == 4]
    assert onnx.TensorProto.FLOAT16 in weights
    image = onnx_images("h.onnx", y=measured(1))  # float32 in and out
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected("frcoast", measured(1), 2), atol=0.02)


def test_a_file_that_differs_is_not_kept(monkeypatch):
    original = export._write_torch

    def wrong(graph, *arguments):
        with torch.no_grad():
            graph.network.blocks[0].tail.weight.mul_(1.1)
        return original(graph, *arguments)

    monkeypatch.setattr(export, "_write_torch", wrong)
    path = Path("x.pt2")
    with pytest.raises(CheckError, match="differs from csrecon's own result"):
        export.export(
            "rista", csrecon.load("rista").at(1), operator(), path, ExportOptions("torch")
        )
    assert not list(path.absolute().parent.iterdir())


def test_pixels_by_columns():
    """Φ of a MATLAB camera, and the same Φ by rows, give the same inputs."""
    matrix = phi().matrix
    np.save("rows.npy", matrix)
    np.save("columns.npy", matrix.reshape(-1, *BLOCK).swapaxes(1, 2).reshape(matrix.shape))
    options = ["export", "rista", "--shape", "37x51", "--inputs-only"]
    run(*options, "--phi", "rows.npy", "-o", "r.onnx")
    run(*options, "--phi", "columns.npy", "--pixel-order", "F", "-o", "c.onnx")
    for name in ("phi", "transform", "start"):
        np.testing.assert_allclose(np.load(f"r.{name}.npy"), np.load(f"c.{name}.npy"), atol=1e-6)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("fista --ratio 0.1", 2, "classical solver"),
        ("rcoast", 2, "--phi FILE, or --ratio"),
        ("rcoast --ratio 0.1 --kind fourier", 2, "not Fourier"),
        ("rcoast --ratio 0.1 --ipl 40", 2, "allows 1..12"),
        ("rcoast --ratio 0.1 -o a.pb", 2, "ends in .onnx"),
        ("rcoast --ratio 0.1 -o a.onnx --format torch", 2, "ends in .onnx"),
        ("rcoast --ratio 0.1 --format torch --half", 2, "leave out --half"),
        ("rcoast --phi phi.npy --ratio 0.1", 2, "own ratio"),
        ("rcoast --phi phi.npy --block 20", 3, "do not fit"),
        ("rcoast --phi low.npy --any-phi --format torch", 2, "full rank"),
        ("rcoast --phi phi.npy --any-phi --noise 0.1 --format torch", 2, "noise with --any-phi"),
        (
            "frcoast --ratio 0.5 --block 64 --kind dct --format torch",
            2,
            "2048 measurements per block",
        ),
        ("rcosat --ratio 0.1", 4, "did you mean"),
        ("rcoast --phi a.phi.npy --any-phi -o a.onnx --overwrite", 2, "is an input"),
    ],
)
def test_what_cannot_be_exported_says_so(words, code, message):
    np.save("phi.npy", phi().matrix)
    np.save("a.phi.npy", phi().matrix)
    np.save("low.npy", phi().matrix[[0, 1, 2, 2]])
    result = run("export", *words.split(), "--shape", "37x51", code=code)
    assert message in " ".join(result.stderr.split())


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = run("export", "rcoast", "--ratio", 0.1, "--shape", "37x51", code=2)
    assert "pip install 'csrecon[export]'" in " ".join(result.stderr.split())


def test_the_library_refuses_other_operators():
    network = csrecon.load("rcoast")
    fourier = csrecon.sample(picture(0), 0.5, kind="fourier").operator
    assert isinstance(fourier, FourierOperator)
    with pytest.raises(UsageError, match="FourierOperator"):
        export.checked(network, fourier)
    zero = Measurement(BlockOperator(Phi.given(np.zeros((4, 256))), SHAPE), torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match="zero everywhere"):
        phi_inputs(network, zero)
