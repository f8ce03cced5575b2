"""Outputs appear whole or not at all; arrays are read without pickle and without trust."""

import errno
import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.io import files


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "cache")


def test_new_files_appear_together(tmp_path):
    with files.new_files(tmp_path / "out" / "a.npy", tmp_path / "out" / "a.json") as (a, b):
        a.write_text("A")
        b.write_text("B")
        assert not (tmp_path / "out" / "a.npy").exists()
    assert left_in(tmp_path / "out") == ["a.json", "a.npy"]
    assert (tmp_path / "out" / "a.json").read_text() == "B"


def test_what_a_signal_leaves_before_its_removal_begins_is_removed_at_the_end(tmp_path):
    writing = files.new_files(tmp_path / "a")
    (path,) = writing.__enter__()
    path.write_text("half")
    files.remove_temporaries()
    assert left_in(tmp_path) == []
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_nothing(tmp_path, fault):
    with pytest.raises(fault), files.new_files(tmp_path / "a", tmp_path / "b") as (a, _):
        a.write_text("half")
        raise fault
    assert left_in(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_a_refusing_disk_leaves_nothing(tmp_path, code, message):
    with pytest.raises(ResourceError, match=message), files.new_files(tmp_path / "a") as (a,):
        a.write_text("half")
        raise OSError(code, "planted")
    assert left_in(tmp_path) == []


def test_a_parent_that_is_a_file(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ResourceError), files.new_files(tmp_path / "taken" / "a.npy"):
        pass
    assert (tmp_path / "taken").read_text() == "mine"


def test_existing_files_are_kept(tmp_path):
    target = tmp_path / "y.npy"
    target.write_text("irreplaceable")
    with pytest.raises(UsageError, match="--overwrite"), files.new_files(target):
        pytest.fail("the work must not start")
    assert target.read_text() == "irreplaceable"


def test_a_file_that_appears_meanwhile_is_kept_and_its_pair_withdrawn(tmp_path):
    first, second = tmp_path / "y.npy", tmp_path / "y.json"
    with pytest.raises(UsageError, match="exists"), files.new_files(first, second) as (a, b):
        a.write_text("new")
        b.write_text("new")
        second.write_text("someone else's")
    assert left_in(tmp_path) == ["y.json"]
    assert second.read_text() == "someone else's"


def test_overwrite_replaces(tmp_path):
    target = tmp_path / "y.npy"
    target.write_text("old")
    with files.new_files(target, overwrite=True) as (temporary,):
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert left_in(tmp_path) == ["y.npy"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<u2", "|b1"])
def test_npy_round_trip(tmp_path, dtype, order):
    array = np.asarray(np.arange(24).reshape(2, 3, 4), dtype=dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(files.read_npy(tmp_path / "a.npy"), array)


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"run": "code"}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="pickled"):
        files.read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(10, 11), (2**40, 2**20), (10**30,)])
def test_a_header_that_promises_more_than_the_file_holds(tmp_path, shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    (tmp_path / "a.npy").write_bytes(stream.getvalue() + bytes(400))
    with pytest.raises(InputError, match="promises"):
        files.read_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", b"hello" * 9]
)
def test_not_an_array(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError):
        files.read_npy(tmp_path / "a.npy")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        files.read_npy(tmp_path / "a.npy")
    with pytest.raises(InputError, match="folder"):
        files.read_npy(tmp_path)


def test_npz_with_pickled_member_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros(3), evil=np.array([print], dtype=object))
    with pytest.raises(InputError, match=r"evil.*pickled"):
        files.read_npz(tmp_path / "a.npz")


def test_a_truncated_npz(tmp_path):
    np.savez(tmp_path / "a.npz", y=np.zeros(300))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable"):
        files.read_npz(tmp_path / "a.npz")


def test_a_zip_whose_member_lies_about_its_size(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1000,)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("y.npy", header.getvalue() + bytes(16))
    with pytest.raises(InputError, match="promises"):
        files.read_npz(tmp_path / "a.npz")


SHAPES = st.one_of(
    st.lists(st.integers(-2, 2**62), max_size=4).map(tuple),
    st.just((True, 10)),
    st.just((0, 10**22)),
    st.integers(0, 9),
)
TYPES = st.sampled_from(
    ["<f4", ">f8", "<u2", "|b1", "|V0", "<U0", "<U3", "|O", ("<f4", (2,)), "<c8", "<M8", "x", 3]
)


@settings(max_examples=300, deadline=None)
@given(
    shape=SHAPES, descr=TYPES, order=st.sampled_from([True, False, 1, None]),
    content=st.binary(max_size=300), valid=st.booleans(),
)  # fmt: skip
def test_no_bytes_do_worse_than_an_input_error(
    tmp_path_factory, shape, descr, order, content, valid
):
    path = tmp_path_factory.mktemp("fuzz") / "a.npy"
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode() + b"\n"
    magic = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header if valid else b""
    path.write_bytes(magic + content)
    for reader in (files.read_npy, files.read_npz):
        try:
            reader(path)
        except InputError as error:
            assert str(path) in str(error)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_damage_to_an_archive_does_worse_than_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.npz"
    np.savez_compressed(path, y=np.arange(50.0), text=np.array("metadata"))
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        files.read_npz(path)
    except InputError as error:
        assert str(path) in str(error)


def test_what_the_system_refuses_to_read(tmp_path):
    for path in (tmp_path / ("a" * 300), tmp_path / "file" / "below.npy"):
        (tmp_path / "file").touch()
        with pytest.raises(InputError):
            files.read_npy(path)


def test_a_long_name_of_wide_characters(tmp_path):
    target = tmp_path / ("像" * 80 + ".npy")
    with files.new_files(target) as (temporary,):
        temporary.write_text("new")
    assert target.exists()


def test_a_link_to_nowhere_is_kept(tmp_path):
    (tmp_path / "y.npy").symlink_to(tmp_path / "gone")
    with pytest.raises(UsageError, match="exists"), files.new_files(tmp_path / "y.npy"):
        pytest.fail("the work must not start")


def test_a_signal_between_two_files_that_replace_others_leaves_no_mixture(monkeypatch):
    targets = [Path("a.csv"), Path("a.md")]
    for target in targets:
        target.write_text("old")
    original = files.publish

    def interrupted(*arguments):
        original(*arguments)
        monkeypatch.setattr(files, "publish", original)
        raise KeyboardInterrupt

    for overwrite, left in ((True, "new"), (False, None)):
        if not overwrite:
            for target in targets:
                target.unlink()
        monkeypatch.setattr(files, "publish", interrupted)
        with (
            pytest.raises(KeyboardInterrupt),
            files.new_files(*targets, overwrite=overwrite) as made,
        ):
            for temporary in made:
                temporary.write_text("new")
        assert [t.read_text() if t.exists() else None for t in targets] == [left, left]
