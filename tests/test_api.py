"""The three public functions, as a notebook would call them."""

import numpy as np
import pytest
import torch

import csrecon.api
from csrecon import metrics
from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.reconstructors.nets.coast import CoastBlock
from csrecon.runtime import execution
from csrecon.sensing.operators import KINDS, Phi
from tests.conftest import scene

RGB = scene(60, 80)
CPU = torch.device("cpu")
GRAY = RGB[..., 0]


def psnr(x, reference):
    return float(
        metrics.psnr(torch.from_numpy(x)[None, None], torch.from_numpy(reference)[None, None])
    )


@pytest.mark.parametrize(
    "image", [GRAY, RGB, (RGB / 255).astype(np.float32), torch.from_numpy(GRAY)]
)
def test_an_image_comes_back_in_its_shape(image):
    x = csrecon.reconstruct(csrecon.sample(image, ratio=0.3), ipl=1)
    assert isinstance(x, np.ndarray)
    assert x.dtype == np.float32
    assert x.shape == tuple(image.shape)


@pytest.mark.parametrize(
    ("image", "asked", "model"),
    [
        (GRAY, {"ratio": 0.3}, "frcoast"),
        (GRAY, {"ratio": 0.3, "kind": "hadamard"}, "frcoast"),
        (GRAY, {"ratio": 0.3, "kind": "fourier"}, "mri-frcoast"),
        (GRAY * np.complex64(1j / 255), {"ratio": 0.3, "kind": "fourier"}, "mri-frcoast"),
        (RGB, {"kind": "identity", "noise_sigma": 0.1}, "rdenoise"),
        (GRAY * np.complex64(1j / 255), {"kind": "identity", "noise_sigma": 0.1}, "denoise"),
    ],
)
def test_without_a_model_the_measurement_decides(image, asked, model):
    m = csrecon.sample(image, **asked)
    chosen = csrecon.reconstruct(m, device="cpu")
    assert np.array_equal(chosen, csrecon.reconstruct(m, model, device="cpu"))
    assert chosen.shape == np.shape(image)


def test_gray_of_a_colour_image():
    m = csrecon.sample(RGB, ratio=0.3, color="gray")
    assert csrecon.reconstruct(m, ipl=1).shape == RGB.shape[:2]


def test_iterations_improve_the_image():
    m = csrecon.sample(GRAY, ratio=0.3)
    scores = [psnr(csrecon.reconstruct(m, ipl=ipl), GRAY / np.float32(255)) for ipl in (1, 2, 4)]
    assert scores[0] > 20
    assert scores == sorted(scores)


def test_the_model_can_be_a_name_a_path_or_a_network():
    from csrecon.zoo import store

    m = csrecon.sample(GRAY, ratio=0.1)
    by_name = csrecon.reconstruct(m, "rcoast", 2)
    np.testing.assert_array_equal(csrecon.reconstruct(m, csrecon.load("rcoast"), 2), by_name)
    np.testing.assert_array_equal(csrecon.reconstruct(m, store.weights_path("rcoast"), 2), by_name)
    np.testing.assert_array_equal(csrecon.reconstruct(m, "rcoast", [2] * 5, device="cpu"), by_name)


def test_bare_arrays():
    m = csrecon.sample(GRAY, ratio=0.1, seed=3)
    expected = csrecon.reconstruct(m, ipl=1)
    phi = Phi.make(109, 1089, 3).matrix
    y = m.y.numpy()
    for given in ({"phi": phi}, {"phi": torch.from_numpy(phi)}, {"seed": 3}):
        x = csrecon.reconstruct(y, ipl=1, shape=GRAY.shape, **given)
        np.testing.assert_allclose(x, expected, atol=1e-5)
    assert csrecon.reconstruct(m.y[0], ipl=1, phi=phi, shape=GRAY.shape).shape == GRAY.shape


def test_whole_numbers_of_any_type():
    m = csrecon.sample(GRAY, m=np.int64(109), block=np.int32(33), seed=np.uint8(0))
    expected = csrecon.reconstruct(m, "rcoast", 2)
    for ipl in (np.int64(2), np.array(2), np.full(5, 2), (2,) * 5):
        np.testing.assert_array_equal(csrecon.reconstruct(m, "rcoast", ipl), expected)
    np.testing.assert_array_equal(
        csrecon.reconstruct(m, "rcoast", 2, device=torch.device("cpu")), expected
    )


