"""y.npy and y.json are replaced as one: at every instant, by several writers, after any kill."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import csrecon
from csrecon.errors import UsageError
from csrecon.io import files, pairs
from csrecon.sensing import native
from tests.conftest import scene
from tests.test_cli import run

OPERATIONS = ["rename", "replace", "hardlink_to", "unlink"]


@pytest.fixture
def old():
    return csrecon.sample(scene(16, 16)[..., 0], 0.5, block=8)


@pytest.fixture
def new():
    return csrecon.sample(255 - scene(24, 16)[..., 0], 0.25, block=8)


def killed_at(count, work):
    """Do the work in another process that dies just before its count-th change of the folder.

    Returns whether it died.
    """
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [count]

    def counted(original):
        def operation(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return original(*arguments, **options)

        return operation

    try:
        for name in OPERATIONS:
            setattr(Path, name, counted(getattr(Path, name)))
        work()
    finally:
        os._exit(0)


def same(a, b):
    return a.y.shape == b.y.shape and bool((a.y == b.y).all())


def test_f121(old, new):
    """A command that is killed while it replaces y.npy and y.json
    the old measurement or the new one, whole; the next command completes it"""
    path, seen = Path("y.npy"), []
    for count in range(1, 20):
        native.save(old, path, overwrite=True)
        if not killed_at(count, lambda: native.save(new, path, overwrite=True)):
            break
        found = native.load(path)
        assert same(found, old) or same(found, new)
        seen.append(same(found, new))
    else:
        pytest.fail("never done")
    assert seen == sorted(seen)
    assert {False, True} == set(seen)
    assert native.load(path).y.shape == new.y.shape


def test_a_kill_of_the_first_write_leaves_nothing_or_the_whole(new):
    for count in range(1, 20):
        folder = Path(f"at-{count}")
        path = folder / "y.npy"
        died = killed_at(count, lambda path=path: native.save(new, path))
        if path.with_suffix(".json").exists():
            run("reconstruct", folder, "-o", folder / "images", "--model", "tv:iterations=1")
            assert same(native.load(path), new)
            assert (folder / "images" / "y.png").exists()
        else:
            native.save(new, path)
            assert same(native.load(path), new)
        if not died:
            break
    else:
        pytest.fail("never done")


def test_where_nothing_can_be_written_the_waiting_data_are_read(old, new, monkeypatch):
    path = Path("y.npy")
    native.save(old, path)
    count = next(
        count
        for count in range(1, 20)
        if killed_at(count, lambda: native.save(new, path, overwrite=True))
        and list(Path().glob("*.waiting")) + list(Path().glob(".*.waiting"))
        and same_sidecar(path, new)
    )
    assert count

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pairs, "_locked", forbidden)
    assert same(native.load(path), new)


def same_sidecar(path, m):
    return files.sha256(m.y.numpy()) in path.with_suffix(".json").read_text()


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


def test_f122(old, new):
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
