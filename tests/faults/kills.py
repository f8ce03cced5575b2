"""Kills of a command at every change of a folder, in children of a process without threads.

Run as `python -m tests.faults.kills` in a folder with two measurements, old.npy and new.npy. Prints
what is wrong, by the name of the case, as JSON.
"""

import json
import os
import sys
import traceback
from pathlib import Path

import filelock
import torch

from csrecon.sensing import native

_CHANGES = ["rename", "replace", "hardlink_to", "unlink"]
_MOST = 40


def killed_at(count, work):
    """Do the work in a child that dies just before its count-th change; whether it died."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = [count]

    def counted(original):
        def change(*arguments, **options):
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)
            return original(*arguments, **options)

        return change

    try:
        for name in _CHANGES:
            setattr(Path, name, counted(getattr(Path, name)))
        work()
    finally:
        os._exit(0)


def same(a, b):
    return a.y.shape == b.y.shape and bool((a.y == b.y).all())


def replaced(old, new):
    """A measurement is replaced: afterwards it is the old one or the new one, in this order."""
    path, seen = Path("y.npy"), []
    for count in range(1, _MOST):
        native.save(old, path, overwrite=True)
        if not killed_at(count, lambda: native.save(new, path, overwrite=True)):
            break
        found = native.load(path)
        assert same(found, old) or same(found, new)
        seen.append(same(found, new))
    else:
        raise AssertionError("never done")
    assert seen == sorted(seen)
    assert same(native.load(path), new)


def first(_, new):
    """A measurement is written for the first time: it is whole, or can be written again."""
    for count in range(1, _MOST):
        path = Path(f"at-{count}") / "y.npy"
        died = killed_at(count, lambda path=path: native.save(new, path))
        if not path.with_suffix(".json").exists():
            native.save(new, path)
        assert same(native.load(path), new)
        if not died:
            return
    raise AssertionError("never done")


def read_only(old, new):
    """Where nothing can be written, data that wait to be moved are read where they are."""
    path = Path("y.npy")
    native.save(old, path)
    for count in range(1, _MOST):
        died = killed_at(count, lambda: native.save(new, path, overwrite=True))
        if (
            list(Path().glob(".*.waiting"))
            and '"height": 24' in path.with_suffix(".json").read_text()
        ):
            break
        assert died

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    filelock.FileLock.acquire = forbidden
    before = {found.name for found in Path().iterdir()}
    assert same(native.load(path), new)
    assert {found.name for found in Path().iterdir()} == before


if __name__ == "__main__":
    torch.set_num_threads(1)
    measurements = [native.load(Path(f"{name}.npy")) for name in ("old", "new")]
    wrong = {}
    for case in (replaced, first, read_only):
        Path(case.__name__).mkdir()
        os.chdir(case.__name__)
        try:
            case(*measurements)
        except Exception:
            wrong[case.__name__] = traceback.format_exc()
        os.chdir("..")
    sys.stdout.write(json.dumps(wrong))