def test_float64_as_default_type():
    torch.set_default_dtype(torch.float64)
    try:
        x = csrecon.reconstruct(csrecon.sample(GRAY, ratio=0.1), ipl=1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert x.dtype == np.float32


def test_rows_of_phi_need_not_be_orthonormal():
    rows = Phi.make(109, 1089, 0).matrix
    mixing = np.random.Generator(np.random.PCG64(0)).normal(size=(109, 109)) + 5 * np.eye(109)
    expected = csrecon.reconstruct(csrecon.sample(GRAY, phi=rows))
    mixed = csrecon.reconstruct(csrecon.sample(GRAY, phi=mixing @ rows))
    np.testing.assert_allclose(mixed, expected, atol=2e-2)


@pytest.mark.parametrize("block", [16, 32, 64, (20, 40)])
def test_any_block_size(block):
    x = csrecon.reconstruct(csrecon.sample(GRAY, ratio=0.3, block=block), ipl=4)
    assert psnr(x, GRAY / np.float32(255)) > 24


def test_one_pixel():
    assert csrecon.reconstruct(csrecon.sample(GRAY[:1, :1], ratio=0.1), ipl=1).shape == (1, 1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: csrecon.sample(GRAY), UsageError, "ratio"),
        (lambda m: csrecon.sample(GRAY, 0.1, m=5), UsageError, "give either"),
        (lambda m: csrecon.sample(GRAY, 0.1, phi=np.eye(4)), UsageError, "own ratio"),
        (lambda m: csrecon.sample(GRAY, 0.1, seed=-1), UsageError, "seed"),
        (lambda m: csrecon.sample(GRAY, 0.1, block=0), UsageError, "block"),
        (lambda m: csrecon.sample(GRAY, 0.1, block=16.5), UsageError, "whole number"),
        (lambda m: csrecon.sample(GRAY, 0.1, color="RGB"), UsageError, "RGB"),
        (lambda m: csrecon.reconstruct(m, ipl=2.5), UsageError, "whole number"),
        (lambda m: csrecon.reconstruct(m.y, seed=0, shape=(1, 2, 3)), UsageError, "size"),
        (lambda m: csrecon.reconstruct(np.float32(3), seed=0, shape=(9, 9)), InputError, "real"),
        (lambda m: csrecon.sample(GRAY * 2.0, 0.1), InputError, r"\[0, 1\]"),
        (lambda m: csrecon.reconstruct(m, ipl=0), UsageError, "at least 1"),
        (lambda m: csrecon.reconstruct(m, ipl=25), UsageError, r"1\.\.24"),
        (lambda m: csrecon.reconstruct(m, "rcoast", [1, 2]), UsageError, "5 layers"),
        (lambda m: csrecon.reconstruct(m, "tv", ipl=2), UsageError, "no layers"),
        (lambda m: csrecon.reconstruct(m, device="tpu"), UsageError, "device"),
        (lambda m: csrecon.reconstruct(m, device="cuda:99"), ResourceError, "cuda:99"),
        (lambda m: csrecon.reconstruct(m, seed=0), UsageError, "own Φ"),
        (lambda m: csrecon.reconstruct(m.y, seed=0), UsageError, "shape"),
        (lambda m: csrecon.reconstruct(m.y, shape=GRAY.shape), UsageError, "Φ"),
    ],
)
def test_arguments_that_cannot_be(call, error, message):
    m = csrecon.sample(GRAY, ratio=0.1)
    with pytest.raises(error, match=message):
        call(m)


@pytest.mark.parametrize(("scale", "message"), [(1e-44, "too small|zero"), (1e-50, "zero")])
def test_a_phi_that_vanishes(scale, message):
    m = csrecon.sample(GRAY, phi=Phi.make(5, 64, 0).matrix.astype(float) * scale)
    with pytest.raises(InputError, match=message):
        csrecon.reconstruct(m)


def test_out_of_memory_is_explained(monkeypatch):
    def starve(self, m):
        raise torch.OutOfMemoryError("planted")
        yield

    net = csrecon.load("rcoast")
    monkeypatch.setattr(type(net), "steps", starve)
    with pytest.raises(ResourceError, match=r"out of memory on cpu for 1 plane.*60×80"):
        csrecon.reconstruct(csrecon.sample(GRAY, ratio=0.1), net, device="cpu")


