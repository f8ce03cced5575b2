"""Locks between processes, whose files are removed."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

_PATIENCE = 60.0  # seconds; what is done under a lock takes milliseconds
# What file systems without locks answer.
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of this name; yield whether it is held. Its file is removed at the end.

    Who waits for the lock may have opened the file before it was removed, and then has a lock that
    nobody else sees; so a lock counts only if its file is in place, and was before it was opened.
    On a file system without locks it counts as held.

    Args:
        path: the file of the lock.
        wait: up to a minute for other processes; else not at all.

    Raises:
        OSError: its file cannot be made, or others hold the lock for too long.
    """
    lock = FileLock(path)
    settled = False
    try:
        held = _acquired(lock, path, wait)
        settled = True
        yield held
    finally:
        if not settled:  # a signal may have come when the file was made, and not yet locked
            with contextlib.suppress(OSError, NotImplementedError):
                lock.acquire(timeout=0)
        if lock.is_locked:
            with contextlib.suppress(OSError):  # under Windows, while others wait
                path.unlink()
            lock.release(force=True)


def _acquired(lock: BaseFileLock, path: Path, wait: bool) -> bool:
    """Acquire a lock whose file is in place; whether it is held, as in `locked`."""
    while True:
        before = _number(path)
        try:
            lock.acquire(timeout=_PATIENCE if wait else 0)
        except Timeout:
            if wait:
                raise
            return False
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
                raise
            return True
        if isinstance(lock, SoftFileLock) or (before is not None and _number(path) == before):
            return True
        lock.release()


def _number(path: Path) -> int | None:
    """The number of a file in its file system; None if there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
