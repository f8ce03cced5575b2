"""Numeric arrays from common lab file formats: .npy, .npz, .mat, .h5, .cfl and .csv.

Every reader returns the real numeric arrays of a file by name. Nothing is unpickled, no link to
another file is followed, and declared sizes are checked before memory is allocated, over all arrays
that are read.
"""

import io
import itertools
import logging
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csrecon.errors import InputError, ResourceError, UsageError
from csrecon.io.files import (
    explained,
    numbers,
    read_archive,
    read_npy,
    read_npz,
    reading,
    require_file,
)

log = logging.getLogger(__name__)

Arrays = dict[str, NDArray[Any]]

_SECONDS, _BYTES_A_SECOND = 60, 2**20  # what reading a file may take, at the slowest
_NAMED = 20  # arrays in a message
_HEADER = 1000  # fields of a first line that may be names of columns
_COMPARED = 10**6  # numbers whose decimal marks are compared
_COUNTED = 4  # columns from which on a line 0,1,2,… is no measurement
_LONGEST_HEADER, _BART_AXES = 2**16, 16  # of BART's files
_PATIENCE = 5  # how much longer a reader may wait for its disk than it may compute


def _npy(path: Path, only: str | None) -> Arrays:
    return {path.stem: read_npy(path)} if only in (None, path.stem) else {}


def _apart(path: Path, only: str | None, cells: bool = False) -> Arrays:
    """The arrays that foreign.py reads in its own process, which a damaged file may crash.

    They come back in a file without a name, which goes with the two processes.
    """
    # -P: modules that lie in the working folder beside the data are not imported.
    seconds = _SECONDS + path.stat().st_size // _BYTES_A_SECOND
    command = [sys.executable, "-P", "-m", "csrecon.io.foreign", str(path), str(seconds)]
    command += [only or ""] + ["cells"] * cells
    try:
        with tempfile.TemporaryFile() as made:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=made,
                stderr=subprocess.PIPE,
                timeout=_PATIENCE * seconds,
                check=False,
            )
            said = done.stderr.decode(errors="backslashreplace").strip()
            if done.returncode == InputError.exit_code:
                raise InputError(said)
            if done.returncode == ResourceError.exit_code:
                raise ResourceError(said)
            if done.returncode == -getattr(signal, "SIGXCPU", 0):
                raise subprocess.TimeoutExpired(command, seconds)
            if done.returncode or not made.seek(0, os.SEEK_END):
                raise InputError(f"{path}: damaged; the library that reads this format crashed.")
            packed = read_archive(made, str(path))
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{path}: not read after {error.timeout:.0f} s, which is too long for its size. The "
            "file is damaged or hostile."
        ) from error
    except OSError as error:
        raise explained(error, Path(tempfile.gettempdir()) / path.name) from error
    for line in said.splitlines():
        log.warning("%s", line)
    names = packed.pop("names")
    return {str(name): packed[f"a{index}"] for index, name in enumerate(names)}


def _csv(path: Path, only: str | None) -> Arrays:
    """Numbers separated by commas, semicolons, tabs or spaces, with or without a header line."""
    if only not in (None, path.stem):
        return {}
    try:
        with reading(path):
            text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file ({error}).") from error
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    sample = "\n".join(lines)
    separator = next((mark for mark in (";", "\t", ",") if mark in sample), None)
    _check_thousands(path, lines, separator)
    if separator != "," and "," in sample and "." not in sample:
        lines = [line.replace(",", ".") for line in lines]  # decimal commas
    if lines and not any(_is_number(field) for field in lines[0].split(separator, _HEADER)):
        lines = lines[1:]  # the names of the columns
    if not lines:
        raise InputError(f"{path}: holds no numbers.")
    try:
        values = np.loadtxt(io.StringIO("\n".join(lines)), delimiter=separator, ndmin=2)
    except ValueError as error:
        raise InputError(f"{path}: not a table of numbers ({error}).") from error
    if _counts_columns(values):
        raise InputError(
            f"{path}: its first line counts the columns, from {values[0, 0]:g} to "
            f"{values[0, -1]:g}, which would be read as values. Remove this line."
        )
    return {path.stem: values}


def _check_thousands(path: Path, lines: Sequence[str], separator: str | None) -> None:
    """Refuse 1,234;999 and 1.234;999, which are no decimals, but look like them.

    A comma or a point in all numbers from 1000 on, and in no other, separates thousands.
    """
    every = (field.strip() for line in lines for field in line.split(separator))
    fields = list(itertools.islice(every, _COMPARED))
    for mark in ",.":
        marked = [field for field in fields if mark in field]
        plain = [field for field in fields if mark not in field and _is_number(field)]
        grouped = re.compile(rf"[+-]?[1-9]\d{{0,2}}(\{mark}\d{{3}})+").fullmatch
        small = re.compile(r"[+-]?\d{1,3}").fullmatch
        if len(marked) > 2 and plain and all(map(grouped, marked)) and all(map(small, plain)):
            raise InputError(
                f"{path}: {marked[0]} and {plain[0]} look as if {mark!r} separated thousands; "
                "expected numbers without such marks."
            )


