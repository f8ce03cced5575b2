"""y.npy and y.json are replaced as one: at every instant, by several writers, after any kill."""

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import csrecon
from csrecon.errors import UsageError
from csrecon.io import files, locks, pairs
from csrecon.sensing import native
from tests.conftest import ROOT, scene
from tests.test_cli import run


@pytest.fixture(scope="module")
def old():
    return csrecon.sample(scene(16, 16)[..., 0], 0.5, block=8)


@pytest.fixture(scope="module")
def new():
    return csrecon.sample(255 - scene(24, 16)[..., 0], 0.25, block=8)


def same(a, b):
    return a.y.shape == b.y.shape and bool((a.y == b.y).all())


@pytest.fixture(scope="module")
def wrong(old, new, tmp_path_factory):
    """What went wrong where commands were killed at every change, by case; see kills.py."""
    if not hasattr(os, "fork"):
        pytest.skip("kills are tested where there is os.fork")
    folder = tmp_path_factory.mktemp("kills")
    for name, m in (("old", old), ("new", new)):
        native.save(m, folder / f"{name}.npy")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def interrupted(old, new):
    """A new y.json, the old y.npy, and the new data that wait to be moved."""
    native.save(new, Path("y.npy"))
    waiting = pairs._waiting(Path("y.npy"), Path("y.json"))
    Path("y.npy").rename(waiting)
    np.save("y.npy", old.y)
    return waiting


def test_f43(wrong):
    """A command that is killed while it replaces y.npy and y.json
    the old measurement or the new one, whole; the next command completes it"""
    assert "replaced" not in wrong, wrong["replaced"]


def test_a_kill_of_the_first_write_leaves_nothing_or_the_whole(wrong):
    assert "first" not in wrong, wrong["first"]


def test_where_nothing_can_be_written_the_waiting_data_are_read(wrong):
    assert "read_only" not in wrong, wrong["read_only"]


def test_data_that_wait_are_found_in_a_folder_and_completed(interrupted, new):
    Path("y.npy").unlink()
    run("reconstruct", ".", "-o", "images", "--model", "tv:iterations=1")
    assert Path("images/y.png").exists()
    assert same(native.load(Path("y.npy")), new)
    assert not interrupted.exists()


def test_data_of_a_description_that_was_replaced_are_not_used(interrupted, old):
    text = Path("y.json").read_text()
    Path("y.npy").unlink()
    Path("y.json").unlink()
    native.save(old, Path("y.npy"))
    assert same(native.load(Path("y.npy")), old)
    assert interrupted.exists()
    assert text != Path("y.json").read_text()


def test_what_a_killed_command_left_is_no_input(old, new):
    native.save(old, Path("lab/y.npy"))
    native.save(new, Path("lab/.0123456789ab-0.npy"))
    result = run("reconstruct", "lab", "-o", "images", "--model", "tv:iterations=1", "--json")
    assert len(json.loads(result.stdout)) == 1


def test_a_signal_between_the_two_completes_the_pair(old, new, monkeypatch):
    native.save(old, Path("y.npy"))
    original = files.publish

    def interrupted(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        native.save(new, Path("y.npy"), overwrite=True)
    assert same(native.load(Path("y.npy")), new)
    assert {path.name for path in Path().iterdir()} == {"y.npy", "y.json"}


def test_f44(old, new):
    """Several commands that write and read one y.npy
    every reader gets the whole measurement of one of them"""
    path, done, faults = Path("y.npy"), threading.Event(), []
    native.save(old, path)

    def write(m):
        for _ in range(40):
            native.save(m, path, overwrite=True)

    def read():
        while not done.is_set():
            try:
                found = native.load(path)
                assert same(found, old) or same(found, new)
            except Exception as error:
                faults.append(error)

    writers = [threading.Thread(target=write, args=(m,)) for m in (old, new, old)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in [*writers, *readers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert not faults
    assert {found.name for found in Path().iterdir()} == {"y.npy", "y.json"}


def test_of_two_first_writers_one_is_refused(old, new):
    results = []

    def write(m):
        try:
            native.save(m, Path("y.npy"))
            results.append(m)
        except UsageError:
            results.append(None)

    threads = [threading.Thread(target=write, args=(m,)) for m in (old, new)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(None) == 1
    assert same(native.load(Path("y.npy")), next(m for m in results if m is not None))


def test_data_of_another_program_are_not_replaced(new):
    np.save("y.npy", np.ones(3))
    with pytest.raises(UsageError, match="exists already"):
        native.save(new, Path("y.npy"))
    assert np.load("y.npy").tolist() == [1, 1, 1]


def test_f49(new):
    """`--overwrite` where y.json beside the output is of another program
    exit 2; it is kept"""
    Path("y.json").write_text('{"detector": "the only note of its settings"}')
    with pytest.raises(UsageError, match="not written by csrecon"):
        native.save(new, Path("y.npy"), overwrite=True)
    assert "detector" in Path("y.json").read_text()
    assert not Path("y.npy").exists()
    native.save(new, Path("y.npz"), overwrite=True)


def test_long_names(new):
    path = Path("y" * 250 + ".npy")
    native.save(new, path)
    native.save(new, path, overwrite=True)
    assert same(native.load(path), new)


def test_a_lock_file_that_was_left_behind(new):
    pairs._lock(Path("y.npy")).touch()
    native.save(new, Path("y.npy"))
    assert {path.name for path in Path().iterdir()} == {"y.npy", "y.json"}


def test_a_file_system_without_locks_and_hard_links(old, new, monkeypatch):
    def unsupported(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.FileLock, "acquire", unsupported)
    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    native.save(old, Path("y.npy"))
    with pytest.raises(UsageError):
        native.save(new, Path("y.npy"))
    native.save(new, Path("y.npy"), overwrite=True)
    assert same(native.load(Path("y.npy")), new)


def test_who_waits_for_a_lock_whose_file_is_removed_waits_for_the_next():
    path, inside, most = Path("lock"), [], []

    def work():
        for _ in range(20):
            with locks.locked(path):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert not path.exists()


def test_a_symbolic_link_is_replaced_and_its_file_kept(old, new):
    native.save(old, Path("store/y.npy"))
    for name in ("y.npy", "y.json"):
        Path(name).symlink_to(Path("store", name))
    native.save(new, Path("y.npy"), overwrite=True)
    assert same(native.load(Path("y.npy")), new)
    assert same(native.load(Path("store/y.npy")), old)