def test_memory_that_ends_on_the_device_goes_on_on_the_fallback(monkeypatch, caplog):
    """Planted, with the CPU as both: what the first attempt yields is not the result."""
    net = csrecon.load("rcoast")
    m = csrecon.sample(GRAY, ratio=0.1)
    expected = list(csrecon.api.reconstruct_steps(m, net, 1, execution.Setup(CPU)))
    original, calls = type(net).steps, []

    def starved_once(self, m):
        calls.append(self._apply_block)
        for step in original(self, m):
            if len(calls) == 1 and step.index == 3:
                raise torch.OutOfMemoryError("planted")
            yield step

    monkeypatch.setattr(type(net), "steps", starved_once)
    setup = execution.Setup(CPU, tile=64, fallback=CPU)
    steps = list(csrecon.api.reconstruct_steps(m, net, 1, setup))
    assert [step.index for step in steps] == [1, 2, *range(1, 6)]
    torch.testing.assert_close(steps[-1].image, expected[-1].image)
    assert [apply.side for apply in calls] == [64, execution.choose("cpu").tile_side()]
    assert "continuing on the fallback device cpu" in caplog.text


def test_a_network_can_be_trained_after_it_was_used():
    net = csrecon.load("rcoast")
    m = csrecon.sample(GRAY, ratio=0.1)
    csrecon.reconstruct(m, net, ipl=1)
    net.at(1)(m).sum().backward()
    assert net.blocks[0].head.weight.grad is not None


def test_only_auto_leaves_its_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert execution.choose("auto").fallback == CPU
    assert execution.choose("cuda").fallback is None


@pytest.mark.parametrize(
    ("device", "known", "expected"),
    [
        ("cuda", (9, 0), "bf16"),
        ("cuda", (7, 5), "fp32"),
        ("cpu", {"avx512_bf16": True}, "bf16"),
        ("cpu", {"bf16": True, "sve": True}, "bf16"),
        ("cpu", {"avx512_bf16": False, "avx2": True}, "fp32"),
        ("mps", None, "fp32"),
    ],
)
def test_auto_takes_bf16_where_the_hardware_multiplies_it(monkeypatch, device, known, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: known)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert execution.fastest_precision(torch.device(device)) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu():
    m = csrecon.sample(GRAY, ratio=0.1)
    cpu, gpu = (
        csrecon.reconstruct(m, ipl=4, device=device, precision="fp32") for device in ("cpu", "cuda")
    )
    np.testing.assert_allclose(gpu, cpu, atol=5e-3)


def test_lower_precision_stays_in_the_convolutions():
    m = csrecon.sample(GRAY, ratio=0.3)
    exact = csrecon.reconstruct(m, ipl=2, precision="fp32")
    rough = csrecon.reconstruct(m, ipl=2, precision="bf16")
    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.02
    for step in csrecon.api.reconstruct_steps(m, ipl=1, setup=execution.choose(precision="bf16")):
        assert step.image.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(UsageError, match="expected auto, fp32, bf16, fp16"):
        csrecon.reconstruct(m, precision="fp8")


@pytest.mark.parametrize(("ipl", "precise"), [(1, 1), (4, 2), (6, 3)])
def test_the_last_tenth_of_the_iterations_is_computed_in_fp32(monkeypatch, ipl, precise):
    original, half = CoastBlock.prox, []

    def watched(self, state, gradient, gain):
        half.append(torch.is_autocast_enabled("cpu"))
        return original(self, state, gradient, gain)

    monkeypatch.setattr(CoastBlock, "prox", watched)
    m = csrecon.sample(GRAY, ratio=0.3)
    csrecon.reconstruct(m, "rcoast", ipl, device="cpu", precision="bf16")
    assert half == [True] * (5 * ipl - precise) + [False] * precise


@pytest.mark.parametrize("model", ["rcoast", "coast", "rista", "istanet-plus", "tv"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_phi_with_every_model(model, kind):
    picture = scene(64, 96)[..., 0]
    m = csrecon.sample(picture, 0.4, kind=kind, block=32)
    x = csrecon.reconstruct(m, model)
    back = m.normalized()
    start = back.operator.adjoint(back.y)[0, 0].numpy()
    truth = picture.astype(np.float32) / 255
    assert psnr(x, truth) > min(psnr(start, truth) + 3, 45)
    assert psnr(x, truth) > 20