def _counts_columns(values: NDArray[Any]) -> bool:
    """Whether the first line counts columns from 0 or 1 on, as names of columns do."""
    if len(values) < 2 or values.shape[1] < _COUNTED:
        return False
    steps = np.diff(values[:2], axis=1)
    return values[0, 0] in (0, 1) and bool((steps[0] == 1).all() and not (steps[1] == 1).all())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _cfl(path: Path, only: str | None) -> Arrays:
    """The array of BART's .cfl, complex64 in Fortran order, whose .hdr beside it has the shape."""
    if only not in (None, path.stem):
        return {}
    header = path.with_suffix(".hdr")
    require_file(header)
    with reading(header), header.open("rb") as stream:
        text = stream.read(_LONGEST_HEADER).decode("ascii", "replace")
    lines = [line.strip() for line in text.partition("# Dimensions")[2].splitlines()]
    named = next((line.split() for line in lines if line), [])
    if not named or not all(word.isdecimal() and 0 < int(word) < 2**40 for word in named):
        raise InputError(f"{header}: no header of BART: no line of sizes after `# Dimensions`.")
    shape = tuple(int(word) for word in named)
    stored = path.stat().st_size
    if len(shape) > _BART_AXES or 8 * math.prod(shape) != stored:
        raise InputError(
            f"{path}: {stored} bytes, and {header.name} promises shape {shape} of complex64 "
            f"({8 * math.prod(shape)} bytes). One of the two is truncated or of another scan."
        )
    with reading(path):
        return {path.stem: np.fromfile(path, "<c8").reshape(shape, order="F")}


READERS: dict[str, Callable[[Path, str | None], Arrays]] = {
    ".npy": _npy,
    ".npz": read_npz,
    ".mat": _apart,
    ".h5": _apart,
    ".hdf5": _apart,
    ".cfl": _cfl,
    ".csv": _csv,
    ".txt": _csv,
}
"""File suffix -> reader of all arrays, or only of one by its name."""


def _read(path: Path, only: str | None = None) -> Arrays:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: not a known array format; expected one of {', '.join(READERS)}.")
    require_file(path)
    return reader(path, only)


def read(path: Path) -> Arrays:
    """The numeric arrays of a file, by name.

    Raises:
        InputError: an unknown suffix, or a file that is damaged, hostile or holds no numbers.
    """
    found = _read(path)
    if not numbers(found):
        raise InputError(f"{path}: holds no array of real numbers.")
    return found


def nested(path: Path) -> Arrays:
    """The numeric arrays of a MATLAB 7.3 file and of its structures and cells, by path.

    The elements of a cell array are counted from 0: `net/layers/0/weights/1`.

    Raises:
        InputError: no such file, or one that is damaged, hostile or of another format.
    """
    require_file(path)
    return _apart(path, None, cells=True)


def find(path: Path, name: str) -> NDArray[Any] | None:
    """The array of this name; None if there is none.

    Raises:
        InputError: as in `read`.
    """
    return _read(path, name).get(name)


def pick(
    path: Path, name: str | None = None, flag: str = "--var NAME", likely: str | None = None
) -> NDArray[Any]:
    """One array of a file: the named one, else `likely`, else the only one with several values.

    The others are not read, if it is known which one is asked for.

    Raises:
        InputError: as in `read`.
        UsageError: no such name, or several arrays and no name.
    """
    asked = name or likely
    chosen = _read(path, asked).get(asked) if asked else None
    if chosen is not None:
        return np.ascontiguousarray(chosen)
    found = read(path)
    first = list(found.items())[:_NAMED]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    shown = ", ".join(f"{key} {value.shape}" for key, value in first) + more
    if name is not None:
        raise UsageError(f"{path}: no array {name!r} in it; it holds {shown}.")
    large = [value for value in numbers(found).values() if value.size > 1]
    if len(large) != 1:
        raise UsageError(f"{path}: holds {shown}; say which one with {flag}.")
    return np.ascontiguousarray(large[0])


def unmasked(given: Any, label: str = "array") -> NDArray[Any]:
    """A plain array of the same values.

    Raises:
        InputError: a masked array of which values are masked: nothing says what to use for them.
    """
    hidden = int(np.ma.getmaskarray(given).sum()) if isinstance(given, np.ma.MaskedArray) else 0
    if hidden:
        raise InputError(
            f"{label} of shape {given.shape}: {hidden} of its values are masked. Fill them, or "
            "leave the blocks out and give the positions of the others."
        )
    return np.asarray(given)


def split_name(text: str) -> tuple[Path, str | None]:
    """`FILE:NAME` -> path and name; no name if a file exists under the whole text."""
    path = Path(text)
    stem, mark, name = text.rpartition(":")
    if mark and name and not path.exists() and Path(stem).suffix.lower() in READERS:
        return Path(stem), name
    return path, None
