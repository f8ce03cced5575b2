"""Data and their description, two files that are replaced as one: y.npy and y.json.

The description is moved into place first; from this moment the new pair counts. Until the data
follow, they lie beside it under a hidden name that carries the digest of the description, and
whoever reads or writes the pair next moves them. So a pair that was interrupted anywhere is the old
one or the new one. A lock keeps two writers apart.
"""

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from csrecon.io import files, kept, locks

log = logging.getLogger(__name__)

_WAITING = ".waiting"


def _hidden(data: Path) -> str:
    """A hidden name for what belongs to the data, short however long theirs is."""
    return f".{hashlib.sha256(os.fsencode(data.name)).hexdigest()[:12]}"


def _waiting(data: Path, description: Path) -> Path:
    """Where the data of this description wait to be moved into place."""
    digest = files.sha256_file(description)[:24]
    return data.with_name(f"{_hidden(data)}-{digest}{_WAITING}")


def _lock(data: Path) -> Path:
    return data.with_name(f"{_hidden(data)}.lock")


def _flush(path: Path) -> None:
    """Wait until a file is on the disk, so that not even a power cut leaves its name without it."""
    with path.open("rb+") as stream, contextlib.suppress(OSError):  # some file systems cannot
        os.fsync(stream.fileno())


@contextlib.contextmanager
def new_pair(data: Path, description: Path, overwrite: bool = False) -> Iterator[list[Path]]:
    """Yield temporary paths for the data and the description; on success publish them as one.

    Raises:
        UsageError: a target exists and `overwrite` is false.
        ResourceError: as `files.new_files`.
    """
    finish(data, description)
    files.refuse_existing(data, description, overwrite=overwrite)
    with files.temporaries(data, description) as made:
        yield made
        kept.keep_permissions(made[0], data)
        for each in made:
            _flush(each)
        with locks.locked(_lock(data)):
            _finish(data, description)
            files.refuse_existing(data, description, overwrite=overwrite)
            waiting = _waiting(data, made[1])
            try:
                made[0].rename(waiting)
                files.publish(made[1], description, overwrite)
            finally:  # even after a signal the description in place decides
                _finish(data, description)
                waiting.unlink(missing_ok=True)


def finish(data: Path, description: Path) -> Path:
    """Move data that wait into place; return where the data are.

    In a folder that cannot be written the data stay where they wait.

    Raises:
        InputError: the description cannot be read.
    """
    with files.reading(description):
        if not description.is_file():
            return data
        waiting = _waiting(data, description)
        if not waiting.exists():
            return data
        try:
            with locks.locked(_lock(data)):
                _finish(data, description)
        except OSError:
            return waiting if waiting.exists() else data
    log.info("%s: an interrupted command is completed.", data)
    return data


def _finish(data: Path, description: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _waiting(data, description).replace(data)


def finish_all(folder: Path, suffix: str) -> None:
    """`finish` every .npy of a folder whose description has this suffix."""
    with files.reading(folder):
        if any(folder.glob(f".*{_WAITING}")):
            for description in sorted(folder.glob(f"*{suffix}")):
                finish(description.with_suffix(".npy"), description)
