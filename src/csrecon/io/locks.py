"""Locks between processes, whose files are removed."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

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
    while True:
        before = _number(path)
        try:
            lock.acquire(timeout=_PATIENCE if wait else 0)
        except Timeout:
            if wait:
                raise
            yield False
            return
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _UNSUPPORTED:
                raise
            yield True
            return
        if isinstance(lock, SoftFileLock) or (before is not None and _number(path) == before):
            break
        lock.release()
    try:
        yield True
    finally:
        with contextlib.suppress(OSError):  # under Windows, while others wait
            path.unlink()
        lock.release()


def _number(path: Path) -> int | None:
    """The number of a file in its file system; None if there is no file."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None
