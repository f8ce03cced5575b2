"""Faults of lab values that nothing but the image reveals: a warning says so."""

import logging

import numpy as np
import pytest

import csrecon
from csrecon.errors import InputError, UsageError
from csrecon.sensing.lab import Arrangement
from tests.conftest import scene
from tests.test_cli import run

LAB = ["--phi", "phi.npy", "--shape", "64x96"]
BLOCKS = (scene(64, 96)[..., 0] / 255).reshape(4, 16, 6, 16).swapaxes(1, 2).reshape(24, 256)
BRIGHTNESS = BLOCKS.sum(1, keepdims=True)
FAST = ["--model", "fista:iterations=30", "-o", "x.png", "--overwrite"]


@pytest.fixture
def lab():
    """A square binary Φ for blocks of 16×16, and what it measures of 4×6 blocks: (24, 256)."""
    phi = (np.random.Generator(np.random.PCG64(1)).random((256, 256)) < 0.5).astype(np.uint8)
    values = BLOCKS @ phi.T
    np.save("phi.npy", phi)
    np.save("lab.npy", values)
    return phi, values


def said(*options):
    return run("reconstruct", "lab.npy", *LAB, *options, *FAST).stderr


@pytest.mark.parametrize(
    ("factor", "kind", "unit"),
    [(255, np.uint8, 1), (127, np.int8, 1), (1, np.uint8, 1e-6), (1, np.uint8, -1)],
)
def test_f121(lab, factor, kind, unit):
    """Patterns stored as 0 and 255, values in volts, or of another sign: a black image
    a warning; --gain adapts the scale"""
    phi, values = lab
    assert "warning" not in said()
    if factor == 127:  # patterns of -1 and 1
        phi, values = 2.0 * phi - 1, 2 * values - BRIGHTNESS
    np.save("phi.npy", (factor * phi).astype(kind))
    np.save("lab.npy", values * unit)
    assert "nearly black" in said()


@pytest.mark.parametrize("fault", ["transposed", "order", "seed"])
def test_f122(lab, fault):
    """Another seed, or a Φ that is transposed or of another order: values far outside of [0, 1]
    a warning; how many pixels, and their range"""
    phi = lab[0]
    if fault == "seed":
        np.save("bare.npy", csrecon.sample(scene(64, 96)[..., 0], 0.1).y.numpy())
        bare = ["reconstruct", "bare.npy", "--shape", "64x96", *FAST, "--seed"]
        assert "warning" not in run(*bare, 0).stderr
        warned = run(*bare, 1).stderr
    else:
        np.save("phi.npy", phi.T if fault == "transposed" else phi[::-1])
        warned = said()
    assert "outside of black 0 and white 1" in warned


def test_images_of_the_library_are_noticed_too(lab, caplog):
    phi, values = lab
    given = {"shape": (64, 96), "arrangement": Arrangement(), "model": "fista:iterations=3"}
    with caplog.at_level(logging.WARNING):
        csrecon.reconstruct(values, phi=255.0 * phi, **given)
    assert "the image: nearly black" in caplog.text


def test_a_black_scene_and_masked_blocks_are_no_fault(lab):
    values = lab[1]
    np.save("lab.npy", values * 0)
    assert "warning" not in said()
    np.savetxt("places.csv", [(k // 6, k % 6) for k in range(20)], fmt="%d", delimiter=",")
    np.save("lab.npy", values[:20])
    assert "warning" not in said("--positions", "places.csv")


@pytest.mark.parametrize(("kind", "largest"), [(np.uint8, 255), (np.uint16, 4095)])
def test_f123(lab, kind, largest):
    """Integers of which several have the largest value of a converter
    a warning: saturated values; how many"""
    scale = largest / 100
    counts = np.round(lab[1] * scale).clip(0, largest)
    np.save("lab.npy", counts.astype(kind))
    many = int((counts == largest).sum())
    assert many > 1
    words = f"{many} of {counts.size} values are {largest}"
    assert words in run("import", "lab.npy", *LAB, "--gain", scale, "-o", "x.npz").stderr
    np.save("lab.npy", np.minimum(counts, largest - 1).astype(kind))
    again = ["--gain", scale, "-o", "x.npz", "--overwrite"]
    assert "saturated" not in run("import", "lab.npy", *LAB, *again).stderr


@pytest.mark.parametrize("options", [[], ["--noise", 0.1]])
def test_blocks_that_were_never_written(lab, options):
    values = lab[1].copy()
    values[20:] = 7.0 if options else 0.0
    np.save("lab.npy", values)
    assert "in 4 of 24 blocks all values are the same" in said(*options)
    np.save("lab.npy", lab[1] * 0)
    assert "same" not in said(*options)


@pytest.mark.parametrize("what", ["values", "lab values", "phi", "white", "positions", "image"])
def test_f124(lab, what):
    """A masked array of NumPy, as values, Φ, a scene or an image
    InputError; masked values are never used as if they were valid"""
    phi, values = lab
    given = {"m": values, "phi": phi, "shape": (64, 96), "model": "fista:iterations=3"}
    places = np.array([(k // 6, k % 6) for k in range(24)])
    scenes = {"white": phi.sum(1), "black": np.zeros(256), "positions": places}

    def masked(array):
        return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 1)

    with pytest.raises(InputError, match="1 of its values are masked"):
        if what == "image":
            csrecon.sample(masked(BLOCKS), 0.1)
        elif what in ("values", "phi"):
            name = "m" if what == "values" else what
            csrecon.reconstruct(**{**given, name: masked(given[name])})
        elif what == "lab values":
            csrecon.reconstruct(**{**given, "m": masked(values)}, arrangement=Arrangement())
        else:
            wrong = {**scenes, what: masked(scenes[what])}
            csrecon.reconstruct(**given, arrangement=Arrangement(**wrong))
    nothing = np.ma.masked_array(values, mask=False)
    image = csrecon.reconstruct(**{**given, "m": nothing})
    np.testing.assert_array_equal(image, csrecon.reconstruct(**given))


@pytest.mark.parametrize(
    "wrong", [{"gain": 1j}, {"gain": "850"}, {"noise": [1]}, {"offset": np.ones(3)}]
)
def test_what_is_no_number_is_no_gain(wrong):
    with pytest.raises(UsageError, match="expected a number"):
        Arrangement(**wrong)
    Arrangement(gain=np.array(850), offset=np.float32(3), noise=np.int64(2))


def test_what_is_no_size_is_no_shape(lab):
    phi, values = lab
    for shape in ((64.5, 96), ("64", "96"), (64, 96, 1)):
        with pytest.raises(UsageError, match="shape"):
            csrecon.reconstruct(values, phi=phi, shape=shape)
    with pytest.raises(UsageError, match="expected a number"):
        csrecon.sample(BLOCKS, "0.1")
