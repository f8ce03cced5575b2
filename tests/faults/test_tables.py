"""Faults of tables of numbers as text, and of scenes and options that say something else."""

from pathlib import Path

import numpy as np
import pytest

from csrecon.errors import InputError, UsageError
from csrecon.io import arrays
from csrecon.sensing import native
from csrecon.sensing.lab import Arrangement
from tests.conftest import scene
from tests.faults.checks import refused
from tests.test_cli import run

LAB = ["--phi", "phi.npy", "--shape", "32x48"]


@pytest.fixture
def lab():
    """A binary Φ of 40 rows for blocks of 16×16, and what it measures of 2×3 blocks: (6, 40)."""
    phi = (np.random.Generator(np.random.PCG64(1)).random((40, 256)) < 0.5).astype(np.uint8)
    np.save("phi.npy", phi)
    blocks = (scene(32, 48)[..., 0] / 255).reshape(2, 16, 3, 16).swapaxes(1, 2).reshape(6, 256)
    values = blocks @ phi.T
    np.save("lab.npy", values)
    return phi, values


def read(text):
    Path("table.csv").write_text(text)
    return arrays.pick(Path("table.csv"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,234;999\n2,001;1,002\n", "','"),
        ("1.234;999;7\n2.001;1.002;12.345.678\n", "'.'"),
        ("1.234,999\n2.001,5\n3.000,1\n", "'.'"),
        ("0,1,2,3\n4,9,7,1\n", "counts the columns"),
        ("1;2;3;4;5\n1,5;2;3;4;5\n", "counts the columns"),
    ],
)
def test_f118(text, message):
    """Thousands that are separated, or a line that counts the columns, in a table of numbers
    exit 3; it is not taken for decimals or values"""
    with pytest.raises(InputError, match=message):
        read(text)


def test_f118_measurements_first(lab):
    """Φ and y with a column for each block and one line of counts, as pandas writes them."""
    for name, table in (("phi", lab[0]), ("lab", lab[1].T)):
        counts = ",".join(map(str, range(table.shape[1])))
        np.savetxt(f"{name}.csv", table, fmt="%.6g", delimiter=",", header=counts, comments="")
    words = ["--phi", "phi.csv", "--shape", "32x48", "--layout", "measurements-first"]
    refused(3, "import", "lab.csv", *words, message="counts the columns")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,5;2\n3;4,25\n", [[1.5, 2], [3, 4.25]]),
        ("0,125;1\n1,375;0,500\n", [[0.125, 1], [1.375, 0.5]]),
        ("1.234,5678\n2.345,1\n", [[1.234, 5678], [2.345, 1]]),
        ("1.234,2.345\n", [[1.234, 2.345]]),
        ("1.234,5\n", [[1.234, 5]]),
        ("0,1,2,3\n", [[0, 1, 2, 3]]),
        ("0,1,2,3\n4,5,6,7\n", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("0,1\n0,2\n1,5\n", [[0, 1], [0, 2], [1, 5]]),
        ("a,b,c,d\n4,9,7,1\n", [[4, 9, 7, 1]]),
    ],
)
def test_tables_that_are_read_as_they_are(text, values):
    np.testing.assert_array_equal(read(text), values)


@pytest.mark.parametrize("kind", ["time", "decimal commas"])
def test_f119(lab, kind):
    """White and black scenes with a column of times, or with decimal commas between commas
    exit 3; the columns are not averaged"""
    phi, values = lab
    np.save("lab.npy", 40 * values + 10)
    scenes = {"white.csv": 40 * phi.sum(1, dtype=float) + 10.75, "black.csv": np.full(40, 10.75)}
    for name, levels in scenes.items():
        lines = [f"{i},{level}" for i, level in enumerate(levels)]
        if kind != "time":
            lines = [f"{level:.2f}".replace(".", ",") for level in levels]
        Path(name).write_text("\n".join(lines))
    words = ["--calibrate", "white.csv", "black.csv", "-o", "x.npz"]
    refused(3, "import", "lab.npy", *LAB, *words, message="show no contrast")


def test_scenes_of_several_blocks_in_uneven_light(lab):
    phi, values = lab
    light = np.array([1, 0.9, 0.8, 1.1, 0.02, 1.2])[:, None]
    np.save("white.npy", light * phi.sum(1, dtype=float) + 3)
    np.save("black.npy", np.full((6, 40), 3.0))
    np.save("lab.npy", values + 3)
    run("import", "lab.npy", *LAB, "--calibrate", "white.npy", "black.npy", "-o", "x.npz")
    assert native.load(Path("x.npz")).scale == pytest.approx(light.mean(), rel=1e-6)


def test_f120(lab):
    """An offset with --differential, in whose differences it cancels
    exit 2; leave it out"""
    words = ["--phi", "phi.npy", "--shape", "32x48", "--differential", "--offset", "120"]
    refused(2, "import", "lab.npy", *words, "-o", "x.npz", message="leave it out")
    with pytest.raises(UsageError, match="cancels"):
        Arrangement(differential=True, offset=-3.0)
    Arrangement(differential=True, offset=0.0, gain="auto")


def test_positions_that_are_counted_from_one(lab):
    np.savetxt("places.csv", [(1, 1), (1, 2), (2, 1), (2, 2)], fmt="%d", delimiter=",")
    np.save("lab.npy", lab[1][:4])
    words = ["--phi", "phi.npy", "--positions", "places.csv", "-o", "x.npz"]
    assert "counted from one?" in run("import", "lab.npy", *words).stderr
    np.savetxt("places.csv", [(0, 1), (1, 2), (2, 1), (2, 2)], fmt="%d", delimiter=",")
    assert "counted" not in run("import", "lab.npy", *words, "--overwrite").stderr
