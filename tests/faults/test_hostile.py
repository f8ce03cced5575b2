"""Faults of files of arrays that are damaged, or made to do harm."""

import json
import os
import struct
import subprocess
import threading
import time
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from csrecon.io import arrays
from tests.faults.checks import refused
from tests.test_cli import run

Y = np.arange(12.0).reshape(3, 4)


def shown(path):
    return json.loads(run("inspect", path, "--json").stdout)["arrays"]


def test_f77():
    """HDF5 groups that are linked to themselves
    every group is visited once"""
    with h5py.File("a.h5", "w") as file:
        file["y"] = Y
        for name in "abc":
            file[name] = file["/"]
        file["deep/x"] = Y
        file["deep/er"] = file["deep"]
    assert list(shown("a.h5")) == ["deep/x", "y"]
    np.testing.assert_array_equal(arrays.pick(Path("a.h5"), "a/b/deep/er/x"), Y)


@pytest.mark.parametrize("suffix", ["h5", "mat", "npz"])
def test_f78(suffix):
    """A file that expands without limit over several arrays
    exit 3 before memory is allocated; one of them can be read by its name"""
    path = Path(f"bomb.{suffix}")
    large = np.zeros(10**8, np.uint8)
    if suffix == "h5":
        with h5py.File(path, "w") as file:
            file["y"] = Y
            for name in "abc":
                file.create_dataset(name, large.shape, large.dtype, chunks=(2**16,))
    elif suffix == "mat":
        savemat(path, {"y": Y, "a": large}, do_compression=True)
        whole = path.read_bytes()
        after = 128 + 8 + struct.unpack("<I", whole[132:136])[0]
        path.write_bytes(whole + 2 * whole[after:])
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, value in (("y", Y), *((name, large) for name in "abc")):
                with archive.open(f"{name}.npy", "w") as member:
                    np.save(member, value)
    refused(3, "inspect", path, message="would expand to")
    np.testing.assert_array_equal(arrays.pick(path, "y"), Y)


def chunk(path, content, length):
    """An HDF5 dataset of one value, with one compressed chunk of `length` declared values."""
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "y", (1,), "u1", maxshape=(None,), chunks=(length,), compression="gzip"
        )
        made.id.write_direct_chunk((0,), content)


def test_f79():
    """A chunk of an HDF5 file that is larger than its dataset, or than it says
    exit 3; the process that reads it has a bound on its memory"""
    squeeze, size = zlib.compressobj(9, zlib.DEFLATED, -15), 2**31
    zeros = squeeze.compress(bytes(size // 32)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    checksum = struct.pack(">I", (size % 65521 << 16) + 1)
    chunk("chunk.h5", zlib.compress(bytes(9)), 2**31)
    refused(3, "inspect", "chunk.h5", message="would expand to 2147483648")
    chunk("longer.h5", b"\x78\xda" + 32 * zeros + b"\3\0" + checksum, 9)
    refused(3, "inspect", "longer.h5", message="not a readable HDF5 file")


def test_f80():
    """A Python file beside a lab file, under the name of a library that reads it
    it is not run"""
    for name in ("h5py", "scipy", "struct", "csrecon"):
        Path(f"{name}.py").write_text("open('ran', 'w')\n")
    with h5py.File("a.h5", "w") as file:
        file["y"] = Y
    assert list(shown("a.h5")) == ["y"]
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array("text"),
        np.array(1j),
        np.array(True),
        np.empty((0, 3)),
        np.full((2, 9), 1e300),
        np.array([2**64 - 1], np.uint64),
    ],
    ids=lambda value: f"{value.dtype}{value.shape}",
)
def test_f81(value):
    """An array that is no measurement, of any shape and type, beside one that is
    `inspect` shows both"""
    np.savez("a.npz", other=value, y=Y)
    assert list(shown("a.npz")) == ["other", "y"]
    run("inspect", "a.npz")


def damaged(kind):
    """A damaged .npz."""
    method = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(kind, zipfile.ZIP_STORED)
    header = {"descr": "<f8", "fortran_order": False, "shape": (1,) * (70 if kind == "axes" else 1)}
    with zipfile.ZipFile("a.npz", "w", method) as archive, archive.open("é.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, header)
        member.write(np.ones(1).tobytes())
    whole = Path("a.npz").read_bytes()
    if kind == "name":
        whole = whole.replace("é".encode(), b"\xff\xff")
    if kind == "lzma":
        whole = whole[:60] + b"\xff" * 9 + whole[69:]
    if kind == "offset":
        place = whole.index(b"PK\5\6") + 16
        whole = whole[:place] + struct.pack("<I", len(whole)) + whole[place + 4 :]
    Path("a.npz").write_bytes(whole)


@pytest.mark.parametrize("kind", ["name", "axes", "lzma", "bzip2", "offset"])
def test_f82(kind):
    """A damaged .npz, whatever Python's reader raises
    exit 3"""
    damaged(kind)
    refused(3, "inspect", "a.npz", message="a.npz")


def test_f84(y):
    """A pipe or a device in place of a file or of its sidecar
    exit 3; nothing is waited for"""
    Path("y.json").unlink()
    os.mkfifo("y.json")
    os.mkfifo("a.csv")

    def unblock(path):
        """What waits for the pipe nevertheless gets an empty text."""
        time.sleep(2)
        pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        time.sleep(1)
        os.close(pipe)

    for path, words in (("y.json", ["reconstruct", y]), ("a.csv", ["inspect", "a.csv"])):
        thread = threading.Thread(target=unblock, args=(path,))
        thread.start()
        result = run(*words, code=3)
        assert f"{path}: expected a file" in result.stderr
        thread.join()
    for path in ("/dev/zero", "/dev/stdin"):
        result = run("sample", path, "--ratio", 0.1, "-o", "new.npy", code=3)
        assert "expected a file" in result.stderr


def replaced(monkeypatch, code):
    """Let the process that reads foreign files do this instead."""
    start = subprocess.run

    def other(command, **options):
        return start([command[0], "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", other)


def test_f85(monkeypatch):
    """A MATLAB or HDF5 file that keeps its library busy without end
    exit 3 after a time that depends on its size"""
    savemat("a.mat", {"y": Y})
    replaced(monkeypatch, "import time; time.sleep(20)")
    monkeypatch.setattr(arrays, "_SECONDS", 1, raising=False)
    monkeypatch.setattr(arrays, "_PATIENCE", 1, raising=False)
    refused(3, "inspect", "a.mat", message="too long for its size")


def test_f86(monkeypatch):
    """A temporary folder that is full while a MATLAB or HDF5 file is read
    exit 5; no file is left in it"""
    savemat("a.mat", {"y": Y})
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100));"
        "sys.argv = ['foreign', 'a.mat', '60'];"
        "runpy.run_module('csrecon.io.foreign', run_name='__main__')"
    )
    replaced(monkeypatch, limited)
    refused(5, "inspect", "a.mat", message="cannot be written")


def test_f87():
    """A .npz with two arrays of one name, or with an array that is longer than its header says
    exit 3; it is not guessed which one is meant"""
    with zipfile.ZipFile("two.npz", "w") as archive:
        for name, value in (("y.npy", Y), ("y", Y + 1)):
            with archive.open(name, "w") as member:
                np.save(member, value)
    refused(3, "inspect", "two.npz", message="two arrays have this name")
    with zipfile.ZipFile("long.npz", "w") as archive, archive.open("y.npy", "w") as member:
        np.save(member, Y)
        member.write(bytes(8))
    refused(3, "inspect", "long.npz", message="longer than its header says")
