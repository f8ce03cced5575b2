"""The files of a folder that a user means: hidden files are none of them.

A name that begins with a dot belongs to the system or is a temporary file: `._a.png` beside `a.png`
on a disk that macOS has written, or what a command that was killed has left.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from csrecon.io.files import reading

_OF_THE_SYSTEM = {"thumbs.db", "desktop.ini"}


def shown(paths: Iterable[Path]) -> list[Path]:
    """The regular files among these that are not hidden, sorted."""
    return sorted(
        path
        for path in paths
        if path.name[:1] != "." and path.name.lower() not in _OF_THE_SYSTEM and path.is_file()
    )


def listed(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files of a folder with one of these suffixes in lower case, by name.

    Raises:
        InputError: the folder cannot be read.
    """
    with reading(folder):
        return shown(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
