"""Arrays of a laboratory's files: every kind is read, and nothing hostile does harm."""

import subprocess
import zipfile

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from csrecon.errors import InputError, UsageError
from csrecon.io import arrays

Y = np.arange(12.0).reshape(3, 4)


def matlab73(path, **variables):
    """A file as MATLAB 7.3 writes it: a header block, and matrices stored transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            file.create_dataset(name, data=value.T).attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file".ljust(512))


def hdf5(path, **variables):
    with h5py.File(path, "w") as file:
        for name, value in variables.items():
            file[name] = value


def as_csv(separator, first=""):
    return first + "\n".join(separator.join(map(str, row)) for row in Y)


WRITERS = {
    "y.npy": lambda path: np.save(path, Y),
    "y.npz": lambda path: np.savez(path, y=Y, note=np.array("text")),
    "y.mat": lambda path: savemat(path, {"y": Y}),
    "y73.mat": lambda path: matlab73(path, y73=Y),
    "y.h5": lambda path: hdf5(path, y=Y),
    "y.csv": lambda path: path.write_text(as_csv(",")),
    "semicolon.csv": lambda path: path.write_text(as_csv(";").replace(".", ",")),
    "named.csv": lambda path: path.write_text(as_csv("\t", "a\tb\tc\td\n")),
    "y.txt": lambda path: path.write_text("# comment\n" + as_csv("  ")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    np.testing.assert_array_equal(arrays.pick(path), Y)
    assert arrays.pick(path).flags.c_contiguous


def test_one_of_several(tmp_path):
    path = tmp_path / "lab.mat"
    savemat(path, {"y": Y, "phi": Y.T, "gain": 3.0})
    np.testing.assert_array_equal(arrays.pick(path, "phi"), Y.T)
    with pytest.raises(UsageError, match=r"say which one with --var NAME"):
        arrays.pick(path)
    with pytest.raises(UsageError, match=r"no array 'x' in it; it holds .*y \(3, 4\)"):
        arrays.pick(path, "x")
    hdf5(tmp_path / "run.h5", **{"scan/7/y": Y, "other": Y})
    np.testing.assert_array_equal(arrays.pick(tmp_path / "run.h5", "scan/7/y"), Y)


def test_file_and_name(tmp_path):
    assert arrays.split_name("lab.mat:phi") == (arrays.Path("lab.mat"), "phi")
    assert arrays.split_name("C:/lab.mat") == (arrays.Path("C:/lab.mat"), None)
    odd = tmp_path / "lab.mat:phi"
    odd.touch()
    assert arrays.split_name(str(odd)) == (odd, None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "one,two\nthree,four\n", "not a table"),
        ("a.csv", "1,2\nthree,four\n", "not a table"),
        ("a.csv", "1,2\n3\n", "not a table"),
        ("a.csv", "# nothing\n", "no numbers"),
        ("a.csv", "x,y\n", "no numbers"),
        ("a.mat", "no matlab", "not a readable MATLAB"),
        ("a.mat", "MATLAB 7.3 but no more", "not a readable HDF5"),
        ("a.h5", "no hdf5", "not a readable HDF5"),
        ("a.bin", "x", "not a known array format"),
        ("a.npy", "", "empty"),
    ],
)
def test_what_is_no_array_file(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        arrays.read(tmp_path / name)


def test_text_that_is_no_text(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="not a text file"):
        arrays.read(tmp_path / "a.csv")


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path, caplog):
    hdf5(tmp_path / "secret.h5", y=Y)
    (tmp_path / "raw.bin").write_bytes(Y.tobytes())
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["own"] = 2 * Y
        file["out"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "y")
        file["soft"] = h5py.SoftLink("/own")
        file.create_dataset(
            "stored", Y.shape, "f8", external=[(str(tmp_path / "raw.bin"), 0, Y.nbytes)]
        )
        layout = h5py.VirtualLayout(Y.shape, "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "y", Y.shape)
        file.create_virtual_dataset("virtual", layout)
    assert list(arrays.read(path)) == ["own"]
    assert {"out", "soft", "stored", "virtual"} <= {
        word.strip("'") for record in caplog.records for word in record.getMessage().split()
    }


def test_an_hdf5_file_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("y", (2**20, 2**18), "f8", chunks=(1024, 1024), compression="gzip")
    assert path.stat().st_size < 10_000
    with pytest.raises(InputError, match="would expand to"):
        arrays.read(path)


def test_a_zip_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("y.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(
            member, {"descr": "<f4", "fortran_order": False, "shape": (2**27,)}
        )
        for _ in range(2**9):
            member.write(bytes(2**20))
    with pytest.raises(InputError, match="would expand to"):
        arrays.read(path)


@pytest.mark.parametrize("name", ["y.csv", "y.npz"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_damage_does_worse_than_an_input_error(tmp_path_factory, name, data):
    damage_and_read(tmp_path_factory, name, data)


@pytest.mark.parametrize("name", ["y.mat", "y73.mat", "y.h5"])
@settings(max_examples=8, deadline=None)  # each is a process; benchmarks/fuzz.py tries many more
@given(data=st.data())
def test_no_damage_does_worse_to_a_binary_file(tmp_path_factory, name, data):
    damage_and_read(tmp_path_factory, name, data)


def test_a_reader_that_crashes_takes_nothing_with_it(tmp_path, monkeypatch):
    WRITERS["y.mat"](tmp_path / "y.mat")
    run = subprocess.run

    def crashing(command, **options):
        dies = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
        return run([command[0], "-c", dies], **options)

    monkeypatch.setattr(subprocess, "run", crashing)
    with pytest.raises(InputError, match="crashed"):
        arrays.read(tmp_path / "y.mat")


def damage_and_read(tmp_path_factory, name, data):
    path = tmp_path_factory.mktemp("fuzz") / name
    WRITERS[name](path)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        arrays.read(path)
    except InputError as error:
        assert str(path) in str(error)


def test_an_hdf5_file_of_very_many_arrays(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["y"] = Y
        for index in range(10_000):
            file[f"n{index}"] = file["y"]
    with pytest.raises(InputError, match="more than 10000 names"):
        arrays.pick(path)
    np.testing.assert_array_equal(arrays.pick(path, "n77"), Y)


def test_names_in_an_hdf5_file(tmp_path, caplog):
    path = tmp_path / "a.h5"
    deep = "/".join("x" * 20)
    hdf5(path, **{deep: Y, "µ \n": Y, "[/b]": Y})
    with h5py.File(path, "a") as file:
        file[b"\xff"] = Y
        file["t"] = "text"
    assert list(arrays.read(path)) == ["[/b]", "µ \n"]
    assert "is no text" in caplog.text
    for name in (deep, "µ \n"):
        np.testing.assert_array_equal(arrays.pick(path, name), Y)
    for name in ("../µ \n", "x//x"):
        with pytest.raises(UsageError):
            arrays.pick(path, name)


def test_what_is_asked_for_alone_is_read(tmp_path):
    savemat(tmp_path / "a.mat", {"y": Y, "phi": Y.T}, do_compression=True)
    hdf5(tmp_path / "c.h5", y=Y, phi=Y.T)
    np.savez(tmp_path / "d.npz", y=Y, phi=Y.T)
    for name in ("a.mat", "c.h5", "d.npz"):
        np.testing.assert_array_equal(arrays.pick(tmp_path / name, likely="y"), Y)
        np.testing.assert_array_equal(arrays.pick(tmp_path / name, "phi", likely="y"), Y.T)
    with pytest.raises(UsageError, match="say which one"):
        arrays.pick(tmp_path / "d.npz", likely="mask")
    np.save(tmp_path / "e.npy", Y)
    np.testing.assert_array_equal(arrays.pick(tmp_path / "e.npy", likely="phi"), Y)
    with pytest.raises(UsageError, match="no array 'phi'"):
        arrays.pick(tmp_path / "e.npy", "phi")
