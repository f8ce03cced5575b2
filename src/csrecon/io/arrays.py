"""Numeric arrays from common lab file formats: .npy, .npz, .mat, .h5 and .csv.

Every reader returns the real numeric arrays of a file by name. Nothing is unpickled, no link to
another file is followed, and declared sizes are checked before memory is allocated.
"""

import io
import logging
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, UsageError
from csrecon.io.files import numbers, read_npy, read_npz, reading, require_file

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]


def _npy(path: Path) -> Arrays:
    return {path.stem: read_npy(path)}


def _apart(path: Path) -> Arrays:
    """The arrays that foreign.py reads in its own process, which a damaged file may crash."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "arrays.npz"
        command = [sys.executable, "-m", "csrecon.io.foreign", str(path), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == InputError.exit_code:
            raise InputError(done.stderr.strip())
        if done.returncode or not made.exists():
            raise InputError(f"{path}: damaged; the library that reads this format crashed.")
        for line in done.stderr.splitlines():
            log.warning("%s", line)
        packed = read_npz(made)
    names = packed.pop("names")
    return {str(name): packed[f"a{index}"] for index, name in enumerate(names)}


def _csv(path: Path) -> Arrays:
    """Numbers separated by commas, semicolons, tabs or spaces, with or without a header line."""
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}).") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    sample = "\n".join(lines)
    separator = next((mark for mark in (";", "\t", ",") if mark in sample), None)
    if separator != "," and "," in sample and "." not in sample:
        lines = [line.replace(",", ".") for line in lines]  # decimal commas
    if lines and not any(_is_number(field) for field in lines[0].split(separator)):
        lines = lines[1:]  # the names of the columns
    if not lines:
        raise InputError(f"{path}: holds no numbers.")
    try:
        values = np.loadtxt(io.StringIO("\n".join(lines)), delimiter=separator, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers ({error}).") from error
    return {path.stem: values}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npy": _npy,
    ".npz": read_npz,
    ".mat": _apart,
    ".h5": _apart,
    ".hdf5": _apart,
    ".csv": _csv,
    ".txt": _csv,
}
"""File suffix -> reader."""


def read(path: Path) -> Arrays:
    """The numeric arrays of a file, by name.

    Raises:
        InputError: an unknown suffix, or a file that is damaged, hostile or holds no numbers.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: not a known array format; expected one of {', '.join(READERS)}.")
    require_file(path)
    found = reader(path)
    if not numbers(found):
        raise InputError(f"{path}: holds no array of real numbers.")
    return found


def pick(
    path: Path, name: str | None = None, flag: str = "--var NAME", likely: str | None = None
) -> NDArray[Any]:
    """One array of a file: the named one, else `likely`, else the only one with several values.

    Raises:
        InputError: as in `read`.
        UsageError: no such name, or several arrays and no name.
    """
    found = read(path)
    shown = ", ".join(f"{key} {value.shape}" for key, value in found.items())
    if name is None and likely in found:
        name = likely
    if name is not None:
        if name not in found:
            raise UsageError(f"{path}: no array {name!r} in it; it holds {shown}.")
        return np.ascontiguousarray(found[name])
    large = [value for value in numbers(found).values() if value.size > 1]
    if len(large) != 1:
        raise UsageError(f"{path}: holds {shown}; say which one with {flag}.")
    return np.ascontiguousarray(large[0])


def split_name(text: str) -> tuple[Path, str | None]:
    """`FILE:NAME` -> path and name; no name if a file exists under the whole text."""
    path = Path(text)
    stem, mark, name = text.rpartition(":")
    if mark and name and not path.exists() and Path(stem).suffix.lower() in READERS:
        return Path(stem), name
    return path, None
